"""A source's own times -> times that rise strictly over jumps, wraps, gaps and reconnections."""

from __future__ import annotations

from stream.live.packets import LIVE_TIME_BASE

_TOLERANCE_S = 1.0
"""How far a source's times may lie from those of arrival: networks deliver in bursts of less."""
_TICKS = LIVE_TIME_BASE.denominator


class Timeline:
    """Times in LIVE_TIME_BASE from the first picture on; a gap in between is as long as it really was.

    Arrival times are of `time.monotonic()`, so that setting the machine's clock changes nothing.
    """

    def __init__(self) -> None:
        self._began_s: float | None = None
        self._offset_s: float | None = None
        """What is added to the source's times; None: the next picture says so."""
        self._last = self._last_sound = -1
        self.jumps = 0
        """How often the source's times did not go on from where they were."""

    def begin(self) -> None:
        """A new connection: the source may count from anywhere."""
        self._offset_s = None

    def picture(self, time_s: float | None, arrived_at_s: float) -> int:
        """The session's time of a picture; `time_s` is the source's own, None where it gives none."""
        if self._began_s is None:
            self._began_s = arrived_at_s
        elapsed_s = arrived_at_s - self._began_s
        if time_s is None:
            return self._rise(elapsed_s)
        offset_s = self._offset_s
        if offset_s is not None and self._is_jump(time_s + offset_s, elapsed_s):
            self.jumps += 1
            offset_s = None
        self._offset_s = elapsed_s - time_s if offset_s is None else offset_s
        return self._rise(time_s + self._offset_s)

    def sound(self, time_s: float | None, arrived_at_s: float) -> int | None:
        """The same for sound, on the pictures' clock; None where it has no place there."""
        if time_s is None or self._offset_s is None or self._began_s is None:
            return None
        at_s = time_s + self._offset_s
        if abs(at_s - (arrived_at_s - self._began_s)) > 2 * _TOLERANCE_S:
            return None
        at = round(at_s * _TICKS)
        if at <= self._last_sound or at < 0:
            return None
        self._last_sound = at
        return at

    def _is_jump(self, at_s: float, elapsed_s: float) -> bool:
        """Whether a picture's time lies too far from that of its arrival, or not behind the last one's."""
        return abs(at_s - elapsed_s) > _TOLERANCE_S or round(at_s * _TICKS) <= self._last

    def _rise(self, at_s: float) -> int:
        self._last = max(round(at_s * _TICKS), self._last + 1)
        return self._last
