"""`gpen-stream restore`: arguments -> settings -> a file or a folder -> an exit code."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.options import Debug, complain, gathers_options
from stream.config import PRESETS, Config, load_config
from stream.errors import ConfigError, EncodeError
from stream.pipeline.end_signals import HANG_UP, handle_end_signals

if TYPE_CHECKING:  # loading them takes a second, which `--help` does without
    from stream.cli.progress import Display
    from stream.job.interface import Options, Outcome, RunReport

app = typer.Typer()
_PART, _HOW, _OUT = "What to restore", "How", "Output"
_TRUNCATED = 3
"""Exit code where the input ends early."""
_USAGE = "write: gpen-stream restore INPUT OUTPUT"


@dataclass(frozen=True, slots=True)
class RestorePaths:
    """INPUT and OUTPUT, by their place or by name."""

    source: Annotated[
        Path | None, typer.Argument(metavar="INPUT", help="A video, a picture, or a folder of either.")
    ] = None
    target: Annotated[
        Path | None, typer.Argument(metavar="OUTPUT", help="The file to write; a folder if INPUT is one.")
    ] = None
    input_path: Annotated[Path | None, typer.Option("--input", "--input_dir", help="Same as INPUT.")] = None
    output_path: Annotated[Path | None, typer.Option("--output", "--output_dir", help="Same as OUTPUT.")] = (
        None
    )

    def paths(self) -> tuple[Path, Path]:
        """INPUT and OUTPUT; ConfigError where one is missing or given twice."""
        if (self.source and self.input_path) or (self.target and self.output_path):
            raise ConfigError(f"INPUT or OUTPUT is given twice; {_USAGE}")
        source, target = self.source or self.input_path, self.target or self.output_path
        if source is None or target is None:
            raise ConfigError(f"{'INPUT' if source is None else 'OUTPUT'} is missing; {_USAGE}")
        return source, target


@dataclass(frozen=True, slots=True)
class RestorePart:
    """Which frames, and which faces in them."""

    aligned: Annotated[
        bool, typer.Option("--aligned", help="INPUT already is aligned face crops.", rich_help_panel=_PART)
    ] = False
    start: Annotated[
        float | None, typer.Option(min=0, help="Begin here, seconds.", rich_help_panel=_PART)
    ] = None
    duration: Annotated[
        float | None, typer.Option(min=0.001, help="Stop after so many seconds.", rich_help_panel=_PART)
    ] = None
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y,W,H", help="Only faces in this region (fractions 0..1).", rich_help_panel=_PART
        ),
    ] = None
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="X,Y,W,H", help="Leave faces in this region alone.", rich_help_panel=_PART),
    ] = None

    def overrides(self) -> list[str]:
        """The regions as settings."""
        found = []
        for key, regions in (("include", self.include), ("exclude", self.exclude)):
            if regions:
                found.append(f"select.{key}=[{', '.join(_region(key, text) for text in regions)}]")
        return found


@dataclass(frozen=True, slots=True)
class RestoreMethod:
    """How faces are restored."""

    preset: Annotated[str, typer.Option(help=", ".join(PRESETS) + ".", rich_help_panel=_HOW)] = "default"
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML settings over the preset.", rich_help_panel=_HOW)
    ] = None
    assign: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="One setting, e.g. restore.strength=0.7.", rich_help_panel=_HOW
        ),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH", help="Which model restores; see `models list`.", rich_help_panel=_HOW
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size", "--batch_size", metavar="N", help="Crops in one call.", rich_help_panel=_HOW
        ),
    ] = None
    strength: Annotated[
        float | None, typer.Option(metavar="0..1", help="How far faces are changed.", rich_help_panel=_HOW)
    ] = None
    task: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="restore, colorize, inpaint or segment; otherwise what the model was trained for.",
            rich_help_panel=_HOW,
        ),
    ] = None
    inpaint_mask: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="A picture as large as INPUT, white where to fill.", rich_help_panel=_HOW
        ),
    ] = None
    inpaint_key: Annotated[
        str | None,
        typer.Option(
            metavar="RRGGBB",
            help="Fill what has this colour, within 24 of 255 in each channel.",
            rich_help_panel=_HOW,
        ),
    ] = None
    fidelity: Annotated[
        float | None,
        typer.Option(
            "--fidelity-weight",
            "--fidelity_weight",
            metavar="0..1",
            help="How much of the input's features the network sees; below 1 it invents more. "
            "Also --fidelity_weight.",
            rich_help_panel=_HOW,
        ),
    ] = None

    def overrides(self) -> list[str]:
        """The options as settings, after those of `--set`."""
        names = ("model", "batch_size", "fidelity", "strength", "task", "inpaint_mask", "inpaint_key")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        # JSON is YAML too; quoted, a colour such as 102030 stays a text.
        texts = [f"restore.{key}={json.dumps(value, ensure_ascii=False)}" for key, value in given.items()]
        return [*(self.assign or []), *texts]


@dataclass(frozen=True, slots=True)
class RestoreOutput:
    """What is written, and what is told."""

    upscale: Annotated[
        int | None,
        typer.Option(
            min=1, max=4, metavar="N", help="Enlarge the picture N times, 1 to 4.", rich_help_panel=_OUT
        ),
    ] = None
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUTPUT if it exists.", rich_help_panel=_OUT)
    ] = False
    allow_loss: Annotated[
        bool,
        typer.Option("--allow-loss", help="Drop streams that OUTPUT cannot hold.", rich_help_panel=_OUT),
    ] = False
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Write counts and timings.", rich_help_panel=_OUT)
    ] = None
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors only.", rich_help_panel=_OUT)] = False


@app.command()
@gathers_options
def restore(
    files: RestorePaths,
    part: RestorePart,
    method: RestoreMethod,
    output: RestoreOutput,
    debug: Debug = False,
) -> int:
    """Restore the faces in INPUT and write OUTPUT.

    Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 the input ends early, 128 + N stopped by
    signal N.
    """
    source, target = files.paths()
    overrides = method.overrides()
    if output.upscale is not None:
        overrides.append(f"compose.upscale={output.upscale}")
    settings = load_config(method.preset, method.config, [*overrides, *part.overrides()])
    from stream.job.interface import Options

    options = Options(part.aligned, part.start, part.duration, output.overwrite, output.allow_loss)
    if output.report is not None:
        _check_report(output.report, source, target)
    return _restore(source, target, settings, options, output)


def _region(key: str, text: str) -> str:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not all(0 <= n <= 1 for n in numbers):
        raise ConfigError(f"--{key} {text}: write X,Y,WIDTH,HEIGHT as fractions, such as 0.5,0,0.5,1")
    return str(numbers)


def _restore(source: Path, target: Path, config: Config, options: Options, output: RestoreOutput) -> int:
    from stream.cli.progress import Display
    from stream.job.api import restore_file
    from stream.job.folder import restore_folder
    from stream.job.interface import Status

    is_folder = source.is_dir()
    with _stopped_by_signals() as (stop, caught), Display(output.quiet) as display:
        if is_folder:
            outcomes = restore_folder(source, target, config, options=options, progress=display, stop=stop)
        else:
            outcomes = [restore_file(source, target, config, options=options, progress=display, stop=stop)]
    if output.report is not None:
        _write_report(output.report, [outcome.report for outcome in outcomes], is_folder)
    code = _tell(outcomes, display)
    stopped = any(outcome.status is Status.INTERRUPTED for outcome in outcomes)
    if caught and is_folder and not stopped:  # between two files
        complain(f"stopped; what was restored so far: {target}")
    return 128 + caught[0] if caught and (stopped or is_folder) else code


@contextmanager
def _stopped_by_signals() -> Iterator[tuple[threading.Event, list[int]]]:
    """An event that signals set, and the numbers of the signals that came.

    The second signal raises KeyboardInterrupt: what is on its way is not waited for. A hang-up never does,
    because the system and the shell both send one when a terminal closes.
    """
    stop, caught = threading.Event(), list[int]()

    def on_signal(number: int, _frame: object) -> None:
        caught.append(number)
        stop.set()
        if len(caught) > 1 and number != HANG_UP:
            raise KeyboardInterrupt

    with handle_end_signals(on_signal):
        yield stop, caught


def _tell(outcomes: list[Outcome], display: Display) -> int:
    """Say in a line or more how each file went; the exit code of all."""
    from stream.job.interface import Status

    code = 0
    for outcome in outcomes:
        report, path = outcome.report, outcome.path
        for note in outcome.notes:
            display.say(f"note: {note}")
        for failure in outcome.failures:
            complain(f"error: {failure}")
            code = 1
        if outcome.status is Status.TRUNCATED:
            complain(f"error: {report['input']}: ends early; restored as far as it goes: {path}")
            code = code or _TRUNCATED
        elif outcome.status is Status.INTERRUPTED:
            complain(f"stopped; what was restored so far: {path}")
        elif report.get("frames_out"):
            frames, faces = report["frames_out"], report["faces_restored"] + report["faces_carried"]
            alone = report["faces_left_alone"]
            spared = f", {alone} left alone" if alone else ""
            display.say(f"{path}: {frames} frames, {faces} faces{spared}, {report['fps']:.1f} fps")
    return code


def _check_report(report: Path, source: Path, target: Path) -> None:
    if not report.resolve().parent.is_dir():
        raise ConfigError(f"--report {report}: its folder does not exist; make it first")
    if report.is_dir():
        raise ConfigError(f"--report {report}: is a folder; name a file")
    if report.resolve() in (source.resolve(), target.resolve()):
        raise ConfigError(f"--report {report}: is INPUT or OUTPUT itself; name another file")


def _write_report(path: Path, reports: list[RunReport], several: bool) -> None:
    text = json.dumps(reports if several else reports[0], indent=2)
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise EncodeError(f"--report {path}: cannot be written ({error.strerror})") from None
