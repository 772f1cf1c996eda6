"""The sheet: a few moments as one picture, rows A, B, difference and reference, faces enlarged below."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stream.lab.compare.difference import difference, heat, scale, spot
from stream.lab.compare.face_numbers import Box
from stream.lab.compare.figures import Figure
from stream.lab.compare.medium import at_size
from stream.lab.compare.pairs import Pair

MOMENTS = 4
"""Of a video, evenly spread; the one that differs most may be a fifth."""
_GROUND, _TEXT, _SOFT = (19, 23, 27), (232, 236, 240), (164, 175, 186)
_GAP, _EDGE, _NAMES = 10, 24, 120
_WIDTH = 1800
_CELL = 760
"""Widest picture, px."""
_FACE = 420
"""Side of an enlarged face at most, px."""


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """One column of the sheet."""

    pair: Pair
    faces: dict[int, Box]
    caption: list[str]
    """Lines over the column."""


def draw(moments: list[Moment], title: list[str], figures: list[Figure], gain: int) -> np.ndarray:
    """The sheet as RGB u8[H,W,3]. `title` is lines at its top; `gain` that of the differences."""
    count = len(moments)
    height, width = moments[0].pair.a.shape[:2]
    cell = min(_CELL, width, (_WIDTH - 2 * _EDGE - _NAMES - _GAP * (count - 1)) // count)
    face = min(_FACE, cell)
    tall = max(1, round(cell * height / width))
    captions = max(len(moment.caption) for moment in moments)
    keys = _keys(moments[0].pair)
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
            pen.text((_EDGE, top + 8), _face_words(moments), _TEXT, _font(14, bold=True))
            top += face_head
        for key in keys:
            pen.text((_EDGE, top + 4), _LABELS[key], _TEXT, _font(14, bold=True))
            if key == "d":
                _legend(sheet, pen, (_EDGE, top + 30), gain)
            for column, moment in enumerate(moments):
                picture = _layer(moment.pair, key, gain)
                if part:
                    picture = _cut(picture, _target(moment))
                x = _EDGE + _NAMES + column * (cell + _GAP)
                sheet.paste(Image.fromarray(_fit(picture, (wide, high))), (x, top))
            top += high + _GAP
    for column, moment in enumerate(moments):
        for n, line in enumerate(moment.caption):
            x = _EDGE + _NAMES + column * (cell + _GAP)
            y = head - 10 - 22 * (len(moment.caption) - n)
            pen.text((x, y), _fitted(line, _font(14), cell), _TEXT if n == 0 else _SOFT, _font(14))
    for n, cells in enumerate(lines):
        for x, text in zip((0, 200, 320, 460), cells, strict=False):
            pen.text((_EDGE + x, top + 10 + 22 * n), text, _TEXT if n else _SOFT, _font(14))
    return np.asarray(sheet)


_LABELS = {"a": "A", "b": "B", "d": "Difference", "r": "Reference"}


def _legend(sheet: Image.Image, pen: ImageDraw.ImageDraw, at: tuple[int, int], gain: int) -> None:
    """The colours of the difference, and the levels that they stand for."""
    bar = np.repeat(scale()[None, ::3], 8, axis=0)
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


def _target(moment: Moment) -> Box:
    """What is enlarged: the largest face, else where most differs."""
    if moment.faces:
        return max(moment.faces.values(), key=lambda box: box[2])
    return spot(difference(moment.pair.a, moment.pair.b))


def _face_words(moments: list[Moment]) -> str:
    kinds = {bool(moment.faces) for moment in moments}
    if kinds == {True}:
        return "The largest face, enlarged"
    return (
        "Where most differs, enlarged"
        if kinds == {False}
        else "The largest face, or where most differs, enlarged"
    )


def _cut(picture: np.ndarray, box: Box) -> np.ndarray:
    x, y, width, height = box
    return picture[y : y + height, x : x + width]


def _fit(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """In the size; few pixels are enlarged smoothly, as a viewer would see them."""
    return at_size(np.ascontiguousarray(picture), size)


def _figure_lines(figures: list[Figure]) -> list[tuple[str, ...]]:
    """The table, head first: names, A's values where there are any, B's, and how to read them."""
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
    """The text, its middle left out where it is too wide."""
    if font.getlength(text) <= width:
        return text
    keep = len(text)
    while keep > 2 and font.getlength(short := _shortened(text, keep)) > width:
        keep -= 1
    return short


def _shortened(text: str, keep: int) -> str:
    return f"{text[: math.ceil(keep / 2)]}…{text[len(text) - keep // 2 :]}"


def png(image: np.ndarray) -> bytes:
    """A PNG file of RGB u8[H,W,3]."""
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
