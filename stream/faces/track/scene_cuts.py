"""When does the picture change so much that nothing of the last one can be followed?"""

from __future__ import annotations

import numpy as np

from stream.picture.frame import Frame

_LEAST_CHANGE = 10.0
"""Mean difference of luma, of 255, below which no cut is seen whatever the structure says."""
_FLAT = 4.0
"""Standard deviation of luma, of 255, below which a picture has no structure."""


class SceneCuts:
    """Tells scene cuts by the likeness of tiny luma pictures; flashes and fades keep their structure."""

    def __init__(self, readiness: float) -> None:
        """`readiness` 0..1: the correlation below which a change is a cut; 0 finds none."""
        self._readiness = readiness
        self._last: np.ndarray | None = None

    def is_cut(self, frame: Frame) -> bool:
        """Whether this frame begins a new scene; call once for every frame, in order."""
        if not self._readiness:
            return False
        tiny = frame.tiny_luma()
        if tiny.std() < _FLAT and self._last is not None:
            return False  # black or a flash: what comes next is held against what was before
        last, self._last = self._last, tiny
        if last is None:
            return False
        if last.shape != tiny.shape:
            return True
        if np.abs(tiny - last).mean() < _LEAST_CHANGE:
            return False
        return correlation(tiny, last) < self._readiness


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's; 0 where either is flat."""
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a * a).mean() * (b * b).mean())
    return float((a * b).mean() / scale) if scale > 1e-3 else 0.0
