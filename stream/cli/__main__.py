"""`python -m stream.cli`, as `gpen-stream`."""

from stream.cli.main import main

main()
