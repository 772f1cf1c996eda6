"""Detects whether anything moves in a live picture: without motion a camera costs only its decoding."""

from __future__ import annotations

import numpy as np

from stream.config_live import MotionSettings
from stream.picture.frame import Frame

_COARSEST, _FINEST = 24.0, 1.5
"""Levels, of 255, by which a pixel of the tiny picture must change at sensitivity 0 and 1."""
_NOISE_FACTOR = 6.0
"""A pixel must also change this many times as much as the whole picture does, which is noise."""
_COMPARE_S = 0.07
"""Least time between two comparisons: at 25 frames a second this halves their cost."""
_BACKGROUND_S = 2.0
"""Time constant with which the background follows slow changes."""


class MotionGate:
    """Compares tiny luma pictures with their slow average, the background, about a dozen times a second.

    The gate starts open, and motion opens it. Noise, and light that changes everywhere, do not.
    """

    def __init__(self, settings: MotionSettings) -> None:
        self._settings = settings
        self._threshold: float = _COARSEST * (_FINEST / _COARSEST) ** settings.sensitivity
        self._background: np.ndarray | None = None
        self._last: np.ndarray | None = None
        """The tiny picture that was compared last."""
        self._last_s = 0.0
        self._motion_s = 0.0
        self._admitted_s = float("-inf")
        self.closed = False
        """Whether nothing has moved for `motion.hold_s`."""

    def admit(self, frame: Frame) -> bool:
        """Whether the frame passes. An open gate passes all, a closed one `motion.idle_fps` a second."""
        if not self._settings.gate:
            return True
        now_s = frame.time.seconds
        if (self._background is None or now_s - self._last_s >= _COMPARE_S) and self._moves(frame, now_s):
            self._motion_s = now_s
        self.closed = now_s - self._motion_s > self._settings.hold_s
        due = self._settings.idle_fps and now_s - self._admitted_s >= 1 / self._settings.idle_fps - 1e-6
        if self.closed and not due:
            return False
        self._admitted_s = now_s
        return True

    def _moves(self, frame: Frame, now_s: float) -> bool:
        """Whether a part of the picture differs from the background, which is updated."""
        tiny = frame.tiny_luma()
        background, last = self._background, self._last
        passed_s, self._last, self._last_s = now_s - self._last_s, tiny, now_s
        if background is None or last is None or background.shape != tiny.shape:
            self._background = tiny
            return True
        difference = tiny - background
        difference = np.abs(difference - np.median(difference))
        noise = float(np.median(np.abs(tiny - last)))
        weight = np.float32(min(1.0, max(0.0, passed_s) / _BACKGROUND_S))
        self._background = background + weight * (tiny - background)
        return float(difference.max()) > max(self._threshold, _NOISE_FACTOR * noise)
