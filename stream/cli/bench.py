"""`gpen-stream bench`: measure the product on this machine against baselines."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.options import gathers_options
from stream.errors import ConfigError

if TYPE_CHECKING:  # loading them takes seconds, which `--help` does without
    from stream.lab.bench.report import BenchReport

app = typer.Typer(
    help="Measure this machine: each step of the work on and off, as ratios within one run.",
    no_args_is_help=True,
)

Rounds = Annotated[int, typer.Option(min=1, help="How often each side runs, in turn; medians are told.")]
Models = Annotated[
    list[str] | None, typer.Option("--model", help="A known name or a weights file; repeatable.")
]


@dataclass(frozen=True, slots=True)
class BenchOutput:
    """Outputs of the figures, and the cores that are measured."""

    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Where --json writes.", show_default=False)
    ] = None
    json: Annotated[bool, typer.Option("--json", help="Write JSON, to FILE or standard output.")] = False
    chart: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw a chart.")] = None
    threads: Annotated[int, typer.Option(min=0, help="For each side; 0: the cores at hand.")] = 0


@dataclass(frozen=True, slots=True)
class RecallOptions:
    """The pictures in which faces are searched."""

    preset: Annotated[list[str] | None, typer.Option(help="For recall; repeatable.")] = None
    size: Annotated[list[int] | None, typer.Option(min=8, max=600, help="Of faces, px; repeatable.")] = None
    pictures: Annotated[int, typer.Option(min=1, help="With planted faces, for each size.")] = 10
    frames: Annotated[int, typer.Option(min=2, help="Face-free frames, in pairs.")] = 200
    hd: Annotated[bool, typer.Option("--hd", help="Recall on pictures of 1920x1080.")] = False


@dataclass(frozen=True, slots=True)
class TrackingOptions:
    """How faces are tracked."""

    clip: Annotated[list[str] | None, typer.Option(help="portrait or group, for tracking; repeatable.")] = (
        None
    )
    interval: Annotated[int, typer.Option(min=1, max=250, help="Frames between keyframes.")] = 10
    live: Annotated[bool, typer.Option("--live", help="Track without look-ahead.")] = False
    phases: Annotated[bool, typer.Option("--phases", help="Errors of each phase of a clip as well.")] = False


@app.command()
@gathers_options
def recipe(
    output: BenchOutput,
    rounds: Rounds = 5,
    model: Annotated[str, typer.Option(help="A known name or a weights file.")] = "gpen-lite-256",
    portraits: Annotated[int, typer.Option(min=1, max=6, help="Each in three kinds of damage.")] = 2,
    height: Annotated[int, typer.Option(min=96, max=2160, help="Of the pictures (4:3), px.")] = 480,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="ROW", help="Rows that begin so, and the baseline; repeatable."),
    ] = None,
) -> None:
    """The acceleration recipe, row by row: each on top of the last, and each alone."""

    def run(folder: Path, threads: int) -> BenchReport:
        from stream.lab.bench.recipe_rows import run

        return run(model, portraits, height, only or [], rounds, threads, folder)

    _tell(run, output)


@app.command()
@gathers_options
def engines(
    output: BenchOutput,
    rounds: Rounds = 15,
    model: Models = None,
    engine: Annotated[list[str] | None, typer.Option(help="Only this engine; repeatable.")] = None,
    precision: Annotated[list[str] | None, typer.Option(help="Only this precision; repeatable.")] = None,
) -> None:
    """Every engine and precision on one crop, against the published network in eager torch."""

    def run(folder: Path, threads: int) -> BenchReport:
        from stream.lab.bench.engine_speed import run

        return run(model or [], engine or [], precision or [], rounds, threads, folder)

    _tell(run, output)


@app.command()
@gathers_options
def pipeline(
    output: BenchOutput,
    rounds: Rounds = 3,
    model: Models = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="Length of the clip.")] = 10.0,
    recipe_frames: Annotated[
        int, typer.Option(min=1, help="Frames for the recipe's baseline, which needs seconds for each.")
    ] = 12,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="PART", help="speed, stages, overlap, memory or start; repeatable."),
    ] = None,
) -> None:
    """Whole videos against two baselines; face-free frames, overlap, memory, the first frame."""

    def run(folder: Path, threads: int) -> BenchReport:
        from stream.lab.bench.against_scripts import PARTS, run

        _check("--only", only, PARTS)
        return run(model or [], only or [], seconds, recipe_frames, rounds, threads, folder)

    _tell(run, output)


@app.command()
@gathers_options
def detect(
    output: BenchOutput,
    pictures: RecallOptions,
    tracks: TrackingOptions,
    rounds: Rounds = 1,
    only: Annotated[
        list[str] | None, typer.Option(metavar="PART", help="recall or tracking; repeatable.")
    ] = None,
) -> None:
    """Recall by the size of faces, false faces, and tracking against detection on every frame."""

    def run(_folder: Path, threads: int) -> BenchReport:
        from stream.config import PRESETS
        from stream.lab.bench import machine
        from stream.lab.bench.recall import recall
        from stream.lab.bench.report import BenchReport
        from stream.lab.bench.tracking import CLIPS, tracking

        _check("--only", only, ("recall", "tracking"))
        _check("--clip", tracks.clip, CLIPS)
        _check("--preset", pictures.preset, PRESETS)
        tables = []
        with machine.OtherLoad() as others:
            if not only or "recall" in only:
                sizes, count = pictures.size or [], pictures.pictures
                presets, frames = pictures.preset or [], pictures.frames
                tables.append(recall(presets, sizes, count, frames, pictures.hd, threads))
            if not only or "tracking" in only:
                clips, interval = tracks.clip or [], tracks.interval
                tables.append(tracking(clips, interval, tracks.live, tracks.phases, rounds, threads))
        options = {
            "pictures": pictures.pictures,
            "frames": pictures.frames,
            "interval": tracks.interval,
            "rounds": rounds,
        }
        return BenchReport("detect", machine.machine(threads), options, others.share, tables)

    _tell(run, output)


def _check(option: str, given: list[str] | None, known: tuple[str, ...]) -> None:
    for name in given or ():
        if name not in known:
            raise ConfigError(f"{option} {name}: unknown; choose one of {', '.join(known)}")


def _tell(run: Callable[[Path, int], BenchReport], output: BenchOutput) -> None:
    """Run in a temporary folder, and print or write the report."""
    file, chart = output.file, output.chart
    if file is not None and not output.json:
        raise ConfigError(f"{file}: only --json writes a file; write: gpen-stream bench NAME --json {file}")
    for path in (file, chart):
        if path is not None and not path.resolve().parent.is_dir():
            raise ConfigError(f"{path}: its folder does not exist; make it first")
    from stream.lab.bench import report as reports
    from stream.pipeline.cpu_budget import available_cores

    with tempfile.TemporaryDirectory(prefix="gpen-stream-bench-") as folder:
        report = run(Path(folder), output.threads or available_cores())
    if file is not None:
        file.write_text(report.to_json() + "\n", encoding="utf-8")
    elif output.json:
        print(report.to_json(), flush=True)
    if not output.json or file is not None:
        reports.show(report)
    if chart is not None:
        reports.draw(report, chart)
