"""Turns a source's own times into times that rise strictly over jumps, wraps, gaps and reconnections."""

from __future__ import annotations

from stream.live.packets import LIVE_TIME_BASE

_TOLERANCE_S = 1.0
"""How far a picture's time may lie from its arrival: bursts of a network are shorter."""
_TICKS = LIVE_TIME_BASE.denominator


class Timeline:
    """Gives pictures and sound their times, in units of LIVE_TIME_BASE from the first picture on.

    A gap between connections lasts as long as it really did. Arrival times come from `time.monotonic()`,
    so that setting the machine's clock changes nothing.
    """

    def __init__(self) -> None:
        self._began_s: float | None = None
        self._offset_s: float | None = None
        """Offset that is added to the source's times; None: the next picture sets it."""
        self._last = self._last_sound = -1

    def begin(self) -> None:
        """A connection begins: the source may count from any time."""
        self._offset_s = None

    def picture_pts(self, time_s: float | None, arrived_at_s: float) -> int:
        """The time of a picture. `time_s` is on the source's clock; None where the source gives no time."""
        if self._began_s is None:
            self._began_s = arrived_at_s
        elapsed_s = arrived_at_s - self._began_s
        if time_s is None:
            return self._after_last(elapsed_s)
        offset_s = self._offset_s
        if offset_s is not None and self._is_jump(time_s + offset_s, elapsed_s):
            offset_s = None
        self._offset_s = elapsed_s - time_s if offset_s is None else offset_s
        return self._after_last(time_s + self._offset_s)

    def sound_pts(self, time_s: float | None, arrived_at_s: float) -> int | None:
        """The time of a packet of sound beside the pictures; None where it cannot be placed there."""
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
        """Whether a picture's time lies too far from its arrival, or not after the last picture's time."""
        return abs(at_s - elapsed_s) > _TOLERANCE_S or round(at_s * _TICKS) <= self._last

    def _after_last(self, at_s: float) -> int:
        self._last = max(round(at_s * _TICKS), self._last + 1)
        return self._last
