"""Who gives way on the processor: a camera that starts, restarts or floods, not a healthy one."""

from __future__ import annotations

import os
import threading
from functools import cache
from pathlib import Path

from stream.pipeline.processes import start_thread

IDLE_FROM = 15
"""Niceness from which a process runs in the scheduler's idle class: whoever else wakes runs at once.

However nice it is, an ordinary one keeps a core for some ms more, at each step of another's picture.
"""


@cache
def can_be_lifted() -> bool:
    """Whether a process that gave way may come back (root, or LimitNICE of systemd).

    Tried on a thread of our own, whose niceness ends with it.
    """
    answers: list[bool] = []

    def attempt() -> None:
        try:
            number = threading.get_native_id()
            before = os.getpriority(os.PRIO_PROCESS, number)
            os.setpriority(os.PRIO_PROCESS, number, before + 1)
            os.setpriority(os.PRIO_PROCESS, number, before)
            answers.append(True)
        except OSError:
            answers.append(False)

    if not Path("/proc/self/task").is_dir():  # niceness belongs to threads on Linux only
        return False
    start_thread("niceness", attempt).join()
    return answers == [True]


def set_niceness(pid: int, nice: int) -> None:
    """Of a process and its children, all threads, above our own; where it may not be set it stays.

    See `IDLE_FROM`.
    """
    is_idle = nice >= IDLE_FROM
    nice += os.getpriority(os.PRIO_PROCESS, os.getpid())
    for number in _tree(pid):
        for task in _tasks(number):
            try:
                if os.getpriority(os.PRIO_PROCESS, task) != nice:
                    os.setpriority(os.PRIO_PROCESS, task, nice)
                if hasattr(os, "SCHED_IDLE"):
                    policy = os.SCHED_IDLE if is_idle else os.SCHED_OTHER
                    if os.sched_getscheduler(task) != policy:
                        os.sched_setscheduler(task, policy, os.sched_param(0))
            except OSError:  # gone, or not allowed
                continue


def _tasks(pid: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return [pid]


def _tree(pid: int) -> list[int]:
    found = [pid]
    for number in found:  # grows while it is walked
        for task in _tasks(number):
            try:
                found += map(int, Path(f"/proc/{number}/task/{task}/children").read_text().split())
            except OSError:
                continue
    return found
