"""Is a difference more than chance? The paired bootstrap (Efron, 1979) over faces."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

ROUNDS = 10_000
"""Resamplings: the ends of the interval then repeat to about a hundredth of its width."""
_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of two middles and its 95 % percentile interval."""

    middle: float
    low: float
    high: float
    pairs: int
    """Those in which both sides have a figure."""

    def verdict(self, better: int) -> str:
        """ "better" or "worse" where the interval excludes no change, else ""; `better` is +1 or -1."""
        if not (self.low > 0 or self.high < 0):
            return ""
        return "better" if (self.low > 0) == (better > 0) else "worse"


def paired(
    ours: np.ndarray, theirs: np.ndarray, seed: int = 0, middle: Callable[..., np.ndarray] = np.mean
) -> Difference:
    """The middle of `ours` minus that of `theirs`, f64[N] of the same N faces; `np.mean` or `np.median`.

    Pairs with NaN are left out. The same seed and pairs give the same interval. NaN all through where
    no pair is left. Raises ValueError for sides of different length.
    """
    sides = np.stack([np.asarray(side, np.float64) for side in (ours, theirs)])
    if sides.ndim != 2:
        raise ValueError(f"expected two rows of faces, got {sides.shape = }")
    sides = sides[:, np.isfinite(sides).all(axis=0)]
    count = sides.shape[1]
    if not count:
        return Difference(math.nan, math.nan, math.nan, 0)
    drawn = np.random.default_rng(seed).integers(count, size=(ROUNDS, count))
    here, there = (middle(side[drawn], axis=1) for side in sides)
    low, high = np.quantile(here - there, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return Difference(float(middle(sides[0]) - middle(sides[1])), float(low), float(high), count)
