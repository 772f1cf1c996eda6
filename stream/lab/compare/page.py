"""The page: one HTML file with everything in it, for a browser without a network."""

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
from stream.lab.compare.difference import ANCHORS, coded, difference, spot
from stream.lab.compare.face_numbers import Box
from stream.lab.compare.figures import KINDS, Figure, Survey
from stream.lab.compare.medium import at_size
from stream.lab.compare.pairs import Pair
from stream.picture.jpeg import encode_jpeg

LETTERS = {"a": "A", "b": "B", "r": "Reference"}
"""What the media are called by layer."""
QUALITY = 90
"""Of the page's JPEG pictures."""
_HEAT_QUALITY = 75
_JPEG = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444, cv2.IMWRITE_JPEG_OPTIMIZE, 1)
_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 9)
_FEWEST, _MOST = 12, 160
"""Frames of a video that a page holds."""
_TRIALS = 6
_SMALLEST = 64
"""Px that a side of the page's pictures has at least."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a page keeps its pictures within its size."""

    frames: int
    size: tuple[int, int]
    lossless: bool


def plan(peak: Pair, count: int, budget_bytes: int) -> Plan:
    """For `count` pairs, judged by the one that differs most, which is no smaller than most others.

    A single pair is kept without loss where that fits. Pictures shrink where not even a few would fit.
    """
    height, width = peak.a.shape[:2]
    if count == 1 and sum(map(len, _encoded(peak, Plan(1, (width, height), True)).values())) < budget_bytes:
        return Plan(1, (width, height), True)
    settings, fewest = Plan(count, (width, height), False), min(count, _FEWEST)
    for _ in range(_TRIALS):
        each = sum(map(len, _encoded(peak, settings).values()))
        if each * fewest <= budget_bytes:
            return Plan(min(count, _MOST, int(budget_bytes / each)), settings.size, False)
        shrink = min(0.9, math.sqrt(budget_bytes / (each * fewest)))
        width, height = (max(_SMALLEST, round(side * shrink)) for side in settings.size)
        settings = Plan(fewest, (width, height), False)
    return settings


def _encoded(pair: Pair, settings: Plan) -> dict[str, str]:
    """Base64 by layer (`a`, `b`, `r`) and by the two whose difference it is (`ab`, `ar`, `br`)."""
    layers = pair.layers
    found = {key: at_size(rgb, settings.size) for key, rgb in layers.items()}
    for one, other in (("a", "b"), ("a", "r"), ("b", "r")):
        if other in layers:
            levels = difference(layers[one], layers[other])
            found[one + other] = at_size(coded(levels), settings.size)
    return {key: base64.b64encode(_file(image, settings.lossless)).decode() for key, image in found.items()}


def _file(image: np.ndarray, lossless: bool) -> bytes:
    """RGB u8[h,w,3] or grey u8[h,w] as PNG or JPEG."""
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
    """Base64 by layer."""
    heat: dict[str, str]
    """Base64 by the two layers whose difference it is."""
    faces: dict[str, list[float]]
    spot: list[float]


class Line(TypedDict):
    """One line of a plot."""

    label: str
    colour: str
    values: list[float | None]


class Curve(TypedDict):
    """One plot as the page's script reads it."""

    label: str
    unit: str
    digits: int
    zero: bool
    """Whether the axis begins at 0."""
    lines: list[Line]


@dataclass(slots=True)
class Page:
    """Collects the frames that the page shows, then writes it."""

    settings: Plan
    moments: list[ShownFrame] = field(default_factory=list)

    def add(self, pair: Pair, faces: dict[int, Box]) -> None:
        """One more frame; `faces` are crops in px of the pair's pictures."""
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
        self, names: dict[str, str], found: Survey, figures: list[Figure], summary: str, notes: list[str],
        figures_note: str, is_video: bool,
    ) -> str:  # fmt: skip
        """The whole page as text. `names` by layer: `a`, `b`, `r`."""
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
            "curves": _curves(found),
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
            # No tag can end the data's own.
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
        words = f"{KINDS[figure.key].words}; {figure.reading}"
        says = f'<td class="says">{escape(words)}</td>'
        rows.append(f'<tr><th scope="row">{escape(figure.label)}</th>{cells}{says}</tr>')
    return (
        f'<table><thead><tr><th scope="col">Figure</th>{head}<th scope="col" class="says">What it says</th>'
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _cell(figure: Figure, which: str) -> str:
    kind, mark = (
        ("mono better", '<span class="unseen"> (better)</span>') if figure.winner == which else ("mono", "")
    )
    return f'<td class="{kind}">{figure.text(which)}{mark}</td>'


def _curves(found: Survey) -> list[Curve]:
    """What the plot shows, one value a pair; null where two pictures are equal."""

    def lines(values: dict[str, list[float]], digits: int) -> list[Line]:
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
