"""Figures of a comparison: fast ones for every pair, slow ones for a sample of pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from stream.errors import SourceError
from stream.lab.compare.difference import difference, suitable_gain
from stream.lab.compare.pairs import Pair
from stream.lab.quality import picture_measures as quality

SAMPLES = 16
"""Largest number of pairs for which the slow figures are measured; they are evenly spaced."""


@dataclass(frozen=True, slots=True)
class FigureKind:
    """Name and format of a figure."""

    name: str
    unit: str
    scale: float
    """Factor from the value to the printed number in that unit."""
    digits: int
    """Digits after the decimal point."""
    equal: str
    """How to read the figure between A and B; empty if each picture has a value of its own."""
    meaning: str
    """The quantity that the figure measures, with its source."""


KINDS = {
    "psnr": FigureKind("PSNR", "dB", 1, 2, "higher is closer", "peak signal-to-noise ratio"),
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
        "Sharpness", "", 1, 3, "1 where equal", "energy of fine detail, divided by the other's"
    ),
    "overshoot": FigureKind("Overshoot", "%", 100, 2, "0 where equal", "how far edges go beyond the other's"),
    "warping": FigureKind(
        "Warping error", "10⁻³", 1000, 4, "", "error that motion does not explain (Lai et al., 2018)"
    ),
    "flicker": FigureKind(
        "Flicker", "", 1, 3, "", "temporal energy that motion does not explain, squared levels"
    ),
    "jitter": FigureKind(
        "Landmark jitter", "%", 100, 3, "", "jumps of a face's landmarks between frames, in eye distances"
    ),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table."""

    key: str
    values: dict[str, float]
    """Values by `a` and `b`, as `stream.lab.quality` returns them; inf for equal pictures."""
    better: int
    """+1 if higher is better, -1 if lower is better, 0 if neither."""

    @property
    def label(self) -> str:
        """The figure's name with its unit."""
        kind = KINDS[self.key]
        return f"{kind.name}, {kind.unit}" if kind.unit else kind.name

    @property
    def reading(self) -> str:
        """Which values are better, or which value equal pictures have."""
        if not self.better:
            return KINDS[self.key].equal
        if self.key == "sharpness":
            return "best near 1"
        return "higher is better" if self.better > 0 else "lower is better"

    def text(self, which: str) -> str:
        """The value of `a` or `b` as printed."""
        value, kind = self.values.get(which), KINDS[self.key]
        if value is None:
            return "–"
        return "identical" if math.isinf(value) else f"{kind.scale * value:.{kind.digits}f}"

    @property
    def winner(self) -> str | None:
        """`a` or `b`, whichever is better; None if the printed values are equal or neither is better."""
        a, b = self.text("a"), self.text("b")
        if not self.better or len(self.values) < 2 or a == b:
            return None
        first, second = self.values["a"], self.values["b"]
        if self.key == "sharpness":  # more than 1 is no improvement
            first, second = -abs(first - 1), -abs(second - 1)
        return "a" if (first > second) == (self.better > 0) else "b"


@dataclass(frozen=True, slots=True)
class FirstPass:
    """The result of the first pass over all pairs. Lists have one item for each pair."""

    times: list[float]
    """Seconds on the common clock."""
    frames: list[int]
    """Numbers of A's frames."""
    difference: list[float]
    """Mean over the picture of the largest difference of the three channels, levels of 0..255."""
    psnr: dict[str, list[float]]
    """dB against the reference, by `a` and `b`; without a reference against A, by `b` only."""
    sharpness: dict[str, list[float]]
    """Sharpness relative to the same pictures as `psnr`, by the same keys."""
    peak: Pair
    """The pair with the largest difference."""
    gain: int
    """Gain that suits the differences of `peak`."""


def first_pass(pairs: Iterable[Pair], on_pair: Callable[[int], None] = lambda count: None) -> FirstPass:
    """Measure the fast figures of every pair. Raises SourceError if there is no pair.

    `on_pair` is called after each pair with the number of pairs done.
    """
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
        for which, picture, other in compared(pair):
            psnr.setdefault(which, []).append(quality.psnr(picture, other))
            sharpness.setdefault(which, []).append(quality.sharpness(picture, other))
        if differences[-1] > max(differences[:-1], default=-1.0):
            peak, gain = pair, suitable_gain(levels)
        on_pair(len(times))
    if peak is None:
        raise SourceError("A and B have no two frames at the same time; see --start, --duration and --offset")
    return FirstPass(times, frames, differences, psnr, sharpness, peak, gain)


def compared(pair: Pair) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Key, picture and the picture it is compared with: A and B with the reference, or B with A."""
    if pair.reference is None:
        return [("b", pair.b, pair.a)]
    return [("a", pair.a, pair.reference), ("b", pair.b, pair.reference)]


class SampledFigures:
    """Measures the slow figures of single pairs and averages them."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], list[float]] = {}

    def add(self, pair: Pair) -> None:
        """Measure one more pair."""
        for which, picture, other in compared(pair):
            found = {"ssim": quality.ssim(picture, other)} | quality.indices(picture, other)
            found["overshoot"] = quality.overshoot(picture, other)
            for key, value in found.items():
                self._values.setdefault((key, which), []).append(value)

    def figures(self, found: FirstPass) -> list[Figure]:
        """All figures of pictures, PSNR first."""
        means = {("psnr", which): _mean_db(values) for which, values in found.psnr.items()}
        means |= {key: float(np.mean(values)) for key, values in self._values.items()}
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
    """PSNR of the mean squared error, so that a few equal pictures do not make the result infinite."""
    error = float(np.mean([10 ** (-value / 10) for value in values]))
    return -10 * math.log10(error) if error else math.inf
