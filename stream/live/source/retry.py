"""When a lost source is tried again."""

from __future__ import annotations

import random
from collections import deque

SLOW_S = 15.0
"""Pause after an answer that waiting does not mend: a wrong path, a wrong password."""
BREAKER_S = 30.0
"""Pause for a source that connects and fails over and over."""
_SHORT_LIFE_S = 1.0
_LIVES = 8
"""So many short lives within `_HEALTHY_S` open the breaker."""
_HEALTHY_S = 60.0
_SHARE = 0.1
"""A pause, as a share of how long the outage has lasted: after ten seconds it is one, so that a source
is found within three of its return, its opening included."""


class Retry:
    """Pauses that grow with the outage, with jitter. A healthy minute makes everything as new."""

    def __init__(self, least_s: float, most_s: float) -> None:
        self._least_s, self._most_s = least_s, max(least_s, most_s)
        self._lost_at_s: float | None = None
        self._short: deque[float] = deque(maxlen=_LIVES)
        self.broken = False
        """Whether the breaker is open."""

    def lived(self, began_at_s: float, ended_at_s: float) -> None:
        """A connection brought pictures from then till then, and is lost."""
        life_s = ended_at_s - began_at_s
        if life_s >= _HEALTHY_S:
            self._short.clear()
            self.broken = False
        if life_s >= _SHORT_LIFE_S:
            self._lost_at_s = None
            return
        self._short.append(ended_at_s)
        if len(self._short) == _LIVES and ended_at_s - self._short[0] < _HEALTHY_S:
            self.broken = True

    def pause_s(self, now_s: float, slow: bool = False) -> float:
        """How long to wait, after a failure at `now_s`."""
        if self._lost_at_s is None:
            self._lost_at_s = now_s
        if self.broken:
            return BREAKER_S * random.uniform(0.8, 1.2)
        if slow:
            return max(SLOW_S, self._most_s) * random.uniform(0.8, 1.2)
        pause_s = min(self._most_s, max(self._least_s, (now_s - self._lost_at_s) * _SHARE))
        return max(self._least_s, pause_s * random.uniform(0.7, 1.0))
