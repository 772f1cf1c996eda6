"""Figures of what is compared: fast ones of every pair, slow ones of a few."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from stream.errors import SourceError
from stream.lab.compare.difference import difference, usual_gain
from stream.lab.compare.pairs import Pair
from stream.lab.quality import picture_measures as quality

SAMPLES = 16
"""Pairs that the slow figures are taken of, spread evenly."""


@dataclass(frozen=True, slots=True)
class FigureKind:
    """How a figure is called and printed."""

    name: str
    unit: str
    scale: float
    """From the value to what is printed in that unit."""
    digits: int
    equal: str
    """How to read it where neither is the better one; empty where each picture has a value of its own."""
    words: str


KINDS = {
    "psnr": FigureKind("PSNR", "dB", 1, 2, "more is nearer", "peak signal-to-noise ratio"),
    "ssim": FigureKind("SSIM", "", 1, 4, "1 where equal", "structural similarity (Wang et al., 2004)"),
    "gmsd": FigureKind(
        "GMSD", "", 1, 4, "0 where equal", "gradient magnitude similarity deviation (Xue et al., 2014)"
    ),
    "haarpsi": FigureKind(
        "HaarPSI", "", 1, 4, "1 where equal", "Haar wavelet-based similarity (Reisenhofer et al., 2018)"
    ),
    "vif": FigureKind(
        "VIF", "", 1, 4, "1 where equal", "visual information fidelity (Sheikh and Bovik, 2006)"
    ),
    "lpips": FigureKind(
        "LPIPS", "", 1, 4, "0 where equal", "learned perceptual distance (Zhang et al., 2018)"
    ),
    "sharpness": FigureKind(
        "Sharpness", "", 1, 3, "1 where equal", "energy of fine detail, over the other's"
    ),
    "overshoot": FigureKind("Overshoot", "%", 100, 2, "0 where equal", "how far edges go beyond the other's"),
    "warping": FigureKind(
        "Warping error", "10⁻³", 1000, 4, "", "what motion does not explain (Lai et al., 2018)"
    ),
    "flicker": FigureKind(
        "Flicker", "", 1, 3, "", "energy over time that motion does not explain, squared levels"
    ),
    "jitter": FigureKind(
        "Landmark jitter", "%", 100, 3, "", "a face's points from frame to frame, in eye distances"
    ),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table."""

    key: str
    values: dict[str, float]
    """By `a` and `b`, as `stream.lab.quality` gives them. inf where two pictures are equal."""
    better: int
    """+1: more is better, -1: less is, 0: neither."""

    @property
    def label(self) -> str:
        """Its name with the unit."""
        kind = KINDS[self.key]
        return f"{kind.name}, {kind.unit}" if kind.unit else kind.name

    @property
    def reading(self) -> str:
        """Which way is better, or what equal pictures give."""
        if not self.better:
            return KINDS[self.key].equal
        if self.key == "sharpness":
            return "best near 1"
        return "more is better" if self.better > 0 else "less is better"

    def text(self, which: str) -> str:
        """The value of `a` or `b` as it is printed."""
        value, kind = self.values.get(which), KINDS[self.key]
        if value is None:
            return "–"
        return "identical" if math.isinf(value) else f"{kind.scale * value:.{kind.digits}f}"

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


@dataclass(frozen=True, slots=True)
class Survey:
    """What one look at every pair tells; lists have one item a pair."""

    times: list[float]
    frames: list[int]
    difference: list[float]
    """Mean over the picture of the largest of the three channels' differences, levels of 0..255."""
    psnr: dict[str, list[float]]
    """dB by `a` and `b` against the reference; without one by `b` only, against A."""
    sharpness: dict[str, list[float]]
    """Likewise."""
    peak: Pair
    """The pair that differs most."""
    gain: int
    """That shows its differences well."""


def survey(pairs: Iterable[Pair], tick: Callable[[int], None] = lambda count: None) -> Survey:
    """Look at every pair; SourceError where there is none. `tick` hears the number of pairs done."""
    times: list[float] = []
    frames: list[int] = []
    differences: list[float] = []
    psnr: dict[str, list[float]] = {}
    sharpness: dict[str, list[float]] = {}
    peak: Pair | None = None
    gain = 1
    for pair in pairs:
        times.append(pair.time_s)
        frames.append(pair.frame)
        levels = difference(pair.a, pair.b)
        differences.append(float(levels.mean()))
        for which, picture, against in compared(pair):
            psnr.setdefault(which, []).append(quality.psnr(picture, against))
            sharpness.setdefault(which, []).append(quality.sharpness(picture, against))
        if differences[-1] > max(differences[:-1], default=-1.0):
            peak, gain = pair, usual_gain(levels)
        tick(len(times))
    if peak is None:
        raise SourceError("A and B have no two frames at the same time; see --start, --duration and --offset")
    return Survey(times, frames, differences, psnr, sharpness, peak, gain)


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
        against_reference = "a" in found.psnr
        return [
            Figure(
                key,
                {which: means[key, which] for which in ("a", "b") if (key, which) in means},
                quality.BETTER[key] if against_reference else 0,
            )
            for key in dict.fromkeys(key for key, _ in means)
        ]


def _mean_db(values: list[float]) -> float:
    """Of the mean squared error, so that a few equal pictures do not make the whole infinite."""
    error = float(np.mean([10 ** (-value / 10) for value in values]))
    return -10 * math.log10(error) if error else math.inf
