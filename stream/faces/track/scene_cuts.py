"""Detects scene cuts, after which no face can be followed."""

from __future__ import annotations

import numpy as np

from stream.picture.frame import Frame

_MIN_CHANGE = 10.0
"""Mean difference of luma, of 255, below which a change is no cut, however little it correlates."""
_FLAT = 4.0
"""Standard deviation of luma, of 255, below which a picture has no structure."""


class SceneCuts:
    """Detects cuts by the correlation of tiny luma pictures, which flashes and fades leave high."""

    def __init__(self, threshold: float) -> None:
        """`threshold` 0..1: the correlation below which a change is a cut; with 0 nothing is."""
        self._threshold = threshold
        self._last: np.ndarray | None = None

    def is_cut(self, frame: Frame) -> bool:
        """Whether this frame begins a new scene; call once for every frame, in order."""
        if not self._threshold:
            return False
        tiny = frame.tiny_luma()
        if tiny.std() < _FLAT and self._last is not None:
            return False  # black or a flash: the next picture is compared with the one before it
        last, self._last = self._last, tiny
        if last is None:
            return False
        if last.shape != tiny.shape:
            return True
        if np.abs(tiny - last).mean() < _MIN_CHANGE:
            return False
        return correlation(tiny, last) < self._threshold


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of two arrays of one shape; 0 where either is flat."""
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a * a).mean() * (b * b).mean())
    return float((a * b).mean() / scale) if scale > 1e-3 else 0.0
