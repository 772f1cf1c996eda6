"""Arguments -> configuration -> pipeline -> exit code."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream import __version__
from stream.cli import compare, live, models, quality, tracebacks, train
from stream.cli.bench import app as bench_app
from stream.cli.serve import serve
from stream.cli.tracebacks import Debug, DebugAlone
from stream.config import PRESETS, Config, load_config
from stream.errors import ConfigError, EncodeError, StreamError

if TYPE_CHECKING:  # loading them takes a second, which `--help` does without
    from stream.cli.progress import Display
    from stream.job.api import Options, Outcome, RunReport

app = typer.Typer(
    name="gpen-stream",
    help="Restores faces in video with GPEN; every other pixel, sound and tag stays as it is.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(live.app)
app.add_typer(models.app)
app.add_typer(quality.app)
app.add_typer(compare.app)
app.add_typer(train.app)
app.command()(serve)
app.add_typer(bench_app, name="bench")
_TRUNCATED = 3


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
    if tracebacks.wanted:
        traceback.print_exception(error)
    _complain(f"error: {message}")
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
    input_path: Annotated[Path | None, typer.Option("--input", "--input_dir", help="Same as INPUT.")] = None,
    output_path: Annotated[
        Path | None, typer.Option("--output", "--output_dir", help="Same as OUTPUT.")
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
        typer.Option(
            "--set", metavar="KEY=VALUE", help="One setting, e.g. restore.strength=0.7.", rich_help_panel=_WAY
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH", help="Which model restores; see `models list`.", rich_help_panel=_WAY
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size", "--batch_size", metavar="N", help="Crops in one call.", rich_help_panel=_WAY
        ),
    ] = None,
    strength: Annotated[
        float | None, typer.Option(metavar="0..1", help="How far faces are changed.", rich_help_panel=_WAY)
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="restore, colorize, inpaint or segment; otherwise what the model was trained for.",
            rich_help_panel=_WAY,
        ),
    ] = None,
    inpaint_mask: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="A picture as large as INPUT, white where to fill.", rich_help_panel=_WAY
        ),
    ] = None,
    inpaint_key: Annotated[
        str | None,
        typer.Option(
            metavar="RRGGBB",
            help="Fill what has this colour, within 24 of 255 in each channel.",
            rich_help_panel=_WAY,
        ),
    ] = None,
    upscale: Annotated[
        int | None,
        typer.Option(
            min=1, max=4, metavar="N", help="Enlarge the picture N times, 1 to 4.", rich_help_panel=_OUT
        ),
    ] = None,
    fidelity: Annotated[
        float | None,
        typer.Option(
            "--fidelity-weight",
            "--fidelity_weight",
            metavar="0..1",
            help="How much of the input's features the network sees; below 1 it invents more. "
            "Also --fidelity_weight.",
            rich_help_panel=_WAY,
        ),
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
    debug: Debug = False,
) -> int:
    """Restore the faces in INPUT and write OUTPUT.

    Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 the input ends early, 130/143 stopped.
    """
    src, dst = source or input_path, target or output_path
    if (source and input_path) or (target and output_path):
        raise ConfigError("INPUT or OUTPUT is given twice; write: gpen-stream restore INPUT OUTPUT")
    if src is None or dst is None:
        missing = "INPUT" if src is None else "OUTPUT"
        raise ConfigError(f"{missing} is missing; write: gpen-stream restore INPUT OUTPUT")
    overrides = list(assign or [])
    switches = {
        "model": model,
        "batch_size": batch_size,
        "fidelity": fidelity,
        "strength": strength,
        "task": task,
        "inpaint_mask": inpaint_mask,
        "inpaint_key": inpaint_key,
    }
    # JSON is YAML too; quoted, a colour such as 102030 stays a text.
    overrides += [
        f"restore.{key}={json.dumps(value, ensure_ascii=False)}"
        for key, value in switches.items()
        if value is not None
    ]
    if upscale is not None:
        overrides.append(f"compose.upscale={upscale}")
    for key, regions in (("include", include), ("exclude", exclude)):
        if regions:
            overrides.append(f"select.{key}=[{', '.join(_region(key, text) for text in regions)}]")
    settings = load_config(preset, config, overrides)
    from stream.job.api import Options

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


def _restore(src: Path, dst: Path, config: Config, options: Options, report: Path | None, quiet: bool) -> int:
    from stream.cli.progress import Display
    from stream.job.api import Status, restore_file
    from stream.job.folder import restore_folder

    if report is not None:
        _check_report(report, src, dst)
    stop, caught = threading.Event(), []

    def on_signal(number: int, _frame: object) -> None:
        caught.append(number)
        stop.set()
        if len(caught) > 1:  # asked twice: what is on its way is not waited for
            raise KeyboardInterrupt

    old = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with Display(quiet) as display:
            if src.is_dir():
                outcomes = restore_folder(src, dst, config, options=options, progress=display, stop=stop)
            else:
                outcomes = [restore_file(src, dst, config, options=options, progress=display, stop=stop)]
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    if report is not None:
        _write_report(report, [outcome.report for outcome in outcomes], src.is_dir())
    code = _tell(outcomes, display)
    stopped = any(outcome.status is Status.INTERRUPTED for outcome in outcomes)
    if caught and src.is_dir() and not stopped:  # between two files
        _complain(f"stopped; what was restored so far: {dst}")
    return 128 + caught[0] if caught and (stopped or src.is_dir()) else code


def _tell(outcomes: list[Outcome], display: Display) -> int:
    """Say in a line or more how each file went; the exit code of all."""
    from stream.job.api import Status

    code = 0
    for outcome in outcomes:
        report, path = outcome.report, outcome.path
        for note in outcome.notes:
            display.say(f"note: {note}")
        for failure in outcome.failures:
            _complain(f"error: {failure}")
            code = 1
        if outcome.status is Status.TRUNCATED:
            _complain(f"error: {report['input']}: ends early; restored as far as it goes: {path}")
            code = code or _TRUNCATED
        elif outcome.status is Status.INTERRUPTED:
            _complain(f"stopped; what was restored so far: {path}")
        elif report.get("frames_out"):
            frames, faces = report["frames_out"], report["faces_restored"] + report["faces_carried"]
            alone = report["faces_left_alone"]
            spared = f", {alone} left alone" if alone else ""
            display.say(f"{path}: {frames} frames, {faces} faces{spared}, {report['fps']:.1f} fps")
    return code


def _complain(text: str) -> None:
    print(" ".join(text.split()), file=sys.stderr, flush=True)


def _check_report(report: Path, src: Path, dst: Path) -> None:
    if not report.resolve().parent.is_dir():
        raise ConfigError(f"--report {report}: its folder does not exist; make it first")
    if report.is_dir():
        raise ConfigError(f"--report {report}: is a folder; name a file")
    if report.resolve() in (src.resolve(), dst.resolve()):
        raise ConfigError(f"--report {report}: is INPUT or OUTPUT itself; name another file")


def _write_report(path: Path, reports: list[RunReport], several: bool) -> None:
    text = json.dumps(reports if several else reports[0], indent=2)
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise EncodeError(f"--report {path}: cannot be written ({error.strerror})") from None


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
    from stream.models.engines.listing import listed, render

    facts = listed()
    print(json.dumps(facts.model_dump(), indent=2) if as_json else render(facts), flush=True)


if __name__ == "__main__":
    main()
