"""Where live frames enter the pipeline: the freshest wins, and only so many are worked on at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from stream.face import FrameWork
from stream.frame import Frame
from stream.status import Drops


class Inlet:
    """Holds the newest frame (capacity 1, DROP_OLDEST) until there is room for it in the pipeline.

    A frame leaves the room that it took by `done`. So no queue behind can grow: what waits there,
    at most `in_flight` frames, is what the delay budget allows. `limit` may be set lower than that
    where the stages turn out to be slow. Drops are counted as `overrun` (a fresher one came) and
    `late` (older than the budget when its turn came).
    """

    def __init__(self, in_flight: int, budget_s: float, drops: Drops) -> None:
        self.in_flight, self._budget_s, self._drops = in_flight, budget_s, drops
        self.limit = in_flight
        self._newest: Frame | None = None
        self._inside = 0
        self._changed = threading.Condition()
        self._closed = self._left = False

    @property
    def inside(self) -> int:
        """Frames between here and the sink."""
        return self._inside

    def put(self, frame: Frame) -> None:
        """The source's next frame; never blocks."""
        with self._changed:
            if self._closed:
                return
            if self._newest is not None:
                self._drops.add("overrun")
            self._newest = frame
            self._changed.notify_all()

    def close(self) -> None:
        """The source has ended: `works` ends after the frame that is still here."""
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

    def works(self) -> Iterator[FrameWork]:
        """Frames for the first stage of one pipeline, each the newest there is."""
        with self._changed:
            self._inside, self._left = 0, False
        while (frame := self._next()) is not None:
            yield FrameWork(frame)

    def done(self) -> None:
        """A frame has come out at the other end."""
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def _next(self) -> Frame | None:
        with self._changed:
            while True:
                self._changed.wait_for(self._decided)
                if self._left or self._newest is None:
                    return None
                frame, self._newest = self._newest, None
                if time.monotonic() - frame.arrived_at_s <= self._budget_s:
                    self._inside += 1
                    return frame
                self._drops.add("late")

    def _decided(self) -> bool:
        if self._left or (self._closed and self._newest is None):
            return True
        return self._newest is not None and self._inside < self.limit


def room(budget_s: float, stage_s: list[float], most: int) -> int:
    """How many frames may be on their way for the last of them to keep the budget, 1 to `most`.

    Stages run one after another for a frame, and side by side for several: a frame that finds n
    others waits at most n times for the slowest stage.
    """
    slowest = max(stage_s, default=0.0)
    if slowest <= 0:
        return most
    return max(1, min(most, 1 + int((budget_s - sum(stage_s)) / slowest)))
