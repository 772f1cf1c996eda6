"""The paired bootstrap (Efron, 1979) over faces: whether a difference is more than chance."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
"""Number of resamples. The ends of the interval then vary by about a hundredth of its width."""
_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of two means or medians with its 95 % percentile interval."""

    value: float
    low: float
    high: float
    pairs: int
    """Number of faces for which both sides have a figure."""

    def verdict(self, better: int) -> str:
        """The word "better" or "worse" if the interval excludes zero, else an empty text.

        `better` is +1 if larger values are better, -1 if smaller ones are.
        """
        if not (self.low > 0 or self.high < 0):
            return ""
        return "better" if (self.low > 0) == (better > 0) else "worse"


def paired_bootstrap(
    first: np.ndarray, second: np.ndarray, seed: int = 0, average: Callable[..., np.ndarray] = np.mean
) -> Difference:
    """The average of `first` minus the average of `second`, f64[N] each, for the same N faces.

    `average` is `np.mean` or `np.median`. Pairs with a NaN are left out; if no pair remains, all values
    are NaN. The same seed and pairs give the same interval. Raises ValueError for arrays of different
    length.
    """
    sides = np.stack([np.asarray(side, np.float64) for side in (first, second)])
    if sides.ndim != 2:
        raise ValueError(f"expected two rows of faces, got {sides.shape = }")
    sides = sides[:, np.isfinite(sides).all(axis=0)]
    count = sides.shape[1]
    if not count:
        return Difference(math.nan, math.nan, math.nan, 0)
    drawn = np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))
    averages = [average(side[drawn], axis=1) for side in sides]
    low, high = np.quantile(averages[0] - averages[1], [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return Difference(float(average(sides[0]) - average(sides[1])), float(low), float(high), count)
