"""`--debug`, the same option for every command: whether an error is shown with its traceback."""

from __future__ import annotations

from typing import Annotated

import typer

wanted = False
"""Set once the command line has been read."""


def _want(given: bool) -> bool:
    global wanted
    wanted = wanted or given
    return given


Debug = Annotated[
    bool, typer.Option("--debug", callback=_want, help="Print tracebacks.", rich_help_panel="Output")
]
DebugAlone = Annotated[bool, typer.Option("--debug", callback=_want, help="Print tracebacks.")]
"""For commands whose options stand under no headings."""
