"""`gpen-stream plan` and `gpen-stream status`: what a long video's plan is, and how far it is restored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.options import Debug, DebugAlone, gathers_options
from stream.cli.restore_options import (
    RestoreMethod,
    RestoreOutput,
    RestorePart,
    RestorePaths,
    RestorePlan,
    options_of,
    settings_of,
)

if TYPE_CHECKING:  # loading it takes a second, which `--help` does without
    from stream.job.outlook import Outlook

app = typer.Typer()


@app.command()
@gathers_options
def plan(
    files: RestorePaths,
    part: RestorePart,
    method: RestoreMethod,
    output: RestoreOutput,
    segments: RestorePlan,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Show the segments in which `restore` would work with the same options, and the time it would take.

    A few seconds from the middle of INPUT are restored to measure the speed. Nothing is written.
    """
    from stream.job.outlook import foresee

    source, target = files.paths("plan")
    outlook = foresee(source, target, settings_of(part, method, output), options_of(part, output, segments))
    print(json.dumps(outlook.model_dump(), indent=2) if as_json else _shown(outlook), flush=True)


@app.command()
def status(
    target: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The output of a run of `restore`.")],
    partial: Annotated[
        bool,
        typer.Option("--partial", help="Join what is finished as NAME.partial.EXT, which can be played."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: DebugAlone = False,
) -> None:
    """Show how far the run that writes OUTPUT is, or was when it ended."""
    from stream.job.outlook import job_status, join_finished

    found = job_status(target)
    if as_json:
        print(json.dumps(found.model_dump(), indent=2), flush=True)
    else:
        print(found.line(), flush=True)
    if partial:
        print(f"{join_finished(target)}: can be played", flush=True)


def _shown(outlook: Outlook) -> str:
    """A row for each segment, and a line with the sums."""
    rows = [f"{'segment':>7} {'from':>10} {'to':>10} {'frames':>7} {'extra':>6}  begins"]
    for row in outlook.segments:
        begins = "at a cut" if row.begins_at_cut else "in a scene"
        begins = "at the beginning" if row.index == 0 else begins
        rows.append(
            f"{row.index:>7} {clock(row.start_s):>10} {clock(row.end_s):>10} {row.frames:>7} "
            f"{row.extra_frames:>6}  {begins}{', done' if row.done else ''}"
        )
    share = 100 * outlook.extra_frames / outlook.frames if outlook.frames else 0.0
    rows.append(
        f"{outlook.frames} frames in {len(outlook.segments)} segments; "
        f"{outlook.extra_frames} more ({share:.1f} %) for warm-up and look-ahead"
    )
    if outlook.fps:
        rows.append(f"about {clock(outlook.seconds)} at {outlook.fps:.1f} fps on this machine")
    return "\n".join(rows)


def clock(seconds: float) -> str:
    """Seconds as H:MM:SS."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
