"""The command `gpen-stream`: its subcommands, and what an error looks like."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from stream import __version__
from stream.cli import bench, compare, live, models, planning, quality, restore, serve, train
from stream.cli.options import DebugAlone, Tracebacks, complain
from stream.errors import StreamError

app = typer.Typer(
    name="gpen-stream",
    help="Restores faces in video with GPEN; every other pixel, sound and tag stays as it is.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (restore, planning, live, models, quality, compare, train, serve):
    app.add_typer(command.app)
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Entry point: every expected error is one line on stderr and an exit code."""
    try:
        code = app(prog_name="gpen-stream", standalone_mode=False)
    except StreamError as error:
        _fail(error, str(error), error.exit_code)
    except KeyboardInterrupt as error:
        _fail(error, "interrupted", 130)
    except MemoryError as error:
        _fail(error, "out of memory; lower --batch-size or the picture's size", 1)
    except BrokenPipeError:  # whoever read what `probe` prints has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except Exception as error:
        # Typer's own usage errors know how to say what is wrong.
        kind, message = type(error).__name__, getattr(error, "format_message", None)
        if kind == "NoArgsIsHelpError":  # the help is on the screen already
            raise SystemExit(2) from None
        if kind == "Abort":
            _fail(error, "interrupted", 130)
        if message is not None:
            command = getattr(getattr(error, "ctx", None), "command_path", "gpen-stream")
            _fail(error, f"{message().rstrip('.')}; see {command} --help", 2)
        _fail(error, f"unexpected {type(error).__name__}: {error}; run again with --debug and report it", 1)
    raise SystemExit(code if isinstance(code, int) else 0)


def _fail(error: BaseException, message: str, code: int) -> None:
    if Tracebacks.wanted:
        traceback.print_exception(error)
    complain(f"error: {message}")
    raise SystemExit(code)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"gpen-stream {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Restores faces in video with GPEN; every other pixel, sound and tag stays as it is."""


@app.command()
def probe(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="A video or a picture.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: DebugAlone = False,
) -> None:
    """Print what is in a file."""
    from stream.media.inspection import describe, render

    facts = describe(source)
    print(json.dumps(facts, indent=2) if as_json else render(facts), flush=True)


@app.command()
def engines(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the engines of this machine, what each lacks, and what engine auto measured and chose."""
    from stream.models.engines.listing import list_engines, render

    facts = list_engines()
    print(json.dumps(facts.model_dump(), indent=2) if as_json else render(facts), flush=True)
