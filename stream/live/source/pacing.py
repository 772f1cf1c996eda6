"""Brings frames to their real time, limits their rate, and notices sources that flood or freeze."""

from __future__ import annotations

import threading
import time
from fractions import Fraction

import numpy as np

from stream.picture.frame import Frame

FROZEN_S = 30.0
"""Time without any change after which a picture counts as frozen."""
_SAME = 6
"""Levels by which two encodings of the same picture may differ."""
_LATE_S = 0.5
"""A frame that is later than this resets the pacing."""
_EARLY_S = 5.0
"""A frame that is due later than this resets the pacing: the source's times have jumped."""
_FLOOD = 1.5
"""Multiple of its announced rate above which a source counts as flooding."""
_TOLERANCE = 1.1
"""Multiple of its announced rate that a source may send: rates of cameras are off by some percent."""
_LEAST_BURST = 4
"""Frames that may always come at once."""
_WINDOW_S = 2.0
"""Length of the window over which the rate is measured."""
_SAMPLE_S = 1.0
"""Time from one comparison of pictures to the next."""
_SAMPLE_SIDE = 160
"""Longer side of the pictures that are compared, px."""


class Pacer:
    """Delays the frames of a file or of segments until their time in real time."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._offset_s: float | None = None
        """`time.monotonic()` minus the source's time; None: the next frame sets it."""
        self._due_s: float | None = None
        """`time.monotonic()` at which the last frame was due."""

    def wait(self, time_s: float | None) -> float:
        """Wait until a frame is due or `stopping` is set; returns `time.monotonic()`.

        `time_s` is on the source's clock; a frame without a time is due at once.
        """
        now = time.monotonic()
        if time_s is None:
            return now
        if self._offset_s is None:
            self._offset_s = (now if self._due_s is None else max(now, self._due_s)) - time_s
        due = time_s + self._offset_s
        if not -_LATE_S < due - now < _EARLY_S:
            self._offset_s, due = now - time_s, now
        self._stopping.wait(max(0.0, due - now))
        self._due_s = due
        return time.monotonic()

    def rewind(self, rate: Fraction) -> None:
        """The next frame is due one frame after the last, whatever its time on the source's clock."""
        if self._due_s is not None:
            self._due_s += float(1 / rate)
        self._offset_s = None


class Throttle:
    """Limits frames to `max_fps`, evenly, or with 0 to about the rate that the source announces.

    The limit is a token bucket, so a burst after a hitch of the network passes. With `max_fps` frames are
    also thinned out by their times.
    """

    def __init__(self, max_fps: float) -> None:
        self._step = Fraction(1) / Fraction(max_fps).limit_denominator(1000) if max_fps else None
        self._next = Fraction(0)
        """Least time of the next frame that passes, s."""
        self._tokens: float | None = None
        """Frames that may pass at once; None before the first frame."""
        self._refilled_at_s = 0.0

    def passes(self, time_s: Fraction, arrived_at_s: float, rate: Fraction) -> bool:
        """Whether a frame is worked on. `time_s` is the frame's time; `rate` is what the source announces."""
        if self._step is not None:
            if time_s < self._next - self._step / 8:  # some containers round times to ms
                return False
            self._next = max(self._next + self._step, time_s + self._step / 2)
        most = 1 / self._step if self._step is not None else rate
        bucket = float(max(most, Fraction(_LEAST_BURST)))  # the frames of one second
        if self._tokens is None:
            self._tokens = bucket
        else:
            refill = (arrived_at_s - self._refilled_at_s) * float(most) * _TOLERANCE
            self._tokens = min(bucket, self._tokens + refill)
        self._refilled_at_s = arrived_at_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class SourceMonitor:
    """Notices a source that sends more frames than it announces, or shows the same picture for long."""

    def __init__(self) -> None:
        self.warning = ""
        """The fault, as text for users; empty without a fault."""
        self._window_at_s: float | None = None
        """Start of the window in which the rate is measured; None before the first picture."""
        self._frames = 0
        """Pictures in the window."""
        self._flood = ""
        self._sample: np.ndarray | None = None
        """The last picture that differed from the one before, i16[h,w]."""
        self._changed_at_s = self._compared_at_s = 0.0

    def count(self, now_s: float) -> float:
        """Count a picture towards the rate; returns the length of the window so far, s."""
        if self._window_at_s is None:
            self._window_at_s = now_s
        self._frames += 1
        return now_s - self._window_at_s

    def check(self, frame: Frame, now_s: float, rate: Fraction) -> bool:
        """Count and compare a picture; returns whether `warning` has changed."""
        window_s = self.count(now_s)
        if window_s >= _WINDOW_S:
            measured = (self._frames - 1) / window_s
            flooding = measured > _FLOOD * float(rate)
            self._flood = f"sends {measured:.0f} frames/s, announces {float(rate):g}" if flooding else ""
            self._window_at_s, self._frames = now_s, 1
        if now_s - self._compared_at_s >= _SAMPLE_S or self._sample is None:
            self._compared_at_s = now_s
            self._compare(frame, now_s)
        frozen_s = now_s - self._changed_at_s
        frozen = f"the picture has not changed for {FROZEN_S:g} s" if frozen_s > FROZEN_S else ""
        before, flood = self.warning, self._flood
        if flood and before and not frozen and "sends" in before:
            flood = before  # the measured rate differs each time; it is reported once
        self.warning = "; ".join(filter(None, (flood, frozen)))
        return self.warning != before

    def _compare(self, frame: Frame, now_s: float) -> None:
        width, height = (int(side) for side in frame.view.upright_size)
        scale = min(1.0, _SAMPLE_SIDE / max(width, height))
        sample = frame.luma((0, 0, width, height), scale).astype(np.int16)
        old = self._sample
        if old is None or old.shape != sample.shape or np.abs(sample - old).max() > _SAME:
            self._sample, self._changed_at_s = sample, now_s
