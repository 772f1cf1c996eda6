"""Whether anything moves in a live picture: without motion a camera costs its decoding only."""

from __future__ import annotations

import numpy as np

from stream.config_live import MotionSettings
from stream.picture.frame import Frame

_COARSEST, _FINEST = 24.0, 1.5
"""Levels, of 255, by which a thirty-second of the picture must change at sensitivity 0 and 1."""
_NOISES = 6.0
"""And by so many times what the picture changes everywhere."""
_LOOK_S = 0.07
"""From look to look: at 25 frames a second every second frame, at half the cost."""
_MEMORY_S = 2.0
"""Time in which the picture of what is still follows slow changes."""


class MotionGate:
    """Compares tiny luma pictures with a slow average, about a dozen times a second.

    Noise does not open it, nor light that changes all over. It starts open.
    """

    def __init__(self, settings: MotionSettings) -> None:
        self._settings = settings
        self._threshold: float = _COARSEST * (_FINEST / _COARSEST) ** settings.sensitivity
        self._still: np.ndarray | None = None
        self._last: np.ndarray | None = None
        self._last_s = 0.0
        self._moved_s = 0.0
        self._shown_s = float("-inf")
        self.closed = False
        """Whether nothing has moved for `hold_s`."""

    def admit(self, frame: Frame) -> bool:
        """Whether the frame goes on: all of them while the gate is open, else `idle_fps`."""
        if not self._settings.gate:
            return True
        now_s = frame.time.seconds
        if (self._still is None or now_s - self._last_s >= _LOOK_S) and self._moves(frame, now_s):
            self._moved_s = now_s
        self.closed = now_s - self._moved_s > self._settings.hold_s
        due = self._settings.idle_fps and now_s - self._shown_s >= 1 / self._settings.idle_fps - 1e-6
        if self.closed and not due:
            return False
        self._shown_s = now_s
        return True

    def _moves(self, frame: Frame, now_s: float) -> bool:
        tiny = frame.tiny_luma()
        still, last = self._still, self._last
        passed_s, self._last, self._last_s = now_s - self._last_s, tiny, now_s
        if still is None or last is None or still.shape != tiny.shape:
            self._still = tiny
            return True
        apart = tiny - still
        apart = np.abs(apart - np.median(apart))
        noise = float(np.median(np.abs(tiny - last)))
        self._still = still + np.float32(min(1.0, max(0.0, passed_s) / _MEMORY_S)) * (tiny - still)
        return float(apart.max()) > max(self._threshold, _NOISES * noise)
