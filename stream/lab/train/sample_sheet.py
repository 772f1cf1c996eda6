"""Pictures of a run: a contact sheet of faces at each level of damage, and a plot of the losses."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from stream.lab.damage import LEVELS, damage
from stream.lab.train.training_pairs import face_files, inner, read_face

_FACES = 5
"""Columns of the sheet."""


def draw(weights: Path, folder: Path, path: Path) -> None:
    """Write a PNG with three rows for each level: damaged, restored, clean. The faces are always the same."""
    import torch

    from stream.models.nets.loader import load_generator

    net, _ = load_generator(weights)
    files = face_files(folder)
    chosen = [files[i * len(files) // _FACES] for i in range(min(_FACES, len(files)))]
    clean = [inner(read_face(file, net.size)) for file in chosen]
    rows = []
    for number, level in enumerate(LEVELS):
        damaged = [damage(face, level, np.random.default_rng([7, number, i])) for i, face in enumerate(clean)]
        x = torch.from_numpy(np.stack(damaged)).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.inference_mode():
            restored = ((net(x) + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
        rows += [np.hstack(damaged), np.hstack(list(restored)), np.hstack(clean)]
    cv2.imwrite(str(path), np.vstack(rows)[..., ::-1])


def plot_losses(log: Path, path: Path) -> None:
    """Plot every figure of the log over the number of images seen, on a logarithmic scale if possible."""
    if not log.exists():
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    names = sorted({name for line in lines for name in line} - {"images", "s"})
    figure = Figure(figsize=(12, 2.4 * ((len(names) + 2) // 3)), layout="constrained")
    FigureCanvasAgg(figure)
    for i, name in enumerate(names):
        axes = figure.add_subplot((len(names) + 2) // 3, 3, i + 1)
        points = [(line["images"], line[name]) for line in lines if name in line]
        axes.plot(*zip(*points, strict=True), linewidth=0.8)
        axes.set_title(name, fontsize=9)
        axes.set_yscale("log" if all(value > 0 for _, value in points) else "linear")
        axes.tick_params(labelsize=7)
    figure.savefig(path, dpi=90)
