"""How long to wait before a failed connection is tried again."""

from __future__ import annotations

import random
from collections import deque

SLOW_S = 15.0
"""Pause after an answer that waiting does not change, such as a wrong path or a wrong password."""
BREAKER_S = 30.0
"""Pause while the circuit breaker is open: connections begin and fail again and again."""
_SHORT_S = 1.0
"""A connection that brought pictures for less than this counts towards the breaker."""
_MOST_SHORT = 8
"""Number of short connections within `_HEALTHY_S` that opens the breaker."""
_HEALTHY_S = 60.0
"""A connection of this length closes the breaker."""
_PAUSE_SHARE = 0.1
"""Pause divided by the length of the outage.

After an outage of 10 s the pause is 1 s, so that a source is live within 3 s of its return, the time to
open it included.
"""


class Retry:
    """Pauses that grow with the length of the outage, with jitter, and a circuit breaker."""

    def __init__(self, least_s: float, most_s: float) -> None:
        self._least_s, self._most_s = least_s, max(least_s, most_s)
        self._lost_at_s: float | None = None
        """When the outage began; None while there is none."""
        self._short_ends: deque[float] = deque(maxlen=_MOST_SHORT)
        """When the last short connections ended."""
        self.breaker_is_open = False

    def connection_ended(self, began_at_s: float, ended_at_s: float) -> None:
        """A connection that worked from `began_at_s` to `ended_at_s` (`time.monotonic()`) is lost."""
        length_s = ended_at_s - began_at_s
        if length_s >= _HEALTHY_S:
            self._short_ends.clear()
            self.breaker_is_open = False
        if length_s >= _SHORT_S:
            self._lost_at_s = None
            return
        self._short_ends.append(ended_at_s)
        if len(self._short_ends) == _MOST_SHORT and ended_at_s - self._short_ends[0] < _HEALTHY_S:
            self.breaker_is_open = True

    def pause_s(self, now_s: float, slow: bool = False) -> float:
        """How long to wait after a failure at `now_s`; `slow`: another attempt soon is pointless."""
        if self._lost_at_s is None:
            self._lost_at_s = now_s
        if self.breaker_is_open:
            return BREAKER_S * random.uniform(0.8, 1.2)
        if slow:
            return max(SLOW_S, self._most_s) * random.uniform(0.8, 1.2)
        pause_s = min(self._most_s, max(self._least_s, (now_s - self._lost_at_s) * _PAUSE_SHARE))
        return max(self._least_s, pause_s * random.uniform(0.7, 1.0))
