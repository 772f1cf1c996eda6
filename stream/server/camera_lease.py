"""A camera's lease in a fleet: until when this machine may run it, which is put off again and again."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass

FINISH_S = 1.0
"""So long before its end a camera is told to finish."""
_AT_ONCE_S = 1e-6


@dataclass(slots=True)
class CameraLease:
    """The lease of one camera. It is shared by all who keep the camera running, and changes."""

    number: int
    """The fencing token: no other lease has or had this number. It is part of the names of recordings."""
    until_s: float
    """`time.monotonic()` of this machine at which the camera's process has to be gone."""

    def left_s(self) -> float:
        """Time until its end, in seconds; negative after it."""
        return self.until_s - time.monotonic()

    def is_ending(self) -> bool:
        """Whether the camera has to finish, or must not start."""
        return self.left_s() < FINISH_S


def end_this_process_at(until_s: float) -> None:
    """Have the kernel end this process at that `time.monotonic()`, unless it is called again before.

    The kernel's timer does it, not a thread: it ends a process that hangs in a library, and one whose
    supervisor hangs or is gone.
    """
    signal.setitimer(signal.ITIMER_REAL, max(until_s - time.monotonic(), _AT_ONCE_S))


def prepare_to_end() -> None:
    """Have the timer's signal end this process; to be called once, in the main thread."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
