"""Arguments -> configuration -> pipeline -> exit code."""

from __future__ import annotations

import json
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Annotated

import typer

from stream import __version__
from stream.config import PRESETS, Config, load_config
from stream.errors import ConfigError, SourceError, StreamError

app = typer.Typer(
    name="gpen-stream",
    help="Restores faces in video with GPEN; every other pixel, sound and tag stays as it is.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
_TRUNCATED = 3
_debug = False


def main() -> None:
    """Entry point: every expected error is one line on stderr and an exit code."""
    try:
        code = app(standalone_mode=False)
    except StreamError as error:
        _fail(error, str(error), error.exit_code)
    except KeyboardInterrupt as error:
        _fail(error, "interrupted", 130)
    except MemoryError as error:
        _fail(error, "out of memory; lower --batch-size or the picture's size", 1)
    except Exception as error:
        # Typer's own usage errors know how to say what is wrong.
        message = getattr(error, "format_message", None)
        if message is not None:
            _fail(error, f"{message()} (see gpen-stream --help)", 2)
        if type(error).__name__ == "Abort":
            _fail(error, "interrupted", 130)
        _fail(error, f"unexpected {type(error).__name__}: {error}; run again with --debug and report it", 1)
    raise SystemExit(code if isinstance(code, int) else 0)


def _fail(error: BaseException, message: str, code: int) -> None:
    if _debug:
        traceback.print_exception(error)
    print("error: " + " ".join(message.split()), file=sys.stderr)
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


_RUN, _WAY, _OUT = "What to restore", "How", "Output"


@app.command()
def restore(
    source: Annotated[
        Path | None, typer.Argument(metavar="INPUT", help="A video, a picture, or a folder of either.")
    ] = None,
    target: Annotated[
        Path | None, typer.Argument(metavar="OUTPUT", help="The file to write; a folder if INPUT is one.")
    ] = None,
    input_path: Annotated[
        Path | None, typer.Option("--input", "--input_dir", "--input-dir", help="Same as INPUT.")
    ] = None,
    output_path: Annotated[
        Path | None, typer.Option("--output", "--output_dir", "--output-dir", help="Same as OUTPUT.")
    ] = None,
    aligned: Annotated[
        bool, typer.Option("--aligned", help="INPUT already is aligned face crops.", rich_help_panel=_RUN)
    ] = False,
    start: Annotated[
        float | None, typer.Option(min=0, help="Begin here, seconds.", rich_help_panel=_RUN)
    ] = None,
    duration: Annotated[
        float | None, typer.Option(min=0.001, help="Stop after so many seconds.", rich_help_panel=_RUN)
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y,W,H", help="Only faces in this region (fractions 0..1).", rich_help_panel=_RUN
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="X,Y,W,H", help="Leave faces in this region alone.", rich_help_panel=_RUN),
    ] = None,
    preset: Annotated[str, typer.Option(help=", ".join(PRESETS) + ".", rich_help_panel=_WAY)] = "default",
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML settings over the preset.", rich_help_panel=_WAY)
    ] = None,
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One setting, e.g. restore.strength=0.7.", rich_help_panel=_WAY),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", "--batch_size", help="Crops in one call.", rich_help_panel=_WAY),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUTPUT if it exists.", rich_help_panel=_OUT)
    ] = False,
    allow_loss: Annotated[
        bool,
        typer.Option("--allow-loss", help="Drop streams that OUTPUT cannot hold.", rich_help_panel=_OUT),
    ] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Write counts and timings.", rich_help_panel=_OUT)
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors only.", rich_help_panel=_OUT)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks.", rich_help_panel=_OUT)] = False,
) -> int:
    """Restore the faces in INPUT and write OUTPUT.

    Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 the input ends early, 130/143 stopped.
    """
    global _debug
    _debug = debug
    src, dst = source or input_path, target or output_path
    if src is None or dst is None:
        missing = "INPUT" if src is None else "OUTPUT"
        raise ConfigError(f"{missing} is missing; write: gpen-stream restore INPUT OUTPUT")
    overrides = list(assign or [])
    if batch_size is not None:
        overrides.append(f"restore.batch_size={batch_size}")
    for key, regions in (("include", include), ("exclude", exclude)):
        if regions:
            overrides.append(f"select.{key}=[{', '.join(_region(key, text) for text in regions)}]")
    settings = load_config(preset, config, overrides)
    from stream.api import Options

    options = Options(aligned, start, duration, overwrite, allow_loss)
    return _restore(src, dst, settings, options, report, quiet)


def _region(key: str, text: str) -> str:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not all(0 <= n <= 1 for n in numbers):
        raise ConfigError(f"--{key} {text}: write X,Y,WIDTH,HEIGHT as fractions, such as 0.5,0,0.5,1")
    return str(numbers)


def _restore(src: Path, dst: Path, config: Config, options, report: Path | None, quiet: bool) -> int:
    from stream.folder import restore_folder
    from stream.api import Status, restore_file
    from stream.progress import Display

    if report is not None and not report.resolve().parent.is_dir():
        raise ConfigError(f"--report {report}: its folder does not exist; create it first")
    stop, caught = threading.Event(), []

    def on_signal(number: int, _frame: object) -> None:
        if caught:  # asked twice: leave at once; the hidden partial file is playable
            raise KeyboardInterrupt
        caught.append(number)
        stop.set()

    old = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with Display(quiet) as display:
            if src.is_dir():
                outcomes = restore_folder(src, dst, config, options=options, display=display, stop=stop)
            else:
                outcomes = [restore_file(src, dst, config, options=options, progress=display, stop=stop)]
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    if report is not None:
        reports = [outcome.report for outcome in outcomes]
        text = json.dumps(reports[0] if not src.is_dir() else reports, indent=2)
        report.write_text(text + "\n", encoding="utf-8")
    code = 0
    for outcome in outcomes:
        for note in outcome.notes:
            display.say(f"note: {note}")
        for failure in outcome.failures:
            print(f"error: {failure}", file=sys.stderr)
            code = 1
        if outcome.status is Status.TRUNCATED:
            print(f"error: {src}: ends early; restored as far as it goes: {outcome.path}", file=sys.stderr)
            code = _TRUNCATED
        elif outcome.status is Status.INTERRUPTED:
            print(f"stopped; what was restored so far: {outcome.path}", file=sys.stderr)
            code = 128 + caught[0] if caught else 130
        elif not outcome.failures:
            display.say(f"{outcome.path}")
    return code


@app.command()
def probe(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="A video or a picture.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what is in a file."""
    from stream.inspection import describe, render

    facts = describe(source)
    print(json.dumps(facts, indent=2) if as_json else render(facts))


__all__ = ["SourceError", "app", "main"]

if __name__ == "__main__":
    main()
