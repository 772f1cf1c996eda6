"""`gpen-stream train`: a restorer of your own."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from stream.config import load_settings

app = typer.Typer()


@app.command()
def train(
    faces: Annotated[
        Path, typer.Argument(metavar="FACES", help="Folder of aligned faces, see gpen-stream align.")
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder for checkpoint, weights, log, plot and sheet.")
    ],
    start: Annotated[
        str, typer.Option("--from", metavar="MODEL", help="Weights to start from: a model's name or file.")
    ] = "gpen-lite-256",
    samples: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Other aligned faces, for the sheet of pictures.")
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="YAML of training settings.")] = None,
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One setting, such as loss.adversarial=0.02."),
    ] = None,
    settings: Annotated[bool, typer.Option("--settings", help="Print the settings and stop.")] = False,
) -> None:
    """Train a restorer on aligned faces, or go on where OUT's checkpoint ends.

    Faces are damaged on the fly as video damages them. Ctrl-C or SIGTERM keeps a checkpoint and ends;
    the same command goes on with the numbers that an uninterrupted run would have had. With several
    GPUs or machines: torchrun --no-python --nproc-per-node N gpen-stream train FACES OUT ...
    """
    from stream.train.settings import TrainSettings

    chosen = load_settings(TrainSettings, {}, config, assign or ())
    if settings:
        print(chosen.model_dump_json(indent=2))
        return
    from stream import zoo
    from stream.train.loop import train as run

    asked = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.append(True))
    weights = zoo.resolve(start)
    run(faces, out, Path(weights), chosen, samples=samples, on_log=_show, stop=lambda: bool(asked))


def _show(line: dict[str, float]) -> None:
    figures = "  ".join(f"{name} {value:.4g}" for name, value in line.items() if name not in ("images", "s"))
    print(f"{line['images']:>8} images  {line['s']:>7.0f} s  {figures}", file=sys.stderr, flush=True)
