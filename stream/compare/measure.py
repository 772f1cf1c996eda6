"""Figures of what is compared: fast ones of every pair, slow ones of a few."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from stream.compare.difference import difference, usual_gain
from stream.compare.pairs import Pair
from stream.errors import SourceError
from stream.quality import pictures as quality

SAMPLES = 16
"""Pairs that the slow figures are taken of, spread evenly."""
LABELS = {
    "psnr": ("PSNR", "dB", 2, "peak signal-to-noise ratio"),
    "ssim": ("SSIM", "", 4, "structural similarity (Wang et al., 2004)"),
    "gmsd": ("GMSD", "", 4, "gradient magnitude similarity deviation (Xue et al., 2014)"),
    "haarpsi": ("HaarPSI", "", 4, "Haar wavelet-based similarity (Reisenhofer et al., 2018)"),
    "vif": ("VIF", "", 4, "visual information fidelity (Sheikh and Bovik, 2006)"),
    "lpips": ("LPIPS", "", 4, "learned perceptual distance (Zhang et al., 2018)"),
    "sharpness": ("Sharpness", "", 3, "energy of fine detail over the other's; 1 is as sharp"),
    "overshoot": ("Overshoot", "%", 2, "how far edges go beyond the other's"),
    "landmarks": ("Landmark distance", "%", 2, "of five points, in eye distances"),
    "warping": ("Warping error", "", 5, "what motion does not explain (Lai et al., 2018)"),
    "flicker": ("Flicker", "", 3, "temporal energy that motion does not explain"),
    "jitter": ("Landmark jitter", "%", 3, "of a face's points from frame to frame, in eye distances"),
}
"""Name, unit, digits and words of each figure."""
_PERCENT = ("overshoot", "landmarks", "jitter")


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table."""

    key: str
    values: dict[str, float]
    """By `a` and `b`; a percentage is a number of percent. inf where two pictures are equal."""
    better: int
    """+1: more is better, -1: less is, 0: neither."""

    @property
    def label(self) -> str:
        """Its name with the unit."""
        name, unit, _, _ = LABELS[self.key]
        return f"{name}, {unit}" if unit else name

    @property
    def says(self) -> str:
        """What it says, and which way is better."""
        way = {1: "; more is better", -1: "; less is better", 0: ""}[self.better]
        return LABELS[self.key][3] + way

    def text(self, which: str) -> str:
        """The value of `a` or `b` as it is printed."""
        value = self.values.get(which)
        if value is None:
            return "–"
        return "identical" if math.isinf(value) else f"{value:.{LABELS[self.key][2]}f}"

    @property
    def winner(self) -> str | None:
        """The better of both by what is printed; None where there is none."""
        a, b = self.text("a"), self.text("b")
        if not self.better or len(self.values) < 2 or a == b:
            return None
        first, second = self.values["a"], self.values["b"]
        if self.key == "sharpness":  # above 1 it is no gain
            first, second = -abs(first - 1), -abs(second - 1)
        return "a" if (first > second) == (self.better > 0) else "b"


@dataclass(slots=True)
class Survey:
    """What one look at every pair tells; lists have one item a pair."""

    times: list[float] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    difference: list[float] = field(default_factory=list)
    """Mean over the picture of the largest of the three channels' differences, levels of 0..255."""
    psnr: dict[str, list[float]] = field(default_factory=dict)
    """dB by `a` and `b` against the reference; without one by `b` only, against A."""
    sharpness: dict[str, list[float]] = field(default_factory=dict)
    """Likewise."""
    peak: Pair | None = None
    """The pair that differs most."""
    gain: int = 1
    """That shows its differences well."""


def survey(pairs: Iterable[Pair], tick: Callable[[int], None] = lambda count: None) -> Survey:
    """Look at every pair; SourceError where there is none. `tick` hears the number of pairs done."""
    found = Survey()
    for pair in pairs:
        found.times.append(pair.time_s)
        found.frames.append(pair.frame)
        levels = difference(pair.a, pair.b)
        found.difference.append(float(levels.mean()))
        for which, picture, against in compared(pair):
            found.psnr.setdefault(which, []).append(quality.psnr(picture, against))
            found.sharpness.setdefault(which, []).append(quality.sharpness(picture, against))
        if found.peak is None or found.difference[-1] > max(found.difference[:-1], default=-1.0):
            found.peak = pair
            found.gain = usual_gain(levels)
        tick(len(found.times))
    if found.peak is None:
        raise SourceError("A and B have no two frames at the same time; see --start, --duration and --offset")
    return found


def compared(pair: Pair) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """What is held against what: A and B against the reference, or B against A."""
    if pair.reference is None:
        return [("b", pair.b, pair.a)]
    return [("a", pair.a, pair.reference), ("b", pair.b, pair.reference)]


class Slow:
    """Takes the slow figures of single pairs and averages them."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], list[float]] = {}

    def add(self, pair: Pair) -> None:
        """One more pair."""
        for which, picture, against in compared(pair):
            found = {"ssim": quality.ssim(picture, against)} | quality.indices(picture, against)
            found["overshoot"] = quality.overshoot(picture, against)
            for key, value in found.items():
                self._sums.setdefault((key, which), []).append(value)

    def figures(self, found: Survey) -> list[Figure]:
        """All figures of pictures, those of every pair first."""
        means = {("psnr", which): _mean_db(values) for which, values in found.psnr.items()}
        means |= {key: float(np.mean(values)) for key, values in self._sums.items()}
        means |= {("sharpness", which): float(np.mean(values)) for which, values in found.sharpness.items()}
        return [
            figure(key, {which: means[key, which] for which in ("a", "b") if (key, which) in means})
            for key in dict.fromkeys(key for key, _ in means)
        ]


def figure(key: str, values: dict[str, float], better: int | None = None) -> Figure:
    """A row from values as `stream.quality` gives them."""
    if key in _PERCENT:
        values = {which: 100 * value for which, value in values.items()}
    return Figure(key, values, quality.BETTER[key] if better is None else better)


def _mean_db(values: list[float]) -> float:
    """Of the mean squared error, so that a few equal pictures do not make the whole infinite."""
    error = float(np.mean([10 ** (-value / 10) for value in values]))
    return -10 * math.log10(error) if error else math.inf
