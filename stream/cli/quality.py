"""`gpen-stream evaluate`: is a model worth its weights?"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.tracebacks import DebugAlone
from stream.errors import ConfigError

if TYPE_CHECKING:  # loading it takes seconds, which `--help` does without
    from stream.lab.quality.contender import Contender
    from stream.lab.quality.evaluation_report import EvaluationReport
    from stream.lab.quality.portraits import Portrait

app = typer.Typer()
UNSHARP, NLM = "unsharp mask", "non-local means"
"""Names of the peers' rows."""
_PLAIN_WIDTH = 160
_SAY_EVERY_S = 10.0


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(metavar="NAME|PATH", help="Which model; see `models list`.")],
    faces: Annotated[
        Path, typer.Option(metavar="DIR", help="Clean, aligned faces of 256 px, or 288 with a margin (FFHQ).")
    ],
    split: Annotated[
        str, typer.Option(help="choose or report, one half of the people each; or all.")
    ] = "all",
    levels: Annotated[
        str | None, typer.Option(metavar="LEVEL,...", help="Of near-clean, mild, medium and heavy; or all.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only so many faces.")] = None,
    against: Annotated[
        str | None, typer.Option(metavar="NAME|PATH", help="Another model, to compare with.")
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write all figures.")] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="S", help="Of damage and bootstrap.")] = 0,
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="How it ships, e.g. restore.strength=0.7."),
    ] = None,
    identity: Annotated[
        bool | None,
        typer.Option(help="Identity distance; by default where that extra is installed.", show_default=False),
    ] = None,
    threads: Annotated[int, typer.Option(min=0, metavar="N", help="0: the cores at hand.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print no progress.")] = False,
    debug: DebugAlone = False,
) -> None:
    """Judge a model on clean faces, damaged at four levels: against the input and two plain peers.

    docs/quality.md says what each figure means.
    """
    from rich.console import Console

    from stream.config import load_config
    from stream.lab.quality import tables
    from stream.lab.quality.contender import Contender
    from stream.lab.quality.portraits import read_portraits
    from stream.pipeline.cpu_budget import available_cores

    if json is not None and not json.resolve().parent.is_dir():
        raise ConfigError(f"--json {json}: its folder does not exist; make it first")
    wanted = _levels(levels)
    settings = load_config("default", None, assign or []).restore
    threads = threads or available_cores()
    portraits = read_portraits(faces, split, limit)
    models = [Contender(each, settings, threads) for each in (model, against) if each is not None]
    try:
        report = _judged(models, portraits, split, wanted, seed, identity, threads, quiet)
    finally:
        for each in models:
            each.close()
    if json is not None:
        tables.save(report, json)
    console = Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH)
    for table in tables.rich_tables(report):
        console.print(table)
    console.print(tables.LEGEND, soft_wrap=True)


def _levels(text: str | None) -> list[str]:
    from stream.lab.damage import LEVELS

    named = [each.strip() for each in text.split(",")] if text else LEVELS
    for each in named:
        if each not in LEVELS:
            raise ConfigError(f"--levels {each}: unknown; use some of {','.join(LEVELS)}")
    return [level for level in LEVELS if level in named]


def _judged(
    models: list[Contender],
    portraits: list[Portrait],
    split: str,
    levels: list[str],
    seed: int,
    identity: bool | None,
    threads: int,
    quiet: bool,
) -> EvaluationReport:
    """The report on the first model, beside the peers and, where there is one, the other model."""
    from stream.lab.bench.machine import bundled_weights_sha256, measured_commit
    from stream.lab.quality.evaluation import INPUT, evaluate
    from stream.lab.quality.face_meters import IdentityMeter, identity_present
    from stream.lab.quality.peers import non_local_means, unsharp

    identity = identity_present() if identity is None else identity
    if identity:
        IdentityMeter()  # where it is not installed, that is said at once
    ours, *others = models
    bare, shipped = ours.info.name, f"{ours.info.name}, as shipped"
    contenders = {UNSHARP: unsharp, NLM: non_local_means, bare: ours.bare, shipped: ours.shipped}
    rivals = [UNSHARP, NLM]
    for other in others:
        # Two states of one model may bear one name.
        name = other.info.name if other.info.name != bare else f"{bare} ({other.info.sha256[:8]})"
        contenders[name] = other.bare
        rivals.append(name)
    pairs = [(row, INPUT) for row in contenders]
    pairs += [(bare, rival) for rival in rivals]

    said = time.monotonic()

    def progress(level: str, done: int, total: int) -> None:
        nonlocal said
        if not quiet and time.monotonic() - said >= _SAY_EVERY_S:
            said = time.monotonic()
            print(f"{level}: {done} of {total} faces", file=sys.stderr, flush=True)

    found = evaluate(
        contenders, portraits, levels, seed=seed, identity=identity, threads=threads, progress=progress
    )
    return {
        "split": split,
        "model": bare,
        "models": [bare, shipped],
        "sha256": ours.info.sha256,
        "commit": measured_commit(),
        "weights_sha256": bundled_weights_sha256(),
        "settings": _shipped_as(ours),
        "against": {each.info.name: each.info.sha256 for each in others},
        **found.as_dict(pairs),
    }


def _shipped_as(model: Contender) -> dict[str, float]:
    return {"strength": model.settings.strength, "skip_sharp": model.settings.skip_sharp}
