"""The contact sheet: a few frames as one picture.

Its rows show A, B, their difference and the reference; below, the same rows show a face enlarged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stream.lab.compare.difference import colour_scale, difference, heat, spot
from stream.lab.compare.face_numbers import Box
from stream.lab.compare.figures import Figure
from stream.lab.compare.medium import at_size
from stream.lab.compare.pairs import Pair

COLUMNS = 4
"""Number of evenly spaced frames of a video. The frame with the largest difference may be a fifth."""
_GROUND, _TEXT, _SOFT = (19, 23, 27), (232, 236, 240), (164, 175, 186)
"""RGB of the background, the text and less important text."""
_GAP, _EDGE, _NAMES = 10, 24, 120
"""Width of gaps, of the sheet's border and of the column of row names, px."""
_WIDTH = 1800
"""Largest width of the sheet, px."""
_CELL = 760
"""Largest width of a picture, px."""
_FACE = 420
"""Largest side of an enlarged face, px."""


@dataclass(frozen=True, slots=True, eq=False)
class SheetColumn:
    """One frame on the sheet."""

    pair: Pair
    faces: dict[int, Box]
    """Crops by number, in px of the pair's pictures."""
    caption: list[str]
    """Lines above the column."""


def draw(columns: list[SheetColumn], title: list[str], figures: list[Figure], gain: int) -> np.ndarray:
    """The sheet as RGB u8[H,W,3].

    `title` holds the lines at its top; `gain` is the gain of the differences.
    """
    count = len(columns)
    height, width = columns[0].pair.a.shape[:2]
    cell = min(_CELL, width, (_WIDTH - 2 * _EDGE - _NAMES - _GAP * (count - 1)) // count)
    face = min(_FACE, cell)
    tall = max(1, round(cell * height / width))
    captions = max(len(column.caption) for column in columns)
    keys = _keys(columns[0].pair)
    lines = _figure_lines(figures)
    head = _EDGE + 34 + 22 * (len(title) - 1) + 22 * captions + 14
    face_head = 40
    table = 22 * len(lines) + (20 if lines else 0)
    total_width = max(2 * _EDGE + _NAMES + count * (cell + _GAP) - _GAP, 900)
    total = head + len(keys) * (tall + face + 2 * _GAP) + face_head + table + _EDGE
    sheet = Image.new("RGB", (total_width, total), _GROUND)
    pen = ImageDraw.Draw(sheet)
    for n, line in enumerate(title):
        font = _font(20, bold=True) if n == 0 else _font(14)
        line = _fitted(line, font, total_width - 2 * _EDGE)
        pen.text((_EDGE, _EDGE + (n and 12 + 22 * n)), line, _SOFT if n else _TEXT, font)
    top = head
    for part, (wide, high) in enumerate(((cell, tall), (face, face))):
        if part:
            pen.text((_EDGE, top + 8), _face_heading(columns), _TEXT, _font(14, bold=True))
            top += face_head
        for key in keys:
            pen.text((_EDGE, top + 4), _LABELS[key], _TEXT, _font(14, bold=True))
            if key == "d":
                _legend(sheet, pen, (_EDGE, top + 30), gain)
            for n, column in enumerate(columns):
                picture = _layer(column.pair, key, gain)
                if part:
                    picture = _cut(picture, _target(column))
                x = _EDGE + _NAMES + n * (cell + _GAP)
                sheet.paste(Image.fromarray(at_size(np.ascontiguousarray(picture), (wide, high))), (x, top))
            top += high + _GAP
    for n, column in enumerate(columns):
        for number, line in enumerate(column.caption):
            x = _EDGE + _NAMES + n * (cell + _GAP)
            y = head - 10 - 22 * (len(column.caption) - number)
            pen.text((x, y), _fitted(line, _font(14), cell), _SOFT if number else _TEXT, _font(14))
    for n, cells in enumerate(lines):
        for x, text in zip((0, 200, 320, 460), cells, strict=False):
            pen.text((_EDGE + x, top + 10 + 22 * n), text, _TEXT if n else _SOFT, _font(14))
    return np.asarray(sheet)


_LABELS = {"a": "A", "b": "B", "d": "Difference", "r": "Reference"}


def _legend(sheet: Image.Image, pen: ImageDraw.ImageDraw, at: tuple[int, int], gain: int) -> None:
    """Draw the colour scale of the difference with its levels."""
    bar = np.repeat(colour_scale()[None, ::3], 8, axis=0)
    sheet.paste(Image.fromarray(bar), at)
    font, top = _font(12), f"{round(255 / gain)}"
    pen.text((at[0], at[1] + 12), "0", _SOFT, font)
    pen.text((at[0] + bar.shape[1] - font.getlength(top), at[1] + 12), top, _SOFT, font)
    pen.text((at[0], at[1] + 28), "levels", _SOFT, font)


def _keys(pair: Pair) -> list[str]:
    return ["a", "b", "d"] + (["r"] if pair.reference is not None else [])


def _layer(pair: Pair, key: str, gain: int) -> np.ndarray:
    if key == "d":
        return heat(difference(pair.a, pair.b), gain)
    return pair.layers[key]


def _target(column: SheetColumn) -> Box:
    """The part to enlarge: the largest face, or the area of the largest difference."""
    if column.faces:
        return max(column.faces.values(), key=lambda box: box[2])
    return spot(difference(column.pair.a, column.pair.b))


def _face_heading(columns: list[SheetColumn]) -> str:
    with_face = [bool(column.faces) for column in columns]
    if all(with_face):
        return "The largest face, enlarged"
    if any(with_face):
        return "The largest face, or the area of the largest difference, enlarged"
    return "The area of the largest difference, enlarged"


def _cut(picture: np.ndarray, box: Box) -> np.ndarray:
    x, y, width, height = box
    return picture[y : y + height, x : x + width]


def _figure_lines(figures: list[Figure]) -> list[tuple[str, ...]]:
    """The rows of the table, headings first: name, A's value if there is one, B's, and how to read them."""
    both = any("a" in figure.values for figure in figures)
    alone = any("a" not in figure.values for figure in figures)
    columns = ("a", "b") if both else ("b",)
    heads = {"a": "A", "b": "B, against A" if alone else "B"}
    rows = [(figure.label, *(figure.text(which) for which in columns), figure.reading) for figure in figures]
    return [("", *(heads[which] for which in columns), ""), *rows]


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def _fitted(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The text, shortened in the middle if it is too wide."""
    if font.getlength(text) <= width:
        return text
    length = len(text)
    while length > 2 and font.getlength(short := _shortened(text, length)) > width:
        length -= 1
    return short


def _shortened(text: str, length: int) -> str:
    return f"{text[: math.ceil(length / 2)]}…{text[len(text) - length // 2 :]}"


def png(image: np.ndarray) -> bytes:
    """The picture RGB u8[H,W,3] as a PNG file."""
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
