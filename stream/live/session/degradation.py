"""What gives way, and in which order, when a machine cannot keep up with a live picture."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

PERIOD_S = 1.0
"""`Degradation.judge` is asked so often."""
_BAD = 0.15
"""A second is bad when more than this part of its frames was dropped, or came out over the budget."""
_BAD_OF = 2, 3
"""So many bad seconds of the last so many call for the next level: one hiccup does not."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 5.0, 300.0
"""Of good seconds before a level is taken back; doubled each time that turns out too early."""
_HEALTHY_S = 60.0
"""After so long without trouble the wait is the first one again."""


@dataclass(frozen=True, slots=True)
class DegradationLevel:
    """How much is given up."""

    words: str
    sparing: bool = False
    """Restored on keyframes only, carried between."""
    faces: int | None = None
    """At most so many, largest first."""
    passing: bool = False
    """Frames go out as they came."""


LEVELS = (
    DegradationLevel("everything as set"),
    DegradationLevel("restores on keyframes only", sparing=True),
    DegradationLevel("restores 4 faces at most", sparing=True, faces=4),
    DegradationLevel("restores 2 faces at most", sparing=True, faces=2),
    DegradationLevel("restores the largest face only", sparing=True, faces=1),
    DegradationLevel("passes frames through", passing=True),
)


@dataclass(frozen=True, slots=True)
class PaceSample:
    """What happened since the last judgement."""

    delivered: int
    late: int
    """Of those delivered: over the budget."""
    dropped: int
    """Because the stages were busy."""
    faces: int
    """Most faces restored or carried in one frame."""

    @property
    def bad(self) -> bool:
        """Whether the machine did not keep up."""
        return self.late + self.dropped > _BAD * (self.delivered + self.dropped)


class Degradation:
    """Steps down one level under lasting overload, back up one at a time after a quiet while.

    A step up that brings the trouble back is taken back, and the next one waits twice as long: the
    picture never pumps. Levels that change nothing for the faces there are are left out.
    """

    def __init__(self, give_way: bool = True) -> None:
        self._give_way = give_way
        self._at = 0
        self._faces = 0
        self._last: deque[bool] = deque(maxlen=_BAD_OF[1])
        self._wait_s = _FIRST_WAIT_S
        self._quiet_since_s: float | None = None
        self._rose_at_s: float | None = None
        self._settling = True

    @property
    def at(self) -> int:
        """The level's number, 0 for everything as set."""
        return self._at

    @property
    def level(self) -> DegradationLevel:
        """What holds now."""
        return LEVELS[self._at]

    def settle(self) -> None:
        """The stages have changed: what was seen so far, and in the next second, says nothing of them."""
        self._last.clear()
        self._quiet_since_s, self._settling = None, True

    def judge(self, now_s: float, second: PaceSample) -> bool:
        """Once a second, `now_s` monotonic; whether the level has changed."""
        if not self._give_way or self._settling:
            self._settling = False
            return False
        if not self.level.passing:
            self._faces = max(second.faces, self._faces if self._at else 0)
        self._last.append(second.bad)
        if second.bad or self._quiet_since_s is None:
            self._quiet_since_s = now_s
        if sum(self._last) >= _BAD_OF[0]:
            return self._step_down(now_s)
        quiet_s = now_s - self._quiet_since_s
        if self._at == 0:
            if quiet_s >= _HEALTHY_S:
                self._wait_s, self._rose_at_s = _FIRST_WAIT_S, None
            return False
        return quiet_s >= self._wait_s and self._step_up(now_s)

    def _step_down(self, now_s: float) -> bool:
        self.settle()
        if self._at == len(LEVELS) - 1:
            return False
        too_early = self._rose_at_s is not None and now_s - self._rose_at_s < max(_HEALTHY_S, self._wait_s)
        if too_early:
            self._wait_s = min(2 * self._wait_s, _LONGEST_WAIT_S)
        self._rose_at_s = None
        self._at += 1
        while self._spares_no_face():
            self._at += 1
        return True

    def _step_up(self, now_s: float) -> bool:
        self.settle()
        self._rose_at_s = now_s
        self._at -= 1
        while self._spares_no_face():
            self._at -= 1
        return True

    def _spares_no_face(self) -> bool:
        """Whether the level's limit of faces is not below the faces there are."""
        most = self.level.faces
        return most is not None and most >= max(self._faces, 1)
