"""The page: one HTML file with all pictures, styles and scripts, which needs no network."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from typing import TypedDict

import cv2
import numpy as np

from stream import __version__
from stream.lab.compare.difference import ANCHORS, companded, difference, spot
from stream.lab.compare.face_numbers import Box
from stream.lab.compare.figures import KINDS, Figure, FirstPass
from stream.lab.compare.medium import at_size
from stream.lab.compare.pairs import Pair
from stream.picture.jpeg import encode_jpeg

LETTERS = {"a": "A", "b": "B", "r": "Reference"}
"""Names of the media by layer."""
QUALITY = 90
"""JPEG quality of the page's pictures."""
_HEAT_QUALITY = 75
"""JPEG quality of the differences."""
_JPEG = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444, cv2.IMWRITE_JPEG_OPTIMIZE, 1)
_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 9)
_FEWEST, _MOST = 12, 160
"""Least and largest number of a video's frames in a page."""
_TRIALS = 6
"""Attempts to find a size of the pictures that fits."""
_SMALLEST = 64
"""Least side of the page's pictures, px."""


@dataclass(frozen=True, slots=True)
class PageFormat:
    """Number, size and coding of a page's pictures."""

    frames: int
    """Number of frames."""
    size: tuple[int, int]
    """Width and height of the pictures, px."""
    lossless: bool
    """Whether pictures are PNG instead of JPEG."""


def page_format(peak: Pair, count: int, budget_bytes: int) -> PageFormat:
    """A format for `count` pairs within `budget_bytes`, measured on the pair with the largest difference.

    That pair needs at least as many bytes as most others. A single pair is stored losslessly if it fits.
    Pictures are reduced if even a few frames would not fit.
    """
    height, width = peak.a.shape[:2]
    lossless = PageFormat(1, (width, height), True)
    if count == 1 and _bytes_of(peak, lossless) < budget_bytes:
        return lossless
    chosen, fewest = PageFormat(count, (width, height), False), min(count, _FEWEST)
    for _ in range(_TRIALS):
        each = _bytes_of(peak, chosen)
        if each * fewest <= budget_bytes:
            return PageFormat(min(count, _MOST, int(budget_bytes / each)), chosen.size, False)
        scale = min(0.9, math.sqrt(budget_bytes / (each * fewest)))
        width, height = (max(_SMALLEST, round(side * scale)) for side in chosen.size)
        chosen = PageFormat(fewest, (width, height), False)
    return chosen


def _bytes_of(pair: Pair, settings: PageFormat) -> int:
    return sum(map(len, _encoded(pair, settings).values()))


def _encoded(pair: Pair, settings: PageFormat) -> dict[str, str]:
    """Base64 of the layers `a`, `b` and `r` and of the differences `ab`, `ar` and `br`, by these keys."""
    layers = pair.layers
    images = {key: at_size(rgb, settings.size) for key, rgb in layers.items()}
    for one, other in (("a", "b"), ("a", "r"), ("b", "r")):
        if other in layers:
            levels = difference(layers[one], layers[other])
            images[one + other] = at_size(companded(levels), settings.size)
    return {key: base64.b64encode(_file(image, settings.lossless)).decode() for key, image in images.items()}


def _file(image: np.ndarray, lossless: bool) -> bytes:
    """The picture RGB u8[h,w,3] or grey u8[h,w] as a PNG or JPEG file."""
    if lossless:
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
        return cv2.imencode(".png", bgr, _PNG)[1].tobytes()
    return encode_jpeg(image, QUALITY if image.ndim == 3 else _HEAT_QUALITY, _JPEG)


class ShownFrame(TypedDict):
    """A frame as the page's script reads it. Boxes are x, y, width, height in px of the page's pictures."""

    pair: int
    frame: int
    time: float
    pictures: dict[str, str]
    """Files in Base64 by layer."""
    heat: dict[str, str]
    """Files of the companded differences in Base64, by the keys of both layers."""
    faces: dict[str, list[float]]
    """Boxes of the faces by number."""
    spot: list[float]
    """Box of the largest difference."""


class PlotLine(TypedDict):
    """One line of a plot. `colour` is the name of a CSS variable."""

    label: str
    colour: str
    values: list[float | None]


class Plot(TypedDict):
    """One plot as the page's script reads it."""

    label: str
    unit: str
    digits: int
    zero: bool
    """Whether the axis begins at 0."""
    lines: list[PlotLine]


@dataclass(slots=True)
class Page:
    """Collects the frames that the page shows, and makes its HTML."""

    settings: PageFormat
    moments: list[ShownFrame] = field(default_factory=list)

    def add(self, pair: Pair, faces: dict[int, Box]) -> None:
        """Add a frame; `faces` are crops in px of the pair's pictures."""
        scale = self.settings.size[0] / pair.a.shape[1]
        encoded = _encoded(pair, self.settings)
        self.moments.append(
            {
                "pair": pair.index,
                "frame": pair.frame,
                "time": round(pair.time_s, 4),
                "pictures": {key: data for key, data in encoded.items() if len(key) == 1},
                "heat": {key: data for key, data in encoded.items() if len(key) == 2},
                "faces": {str(number): _scaled(box, scale) for number, box in faces.items()},
                "spot": _scaled(spot(difference(pair.a, pair.b)), scale),
            }
        )

    def html(
        self, names: dict[str, str], found: FirstPass, figures: list[Figure], summary: str, notes: list[str],
        figures_note: str, is_video: bool,
    ) -> str:  # fmt: skip
        """The whole page. `names` are those of the files by layer: `a`, `b`, `r`."""
        shown = [moment["pair"] for moment in self.moments]
        data = {
            "names": {key: f"{LETTERS[key]}: {name}" for key, name in names.items()},
            "video": is_video,
            "size": self.settings.size,
            "picture_type": "image/png" if self.settings.lossless else "image/jpeg",
            "heat_type": "image/png" if self.settings.lossless else "image/jpeg",
            "moments": self.moments,
            "first": shown.index(found.peak.index) if found.peak.index in shown else 0,
            "times": [round(time, 4) for time in found.times],
            "curves": _plots(found),
            "gain": int(math.log2(found.gain)),
            "anchors": ANCHORS,
        }
        style, script = _asset("page.css"), _asset("page.js")
        reference = f' <span class="key">Reference</span> {escape(names["r"])}' if "r" in names else ""
        values = {
            "version": __version__,
            "title": escape(f"{names['a']} and {names['b']} compared"),
            "name_a": escape(names["a"]),
            "name_b": escape(names["b"]),
            "name_r": reference,
            "summary": escape(summary),
            "style": style,
            "style_hash": _hash(style),
            "script": script,
            "script_hash": _hash(script),
            "figures": table(figures, "r" in names),
            "figures_note": escape(figures_note),
            "plot_note": "Ticks below the line are the frames that this page holds; click to go there.",
            "notes": "".join(f"<li>{escape(note)}</li>" for note in notes),
            # Escaped, so that no text can end the data's script element.
            "data": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        }
        return re.sub(r"\{\{(\w+)\}\}", lambda hit: values[hit[1]], _asset("page.html"))


def table(figures: list[Figure], has_reference: bool) -> str:
    """The figures as an HTML table."""
    single = all("a" not in figure.values for figure in figures)
    columns = (
        [("b", "B against A")] if single else [("a", "A"), ("b", "B" if has_reference else "B, against A")]
    )
    head = "".join(f'<th scope="col">{text}</th>' for _, text in columns)
    rows = []
    for figure in figures:
        cells = "".join(_cell(figure, which) for which, _ in columns)
        meaning = f"{KINDS[figure.key].meaning}; {figure.reading}"
        says = f'<td class="says">{escape(meaning)}</td>'
        rows.append(f'<tr><th scope="row">{escape(figure.label)}</th>{cells}{says}</tr>')
    return (
        f'<table><thead><tr><th scope="col">Figure</th>{head}<th scope="col" class="says">How to read it</th>'
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _cell(figure: Figure, which: str) -> str:
    kind, mark = (
        ("mono better", '<span class="unseen"> (better)</span>') if figure.winner == which else ("mono", "")
    )
    return f'<td class="{kind}">{figure.text(which)}{mark}</td>'


def _plots(found: FirstPass) -> list[Plot]:
    """The plots, with one value for each pair; null for equal pictures."""

    def lines(values: dict[str, list[float]], digits: int) -> list[PlotLine]:
        several = len(values) > 1
        return [
            {
                "label": LETTERS[which] if several else "",
                "colour": which if several else "accent",
                "values": [round(value, digits) if math.isfinite(value) else None for value in each],
            }
            for which, each in values.items()
        ]

    return [
        {"label": "difference", "unit": "levels", "digits": 2, "zero": True,
         "lines": lines({"b": found.difference}, 3)},
        {"label": "PSNR", "unit": "dB", "digits": 1, "zero": False, "lines": lines(found.psnr, 2)},
        {"label": "sharpness", "unit": "", "digits": 2, "zero": False, "lines": lines(found.sharpness, 4)},
    ]  # fmt: skip


def _scaled(box: Box, scale: float) -> list[float]:
    return [round(value * scale, 1) for value in box]


def _asset(name: str) -> str:
    return (resources.files("stream.lab.compare") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
