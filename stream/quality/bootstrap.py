"""Is a difference more than chance? The paired bootstrap (Efron, 1979) over faces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROUNDS = 10_000
"""Resamplings: the ends of the interval then repeat to about a hundredth of its width."""
_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean difference of pairs and its 95 % percentile interval."""

    mean: float
    low: float
    high: float
    pairs: int
    """Those in which both sides have a figure."""

    def verdict(self, better: int) -> str:
        """ "better" or "worse" where the interval excludes no change, else ""; `better` is +1 or -1."""
        if not (self.low > 0 or self.high < 0):
            return ""
        return "better" if (self.low > 0) == (better > 0) else "worse"


def paired(ours: np.ndarray, theirs: np.ndarray, seed: int = 0) -> Difference:
    """`ours` minus `theirs`, f64[N] of the same N faces; pairs with NaN are left out.

    The same seed and pairs give the same interval. NaN all through where no pair is left. Raises
    ValueError for sides of different length.
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape or ours.ndim != 1:
        raise ValueError(f"expected two rows of one length, got {ours.shape} and {theirs.shape}")
    apart = ours - theirs
    apart = apart[np.isfinite(apart)]
    if not len(apart):
        return Difference(*[float("nan")] * 3, 0)
    drawn = np.random.default_rng(seed).integers(len(apart), size=(ROUNDS, len(apart)))
    means = apart[drawn].mean(axis=1)
    low, high = np.quantile(means, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return Difference(float(apart.mean()), float(low), float(high), len(apart))
