"""`gpen-stream align` and `gpen-stream train`: train a restorer on faces of your own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from stream.cli.options import DebugAlone, tell
from stream.config import load_settings
from stream.pipeline.end_signals import handle_end_signals

app = typer.Typer()


@app.command()
def align(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="Folder of photos or videos, or one of either.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the faces; made if missing.")],
    size: Annotated[
        int, typer.Option(min=256, max=2048, help="Side of the face, px; an eighth is added as margin.")
    ] = 256,
    min_scale: Annotated[
        float,
        typer.Option(min=0.1, max=16, metavar="N", help="Px of the photo for a px of the face, at least."),
    ] = 0.9,
    min_sharpness: Annotated[
        float, typer.Option(min=0, max=1, metavar="0..1", help="0 keeps blurred faces too.")
    ] = 0.75,
    every: Annotated[
        float, typer.Option(min=0, max=3600, metavar="SECONDS", help="From one frame of a video to the next.")
    ] = 1.0,
    kind: Annotated[str, typer.Option("--format", help="jpeg (quality 95) or png.")] = "jpeg",
    debug: DebugAlone = False,
) -> int:
    """Cut the faces out of photos and videos, aligned to the FFHQ template, ready for train.

    Faces that are small, blurred, turned away or cut off by the picture's edge are counted and left out.
    The same command continues where it was stopped. Exit codes: 0 done, 1 some files could not be read.
    """
    from stream.lab.train.align import AlignSettings
    from stream.lab.train.align import align as run

    settings = AlignSettings(size, min_scale, min_sharpness, every, kind)
    counts = run(source, out, settings, lambda path: print(path, file=sys.stderr, flush=True))
    for problem in counts.problems:
        print(f"error: {problem}", file=sys.stderr, flush=True)
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.left_out.most_common()) or "none"
    done = f", {counts.skipped} done before" if counts.skipped else ""
    print(f"{out}: {counts.kept} faces of {counts.files} files{done}; left out: {reasons}")
    if counts.empty:
        print(f"{counts.empty} pictures show no face")
    return 1 if counts.problems else 0


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
        typer.Option("--set", metavar="KEY=VALUE", help="One setting, such as loss.adversarial=0.3."),
    ] = None,
    settings: Annotated[bool, typer.Option("--settings", help="Print the settings and stop.")] = False,
    debug: DebugAlone = False,
) -> None:
    """Train a restorer on aligned faces, or continue from OUT's checkpoint.

    Faces are damaged on the fly as video damages them. Ctrl-C, SIGTERM or a closed terminal saves a
    checkpoint and ends; the same command then continues exactly as an uninterrupted run would have.
    With several GPUs or machines: torchrun --no-python --nproc-per-node N gpen-stream train FACES OUT ...
    """
    from stream.lab.train.settings import TrainSettings

    chosen = load_settings(TrainSettings, {}, config, assign or ())
    if settings:
        print(chosen.model_dump_json(indent=2))
        return
    from stream.lab.train.loop import train as run
    from stream.models import registry

    asked = []
    with handle_end_signals(lambda *_: asked.append(True)):
        weights = registry.resolve(start)
        run(faces, out, Path(weights), chosen, samples=samples, on_log=_show, stop=lambda: bool(asked))


def _show(line: dict[str, float]) -> None:
    figures = "  ".join(f"{name} {value:.4g}" for name, value in line.items() if name not in ("images", "s"))
    tell(f"{line['images']:>8} images  {line['s']:>7.0f} s  {figures}")
