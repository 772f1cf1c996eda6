"""The queue through which live frames enter the pipeline; it holds no more than the delay budget allows."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator

from stream.live.status import Drops
from stream.picture.face import FrameWork
from stream.picture.frame import Frame
from stream.pipeline.stage import Feed

_BUDGET_SHARE = 0.8
"""Share of the delay budget that the frames in the inlet and the stages may use; the rest is a reserve for
the sink and for irregular stages."""
_NEWEST_WEIGHT = 0.2
"""Weight of the newest value in a running mean."""


class Inlet(Feed[FrameWork]):
    """Frames that wait for the first stage. A full inlet drops its oldest frame.

    It counts the frames that are in the stages too: a frame leaves the count by `done`. At most `in_flight`
    frames are here and in the stages together, and fewer if the stages cannot finish that many within the
    budget. No later queue can therefore grow. The newest frame is always accepted. Several may wait, because
    a frame on which the detector runs takes ten times as long as the next ones, which should not be lost.

    Drops are counted as `overrun` (a newer frame came), `late` (when its turn came, the frame was too old to
    be delivered within the budget) or `failed` (the frame was in a stage that failed).
    """

    def __init__(self, in_flight: int, budget_s: float, drops: Drops) -> None:
        self._in_flight, self._budget_s, self._drops = in_flight, budget_s, drops
        self._waiting: deque[Frame] = deque()
        self._entered_at_s: deque[float] = deque()
        """Times at which the frames that are in the stages left the inlet; they finish in this order."""
        self._interval_s = self._transit_s = 0.0
        """Running means: the time between two frames that leave busy stages, and a frame's time in them."""
        self._done_at_s: float | None = None
        """Time at which the last frame left the stages; None if no other frame was in them then."""
        self._changed = threading.Condition()
        self._closed = self._interrupted = False

    @property
    def limit(self) -> int:
        """How many frames may be here and in the stages together."""
        if self._interval_s <= 0:
            return self._in_flight
        return max(1, min(self._in_flight, int(_BUDGET_SHARE * self._budget_s / self._interval_s)))

    def put(self, frame: Frame) -> None:
        """Add the source's next frame; never blocks."""
        with self._changed:
            if self._closed:
                return
            while self._waiting and len(self._waiting) + len(self._entered_at_s) >= self.limit:
                self._waiting.popleft()
                self._drops.add("overrun")
            self._waiting.append(frame)
            self._changed.notify_all()

    def close(self) -> None:
        """Accept no more frames: `items` ends after those that still wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether `close` was called, because the source has ended."""
        return self._closed

    def interrupt(self) -> None:
        """End `items` at once, from any thread; another pipeline may then read the frames that wait."""
        with self._changed:
            self._interrupted = True
            self._changed.notify_all()

    @property
    def cut_short(self) -> bool:
        """See `Feed.cut_short`."""
        return self._interrupted

    def items(self) -> Iterator[FrameWork]:
        """Frames for the first stage of one pipeline, oldest first."""
        with self._changed:
            if self._entered_at_s:
                self._drops.add("failed", len(self._entered_at_s))
            self._entered_at_s.clear()
            self._interval_s, self._transit_s, self._done_at_s, self._interrupted = 0.0, 0.0, None, False
        while (frame := self._next()) is not None:
            yield FrameWork(frame)

    def done(self) -> None:
        """Note that the oldest frame in the stages has left them."""
        with self._changed:
            now = time.monotonic()
            transit_s = now - self._entered_at_s.popleft()
            self._transit_s = _running_mean(self._transit_s, transit_s)
            if self._done_at_s is not None:
                self._interval_s = _running_mean(self._interval_s, now - self._done_at_s)
            elif self.limit == 1:  # it was alone in the stages: the interval is not longer than its transit
                self._interval_s = _running_mean(self._interval_s, transit_s)
            self._done_at_s = now if self._entered_at_s else None
            self._changed.notify_all()

    def _next(self) -> Frame | None:
        with self._changed:
            while True:
                self._changed.wait_for(self._can_decide)
                if self._interrupted or not self._waiting:
                    return None
                frame, now = self._waiting.popleft(), time.monotonic()
                # Where the transit alone takes the whole budget, a late frame is better than none.
                transit_s = min(self._transit_s, self._budget_s / 2)
                if now - frame.arrived_at_s + transit_s <= self._budget_s:
                    self._entered_at_s.append(now)
                    return frame
                self._drops.add("late")

    def _can_decide(self) -> bool:
        """Whether `_next` can return: a frame may enter the stages, or none will come."""
        if self._interrupted or (self._closed and not self._waiting):
            return True
        return bool(self._waiting) and len(self._entered_at_s) < self.limit


def _running_mean(old: float, new: float) -> float:
    return old + _NEWEST_WEIGHT * (new - old) if old else new
