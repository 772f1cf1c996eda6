"""`gpen-stream bench`: which comparison, for how long, and where the figures go."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.errors import ConfigError

if TYPE_CHECKING:  # loading them takes seconds, which `--help` does without
    from stream.lab.bench.report import BenchReport

app = typer.Typer(
    help="Measure this machine: each step of the work on and off, as ratios within one run.",
    no_args_is_help=True,
)

Json = Annotated[bool, typer.Option("--json", help="Write JSON, to FILE or standard output.")]
File = Annotated[
    Path | None, typer.Argument(metavar="[FILE]", help="Where --json writes.", show_default=False)
]
Chart = Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw a chart.")]
Rounds = Annotated[int, typer.Option(min=1, help="How often each side runs, in turn; medians are told.")]
Threads = Annotated[int, typer.Option(min=0, help="For each side; 0: the cores at hand.")]
Models = Annotated[
    list[str] | None, typer.Option("--model", help="A known name or a weights file; repeatable.")
]


@app.command()
def recipe(
    file: File = None,
    json: Json = False,
    chart: Chart = None,
    rounds: Rounds = 5,
    threads: Threads = 0,
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

    _tell(run, threads, json, file, chart)


@app.command()
def engines(
    file: File = None,
    json: Json = False,
    chart: Chart = None,
    rounds: Rounds = 15,
    threads: Threads = 0,
    model: Models = None,
    engine: Annotated[list[str] | None, typer.Option(help="Only this engine; repeatable.")] = None,
    precision: Annotated[list[str] | None, typer.Option(help="Only this precision; repeatable.")] = None,
) -> None:
    """Every engine and precision on one crop, against the published network in eager torch."""

    def run(folder: Path, threads: int) -> BenchReport:
        from stream.lab.bench.engine_speed import run

        return run(model or [], engine or [], precision or [], rounds, threads, folder)

    _tell(run, threads, json, file, chart)


@app.command()
def pipeline(
    file: File = None,
    json: Json = False,
    chart: Chart = None,
    rounds: Rounds = 3,
    threads: Threads = 0,
    model: Models = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="Length of the clip.")] = 10.0,
    recipe_frames: Annotated[
        int, typer.Option(min=1, help="Frames for the recipe's baseline, which takes seconds for each.")
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

    _tell(run, threads, json, file, chart)


@app.command()
def detect(
    file: File = None,
    json: Json = False,
    chart: Chart = None,
    rounds: Rounds = 1,
    threads: Threads = 0,
    only: Annotated[
        list[str] | None, typer.Option(metavar="PART", help="recall or tracking; repeatable.")
    ] = None,
    preset: Annotated[list[str] | None, typer.Option(help="For recall; repeatable.")] = None,
    size: Annotated[list[int] | None, typer.Option(min=8, max=600, help="Of faces, px; repeatable.")] = None,
    pictures: Annotated[int, typer.Option(min=1, help="With planted faces, for each size.")] = 10,
    frames: Annotated[int, typer.Option(min=2, help="Face-free frames, in pairs.")] = 200,
    hd: Annotated[bool, typer.Option("--hd", help="Recall on pictures of 1920x1080.")] = False,
    clip: Annotated[
        list[str] | None, typer.Option(help="portrait or group, for tracking; repeatable.")
    ] = None,
    interval: Annotated[int, typer.Option(min=1, max=250, help="Frames between keyframes.")] = 10,
    live: Annotated[bool, typer.Option("--live", help="Track without look-ahead.")] = False,
    phases: Annotated[bool, typer.Option("--phases", help="Errors of each phase of a clip as well.")] = False,
) -> None:
    """Recall by the size of faces, false faces, and tracking against detection on every frame."""

    def run(_folder: Path, threads: int) -> BenchReport:
        from stream.config import PRESETS
        from stream.lab.bench import machine
        from stream.lab.bench.recall import recall
        from stream.lab.bench.report import BenchReport
        from stream.lab.bench.tracking import CLIPS, tracking

        _check("--only", only, ("recall", "tracking"))
        _check("--clip", clip, CLIPS)
        _check("--preset", preset, PRESETS)
        tables = []
        with machine.OtherLoad() as others:
            if not only or "recall" in only:
                tables.append(recall(preset or [], size or [], pictures, frames, hd, threads))
            if not only or "tracking" in only:
                tables.append(tracking(clip or [], interval, live, phases, rounds, threads))
        options = {"pictures": pictures, "frames": frames, "interval": interval, "rounds": rounds}
        return BenchReport("detect", machine.machine(threads), options, others.share, tables)

    _tell(run, threads, json, file, chart)


def _check(option: str, given: list[str] | None, known: tuple[str, ...]) -> None:
    for name in given or ():
        if name not in known:
            raise ConfigError(f"{option} {name}: unknown; choose one of {', '.join(known)}")


def _tell(
    run: Callable[[Path, int], BenchReport], threads: int, json: bool, file: Path | None, chart: Path | None
) -> None:
    """Run in a folder of its own, and hand the report out as asked."""
    if file is not None and not json:
        raise ConfigError(f"{file}: only --json writes a file; write: gpen-stream bench NAME --json {file}")
    for path in (file, chart):
        if path is not None and not path.resolve().parent.is_dir():
            raise ConfigError(f"{path}: its folder does not exist; make it first")
    from stream.lab.bench import report as reports
    from stream.pipeline.cpu_budget import available_cores

    with tempfile.TemporaryDirectory(prefix="gpen-stream-bench-") as folder:
        report = run(Path(folder), threads or available_cores())
    if file is not None:
        file.write_text(report.to_json() + "\n", encoding="utf-8")
    elif json:
        print(report.to_json(), flush=True)
    if not json or file is not None:
        reports.show(report)
    if chart is not None:
        reports.draw(report, chart)
