"""`gpen-stream evaluate`: whether a model is worth its weights."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.options import DebugAlone, gathers_options
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


@dataclass(frozen=True, slots=True)
class EvaluateFaces:
    """The faces, and their damage."""

    split: Annotated[str, typer.Option(help="choose or report, one half of the people each; or all.")] = "all"
    levels: Annotated[
        str | None, typer.Option(metavar="LEVEL,...", help="Of near-clean, mild, medium and heavy; or all.")
    ] = None
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Largest number of faces.")] = None
    seed: Annotated[int, typer.Option(min=0, metavar="S", help="Of damage and bootstrap.")] = 0


@dataclass(frozen=True, slots=True)
class EvaluateMethod:
    """The models that the model is compared with, and the form of the comparison."""

    against: Annotated[
        str | None, typer.Option(metavar="NAME|PATH", help="Another model, to compare with.")
    ] = None
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="How it ships, e.g. restore.strength=0.7."),
    ] = None
    identity: Annotated[
        bool | None,
        typer.Option(help="Identity distance; by default where that extra is installed.", show_default=False),
    ] = None
    threads: Annotated[int, typer.Option(min=0, metavar="N", help="0: the cores at hand.")] = 0


@app.command()
@gathers_options
def evaluate(
    model: Annotated[str, typer.Option(metavar="NAME|PATH", help="Which model; see `models list`.")],
    faces: Annotated[
        Path, typer.Option(metavar="DIR", help="Clean, aligned faces of 256 px, or 288 with a margin (FFHQ).")
    ],
    chosen: EvaluateFaces,
    method: EvaluateMethod,
    json: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write all figures.")] = None,
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
    levels = _levels(chosen.levels)
    settings = load_config("default", None, method.assign or []).restore
    threads = method.threads or available_cores()
    portraits = read_portraits(faces, chosen.split, chosen.limit)
    names = [model] if method.against is None else [model, method.against]
    models = [Contender(name, settings, threads) for name in names]
    try:
        report = _judged(models, portraits, levels, chosen, method, quiet)
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
    levels: list[str],
    chosen: EvaluateFaces,
    method: EvaluateMethod,
    quiet: bool,
) -> EvaluationReport:
    """The report on the first model, beside the peers and, where there is one, the other model."""
    from stream.lab.bench.machine import bundled_weights_sha256, measured_commit
    from stream.lab.quality.classical_filters import non_local_means, unsharp
    from stream.lab.quality.evaluation import INPUT, evaluate
    from stream.lab.quality.face_meters import IdentityMeter, identity_present
    from stream.pipeline.cpu_budget import available_cores

    threads = method.threads or available_cores()
    identity = identity_present() if method.identity is None else method.identity
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
    progress = _Progress(quiet)
    found = evaluate(
        contenders, portraits, levels, seed=chosen.seed, identity=identity, threads=threads, progress=progress
    )
    return {
        "split": chosen.split,
        "model": bare,
        "models": [bare, shipped],
        "sha256": ours.info.sha256,
        "commit": measured_commit(),
        "weights_sha256": bundled_weights_sha256(),
        "settings": _shipped_as(ours),
        "against": {each.info.name: each.info.sha256 for each in others},
        **found.as_dict(pairs),
    }


class _Progress:
    """A line on stderr now and then."""

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._told_s = quiet, time.monotonic()

    def __call__(self, level: str, done: int, total: int) -> None:
        if not self._quiet and time.monotonic() - self._told_s >= _SAY_EVERY_S:
            self._told_s = time.monotonic()
            print(f"{level}: {done} of {total} faces", file=sys.stderr, flush=True)


def _shipped_as(model: Contender) -> dict[str, float]:
    return {"strength": model.settings.strength, "skip_sharp": model.settings.skip_sharp}
