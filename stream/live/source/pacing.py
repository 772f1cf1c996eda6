"""How frames are supplied: paced where they come ahead of their time, thinned out, watched."""

from __future__ import annotations

import threading
import time
from fractions import Fraction

import numpy as np

from stream.picture.frame import Frame

FROZEN_S = 30.0
"""After so long without any change a picture is called frozen."""
_SAME = 6
"""Levels by which one picture that is encoded again may differ from itself."""
_LATE_S = 0.5
_FLOOD = 1.5
"""From so many times the announced rate on a source is called flooding."""
_LEEWAY = 1.1
"""How far a source may exceed what it announces: cameras are honest to some percent."""
_WINDOW_S = 2.0


class Pacer:
    """Holds back frames of a file or of segments until it is their time."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._offset_s: float | None = None
        """`time.monotonic()` minus the source's time."""
        self._due_s: float | None = None

    def wait(self, time_s: float | None) -> float:
        """Sleep until a frame's time, or `stopping`; returns `time.monotonic()`."""
        now = time.monotonic()
        if time_s is None:
            return now
        if self._offset_s is None:
            self._offset_s = (now if self._due_s is None else max(now, self._due_s)) - time_s
        due = time_s + self._offset_s
        if not -_LATE_S < due - now < 5:  # it could not be read in time, or its times jump
            self._offset_s, due = now - time_s, now
        self._stopping.wait(max(0.0, due - now))
        self._due_s = due
        return time.monotonic()

    def rewind(self, rate: Fraction) -> None:
        """What follows begins one frame after the last, whatever times it bears."""
        if self._due_s is not None:
            self._due_s += float(1 / rate)
        self._offset_s = None


class Throttle:
    """Which frames are worked on: at most `max_fps`, evenly, and no flood. 0: as many as announced."""

    def __init__(self, max_fps: float) -> None:
        self._step = Fraction(1) / Fraction(max_fps).limit_denominator(1000) if max_fps else None
        self._next = Fraction(0)
        self._allowance: float | None = None
        self._at_s = 0.0

    def passes(self, time_s: Fraction, arrived_at_s: float, rate: Fraction) -> bool:
        """Whether a frame is let through; `rate` is what the source announces."""
        if self._step is not None:
            if time_s < self._next - self._step / 8:  # times are rounded, some to milliseconds
                return False
            self._next = max(self._next + self._step, time_s + self._step / 2)
        most = 1 / self._step if self._step is not None else rate
        # A second's frames may come at once, as after a hitch of the network, but not for long.
        bucket = float(max(most, Fraction(4)))
        if self._allowance is None:
            self._allowance = bucket
        else:
            gained = (arrived_at_s - self._at_s) * float(most) * _LEEWAY
            self._allowance = min(bucket, self._allowance + gained)
        self._at_s = arrived_at_s
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True


class SupplyWatch:
    """Notices a source that floods, or shows the same picture for long."""

    def __init__(self) -> None:
        self.words = ""
        self._window_at_s: float | None = None
        self._frames = 0
        self._flood = ""
        self._sample: np.ndarray | None = None
        self._changed_at_s = self._looked_at_s = 0.0

    def count(self, now_s: float) -> float:
        """One more picture came, which is not looked at; returns how long has been counted, s."""
        if self._window_at_s is None:
            self._window_at_s = now_s
        self._frames += 1
        return now_s - self._window_at_s

    def look(self, frame: Frame, now_s: float, rate: Fraction) -> bool:
        """One more picture came; True where `words` are others now."""
        counted_s = self.count(now_s)
        if counted_s >= _WINDOW_S:
            measured = (self._frames - 1) / counted_s
            flooding = measured > _FLOOD * float(rate)
            self._flood = f"sends {measured:.0f} frames/s, announces {float(rate):g}" if flooding else ""
            self._window_at_s, self._frames = now_s, 1
        if now_s - self._looked_at_s >= 1 or self._sample is None:
            self._looked_at_s = now_s
            self._compare(frame, now_s)
        frozen_s = now_s - self._changed_at_s
        frozen = f"the picture has not changed for {FROZEN_S:g} s" if frozen_s > FROZEN_S else ""
        before, flood = self.words, self._flood
        if flood and before and not frozen and "sends" in before:
            flood = before  # one telling is enough, though the number differs each time
        self.words = "; ".join(filter(None, (flood, frozen)))
        return self.words != before

    def _compare(self, frame: Frame, now_s: float) -> None:
        width, height = (int(side) for side in frame.view.upright_size)
        scale = min(1.0, 160 / max(width, height))
        sample = frame.luma((0, 0, width, height), scale).astype(np.int16)
        old = self._sample
        if old is None or old.shape != sample.shape or np.abs(sample - old).max() > _SAME:
            self._sample, self._changed_at_s = sample, now_s
