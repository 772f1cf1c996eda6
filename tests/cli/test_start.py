"""A warm start loads nothing that the run does not need, and says when the first frame was out."""

import json

import pytest

CODE = """
import sys
from stream.cli.main import main
try:
    main()
finally:
    heavy = ("torch", "scipy", "tifffile", "facexlib", "fastapi", "matplotlib", "nncf")
    loaded = [name for name in heavy if name in sys.modules]
    print("loaded:", ",".join(loaded), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def warm(run_cli, portrait, tmp_path_factory):
    """A second run of the whole command, with the converted network in the cache."""
    folder = tmp_path_factory.mktemp("warm")
    arguments = ("restore", portrait, folder / "out.mp4", "--duration", "0.6", "--overwrite", "--report")
    run_cli(*arguments, folder / "first.json")
    return run_cli(*arguments, folder / "report.json", code=CODE), folder / "report.json"


def test_a_whole_restore_imports_neither_torch_nor_scipy(warm):
    done, _ = warm
    assert done.returncode == 0, done.stderr
    assert "loaded: \n" in done.stderr


def test_the_report_says_when_the_first_frame_was_written(warm):
    report = json.loads(warm[1].read_text())
    assert 0.1 < report["first_frame_s"] < 60
    assert report["frames_out"] == 15
