"""Where live frames enter the pipeline: the freshest wins, and no more wait than the delay budget allows."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator

from stream.live.status import Drops
from stream.picture.face import FrameWork
from stream.picture.frame import Frame

_SPARE = 0.8
"""Part of the budget that waiting may take up by plan; the rest is for the sink and for chance."""
_NEWEST = 0.2
"""Weight of the newest reading in a running mean."""


class Inlet:
    """Frames that wait for the first stage: DROP_OLDEST, and never more than the pipeline has room for.

    Room is counted from here to the sink: a frame leaves it by `done`. So no queue behind can grow:
    what waits anywhere, at most `in_flight` frames, is kept to what comes out at the other end within
    the budget at the pace seen lately; the newest frame always has a place. A queue of a few frames
    it must be: a frame on which the detector runs takes ten times as long as one between, and no
    other frame should be lost to that. Drops are counted as `overrun` (a fresher one came) and
    `late` (too old to come out within the budget when its turn came); `failed`: lost with a stage.
    """

    def __init__(self, in_flight: int, budget_s: float, drops: Drops) -> None:
        self.in_flight, self._budget_s, self._drops = in_flight, budget_s, drops
        self._waiting: deque[Frame] = deque()
        self._entered: deque[float] = deque()
        """When those that the stages have were taken; order is kept, so the first is done first."""
        self._pace_s = self._way_s = 0.0
        """From frame to frame out of busy stages, and from one end of them to the other."""
        self._done_s: float | None = None
        """When the last frame came out, if others were still on their way."""
        self._changed = threading.Condition()
        self._closed = self._left = False

    @property
    def limit(self) -> int:
        """How many frames may be here and in the stages together."""
        if self._pace_s <= 0:
            return self.in_flight
        return max(1, min(self.in_flight, int(_SPARE * self._budget_s / self._pace_s)))

    def put(self, frame: Frame) -> None:
        """The source's next frame; never blocks."""
        with self._changed:
            if self._closed:
                return
            while self._waiting and len(self._waiting) + len(self._entered) >= self.limit:
                self._waiting.popleft()
                self._drops.add("overrun")
            self._waiting.append(frame)
            self._changed.notify_all()

    def close(self) -> None:
        """The source has ended: `works` ends after the frames that are still here."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether the source has ended."""
        return self._closed

    def leave(self) -> None:
        """End `works` as it is; another pipeline may read on. From any thread."""
        with self._changed:
            self._left = True
            self._changed.notify_all()

    @property
    def cut_short(self) -> bool:
        """See `Feed.cut_short`."""
        return self._left

    def works(self) -> Iterator[FrameWork]:
        """Frames for the first stage of one pipeline, oldest first."""
        with self._changed:
            if self._entered:
                self._drops.add("failed", len(self._entered))
            self._entered.clear()
            self._pace_s, self._way_s, self._done_s, self._left = 0.0, 0.0, None, False
        while (frame := self._next()) is not None:
            yield FrameWork(frame)

    def done(self) -> None:
        """A frame has come out at the other end."""
        with self._changed:
            now = time.monotonic()
            way_s = now - self._entered.popleft()
            self._way_s = _mean(self._way_s, way_s)
            if self._done_s is not None:
                self._pace_s = _mean(self._pace_s, now - self._done_s)
            elif self.limit == 1:  # alone on its way: the pace is no slower than that
                self._pace_s = _mean(self._pace_s, way_s)
            self._done_s = now if self._entered else None
            self._changed.notify_all()

    def _next(self) -> Frame | None:
        with self._changed:
            while True:
                self._changed.wait_for(self._decided)
                if self._left or not self._waiting:
                    return None
                frame, now = self._waiting.popleft(), time.monotonic()
                # Where even the way alone takes that long, a late frame is better than none.
                way_s = min(self._way_s, self._budget_s / 2)
                if now - frame.arrived_at_s + way_s <= self._budget_s:
                    self._entered.append(now)
                    return frame
                self._drops.add("late")

    def _decided(self) -> bool:
        if self._left or (self._closed and not self._waiting):
            return True
        return bool(self._waiting) and len(self._entered) < self.limit


def _mean(old: float, new: float) -> float:
    return old + _NEWEST * (new - old) if old else new
