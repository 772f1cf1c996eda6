"""Decides what a live session gives up, and in which order, when the machine cannot keep up."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

PERIOD_S = 1.0
"""Time between two calls of `Degradation.judge`."""
_BAD_SHARE = 0.15
"""A second is bad when more than this share of its frames was dropped or exceeded the delay budget."""
_BAD_SECONDS, _OF_SECONDS = 2, 3
"""Two bad seconds of three call for the next level. A single hiccup does not."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 5.0, 300.0
"""Time without a bad second before a level is reversed. It doubles when that turns out to be too early."""
_HEALTHY_S = 60.0
"""Time without a bad second at level 0 after which the wait is the first one again."""


@dataclass(frozen=True, slots=True)
class DegradationLevel:
    """How much is given up."""

    words: str
    """The level's meaning, as text for users."""
    keyframes_only: bool = False
    """Whether faces are restored on keyframes only, and the frames between are made from these."""
    max_faces: int | None = None
    """How many faces are restored at most, the largest first; None: all."""
    passing: bool = False
    """Whether frames go out unrestored."""


LEVELS = (
    DegradationLevel("everything as set"),
    DegradationLevel("restores on keyframes only", keyframes_only=True),
    DegradationLevel("restores 4 faces at most", keyframes_only=True, max_faces=4),
    DegradationLevel("restores 2 faces at most", keyframes_only=True, max_faces=2),
    DegradationLevel("restores the largest face only", keyframes_only=True, max_faces=1),
    DegradationLevel("passes frames through", passing=True),
)


@dataclass(frozen=True, slots=True)
class PaceSample:
    """Figures of the frames of one period."""

    delivered: int
    late: int
    """Frames that were delivered later than the delay budget allows."""
    dropped: int
    """Frames that were dropped because the stages were busy."""
    faces: int
    """Faces of the newest frame that would be restored without any degradation."""

    @property
    def bad(self) -> bool:
        """Whether the machine did not keep up."""
        return self.late + self.dropped > _BAD_SHARE * (self.delivered + self.dropped)


class Degradation:
    """Goes down one level under lasting overload, and back up one level at a time after a quiet while.

    If a step up brings the overload back, it is undone, and the next one waits twice as long, so that the
    picture does not change all the time. Levels that limit the faces to no fewer than there are are skipped.
    """

    def __init__(self, give_way: bool = True) -> None:
        self._give_way = give_way
        self._number = 0
        self._faces = 0
        """Most faces seen since the session left level 0."""
        self._bad: deque[bool] = deque(maxlen=_OF_SECONDS)
        self._wait_s = _FIRST_WAIT_S
        self._quiet_since_s: float | None = None
        self._stepped_up_at_s: float | None = None
        self._settling = True
        """Whether the next sample is ignored."""

    @property
    def number(self) -> int:
        """Number of the level that holds; 0 is everything as set."""
        return self._number

    @property
    def level(self) -> DegradationLevel:
        """The level that holds."""
        return LEVELS[self._number]

    def settle(self) -> None:
        """Forget the samples so far, and ignore the next one: the stages have changed."""
        self._bad.clear()
        self._quiet_since_s, self._settling = None, True

    def judge(self, now_s: float, sample: PaceSample) -> bool:
        """Take the sample of the last second into account; returns whether the level has changed.

        `now_s` is on the monotonic clock.
        """
        if not self._give_way or self._settling:
            self._settling = False
            return False
        if not self.level.passing:
            self._faces = max(sample.faces, self._faces if self._number else 0)
        self._bad.append(sample.bad)
        if sample.bad or self._quiet_since_s is None:
            self._quiet_since_s = now_s
        if sum(self._bad) >= _BAD_SECONDS:
            return self._step_down(now_s)
        quiet_s = now_s - self._quiet_since_s
        if self._number == 0:
            if quiet_s >= _HEALTHY_S:
                self._wait_s, self._stepped_up_at_s = _FIRST_WAIT_S, None
            return False
        return quiet_s >= self._wait_s and self._step_up(now_s)

    def _step_down(self, now_s: float) -> bool:
        """Give up more; False at the last level."""
        self.settle()
        if self._number == len(LEVELS) - 1:
            return False
        stepped_up_at_s, self._stepped_up_at_s = self._stepped_up_at_s, None
        if stepped_up_at_s is not None and now_s - stepped_up_at_s < max(_HEALTHY_S, self._wait_s):
            self._wait_s = min(2 * self._wait_s, _LONGEST_WAIT_S)  # that step was too early
        self._number += 1
        while self._limits_no_face():
            self._number += 1
        return True

    def _step_up(self, now_s: float) -> bool:
        self.settle()
        self._stepped_up_at_s = now_s
        self._number -= 1
        while self._limits_no_face():
            self._number -= 1
        return True

    def _limits_no_face(self) -> bool:
        """Whether the level allows at least as many faces as there are."""
        most = self.level.max_faces
        return most is not None and most >= max(self._faces, 1)
