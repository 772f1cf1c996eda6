"""Niceness of cameras' processes: one that starts, restarts or floods must not slow a healthy one."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from functools import cache
from pathlib import Path

from stream.pipeline.processes import start_thread

IDLE_NICENESS = 15
"""Least niceness of processes in the scheduler's idle class: any other process that wakes runs at once.

An ordinary process, however nice it is, would keep a core for some ms at each step of another's picture.
"""
_STARTING_NICENESS = 10
"""Niceness of a camera that starts or restarts."""
_SETTLING_S = 10.0
"""After a change the niceness is set again for this long: threads that were just being started may have
inherited the old one."""


class CameraNiceness:
    """The niceness of one camera's process, over all its restarts."""

    def __init__(self) -> None:
        self.value = 0
        """Niceness above that of the server."""
        self._settling_until_s = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether the process runs only when no other needs the processor."""
        return self.value >= IDLE_NICENESS

    def start(self, recent_crashes: int) -> int:
        """The niceness for a new process.

        Where niceness cannot be lowered again only a camera that has crashed gets a higher one.
        """
        self.value = (
            _STARTING_NICENESS if can_lower_niceness() else min(_STARTING_NICENESS, 2 * recent_crashes)
        )
        return self.value

    def adjust(self, pid: int, floods: bool) -> None:
        """Set the niceness of a process that runs; called once a second.

        `floods`: whether its source sends far more than it announces.
        """
        wanted, now_s = IDLE_NICENESS if floods else 0, time.monotonic()
        if wanted != self.value and (wanted > self.value or can_lower_niceness()):
            self.value, self._settling_until_s = wanted, now_s + _SETTLING_S
        if now_s < self._settling_until_s:
            set_niceness(pid, self.value)


@cache
def can_lower_niceness() -> bool:
    """Whether a process whose niceness was raised can be given the old one back.

    Root may, and a service with LimitNICE of systemd. This is tried on a thread that ends afterwards.
    """
    answers: list[bool] = []

    def try_it() -> None:
        try:
            thread_id = threading.get_native_id()
            before = os.getpriority(os.PRIO_PROCESS, thread_id)
            os.setpriority(os.PRIO_PROCESS, thread_id, before + 1)
            os.setpriority(os.PRIO_PROCESS, thread_id, before)
            answers.append(True)
        except OSError:
            answers.append(False)

    if not Path("/proc/self/task").is_dir():  # niceness belongs to threads on Linux only
        return False
    start_thread("niceness", try_it).join()
    return answers == [True]


def set_niceness(pid: int, nice: int) -> None:
    """Set the niceness of all threads of a process and of its children, above that of this process.

    From `IDLE_NICENESS` on they run in the scheduler's idle class. Threads that have ended, or that this
    process may not change, are skipped.
    """
    is_idle = nice >= IDLE_NICENESS
    nice += os.getpriority(os.PRIO_PROCESS, os.getpid())
    for process_id in process_tree(pid):
        for thread_id in _threads(process_id):
            with contextlib.suppress(OSError):
                _set_thread(thread_id, nice, is_idle)


def _set_thread(thread_id: int, nice: int, is_idle: bool) -> None:
    if os.getpriority(os.PRIO_PROCESS, thread_id) != nice:
        os.setpriority(os.PRIO_PROCESS, thread_id, nice)
    if hasattr(os, "SCHED_IDLE"):
        policy = os.SCHED_IDLE if is_idle else os.SCHED_OTHER
        if os.sched_getscheduler(thread_id) != policy:
            os.sched_setscheduler(thread_id, policy, os.sched_param(0))


def _threads(pid: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return [pid]


def process_tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for process_id in found:  # the list grows during this loop
        for thread_id in _threads(process_id):
            with contextlib.suppress(OSError):
                found += map(int, Path(f"/proc/{process_id}/task/{thread_id}/children").read_text().split())
    return found
