"""Make the README's picture, docs/images/before-after.png, from samples/portrait.mp4.

    python docs/before_after.py

The picture shows one face of the sample before and after `restore` with the default settings in FP32. Its
metadata name the commit and the weights; tests/test_docs.py compares the weights with those that ship.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from stream import Options, load_config, restore_file
from stream.lab.bench.machine import bundled_weights_sha256, measured_commit
from stream.media.decode import FileSource
from stream.media.probe import probe

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "samples" / "portrait.mp4"
PICTURE = ROOT / "docs" / "images" / "before-after.png"
FRAME, LEFT, TOP, WIDTH, HEIGHT = 40, 186, 24, 264, 264
"""The frame, and the part of it, px."""
SCALE, GAP = 1.6, 6


def part(path: Path, text: str) -> Image.Image:
    """The chosen part of the chosen frame, enlarged, with a label."""
    frame = next(frame for frame in FileSource(probe(path)).frames() if frame.index == FRAME)
    rgb = frame.picture.to_ndarray(format="rgb24")[TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH]
    picture = Image.fromarray(np.ascontiguousarray(rgb))
    picture = picture.resize((round(WIDTH * SCALE), round(HEIGHT * SCALE)), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    draw.text((10, 8), text, "white", ImageFont.load_default(18), stroke_width=2, stroke_fill="black")
    return picture


def main() -> None:
    """Restore the sample's beginning and write the picture."""
    with tempfile.TemporaryDirectory() as name:
        restored = Path(name) / "restored.mp4"
        config = load_config(overrides=["restore.precision=fp32"])
        restore_file(SAMPLE, restored, config, options=Options(duration_s=2.0))
        before, after = part(SAMPLE, "before"), part(restored, "after")
    both = Image.new("RGB", (before.width + GAP + after.width, before.height), "white")
    both.paste(before, (0, 0))
    both.paste(after, (before.width + GAP, 0))
    facts = PngInfo()
    facts.add_text("commit", measured_commit() or "")
    facts.add_text("weights_sha256", bundled_weights_sha256())
    both.save(PICTURE, pnginfo=facts, optimize=True)


if __name__ == "__main__":
    main()
