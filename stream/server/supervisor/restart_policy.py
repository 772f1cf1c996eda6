"""Decides when a process that has ended unexpectedly is started again."""

from __future__ import annotations

import signal
import time
from collections import deque
from dataclasses import dataclass

from stream.pipeline.backoff import Backoff


@dataclass(frozen=True, slots=True)
class SupervisionLimits:
    """Time limits for one camera's process, and the pauses between its restarts."""

    frozen_s: float = 10.0
    """A running process that sends no message for this long is killed."""
    start_s: float = 60.0
    """Longest wait for the first report. It also replaces `frozen_s` for a process that runs only when
    no other needs the processor."""
    finish_s: float = 15.0
    """Longest wait for the process to end after it was told to stop."""
    retry_s: float = 1.0
    """Pause after the first crash. It doubles with every further crash."""
    retry_most_s: float = 30.0
    """Longest pause that the doubling leads to."""
    healthy_s: float = 60.0
    """Once a process has run this long, earlier crashes no longer count."""
    breaker_crashes: int = 5
    breaker_window_s: float = 120.0
    """`breaker_crashes` crashes within this time open the circuit breaker."""
    breaker_s: float = 300.0
    """Pause before the next start while the breaker is open."""


class RestartPolicy:
    """Counts the crashes of one process and says how long to wait after each of them."""

    def __init__(self, limits: SupervisionLimits) -> None:
        self.restarts = 0
        """Crashes since the supervisor began."""
        self._limits = limits
        self._backoff = Backoff(limits.retry_s, limits.retry_most_s)
        self._crashes_s: deque[float] = deque(maxlen=limits.breaker_crashes)

    @property
    def recent_crashes(self) -> int:
        """Crashes since the last `reset`, up to the number that opens the breaker."""
        return len(self._crashes_s)

    def record_crash(self) -> tuple[float, bool]:
        """Count a crash. Returns the pause before the next start, in s, and whether the breaker is open."""
        now_s, limits = time.monotonic(), self._limits
        self.restarts += 1
        self._crashes_s.append(now_s)
        is_full = self.recent_crashes == limits.breaker_crashes
        if is_full and now_s - self._crashes_s[0] < limits.breaker_window_s:
            return limits.breaker_s, True
        return self._backoff.next_s(), False

    def reset(self) -> None:
        """Forget the crashes so far: the process is healthy, or has new settings."""
        self._crashes_s.clear()
        self._backoff.reset()


def describe_exit(code: int | None) -> str:
    """How a process ended, in words. `code`: its exit code; negative: the signal that ended it."""
    if code is not None and code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with code {code}; see the log"
