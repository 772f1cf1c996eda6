"""Waiting for events, however slow a busy machine is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

LIMIT_S = 200.0
"""Longest wait for an event. It bounds only a failing test: a busy machine may be ten times slower."""


def until(condition: Callable[[], Value], timeout_s: float = LIMIT_S) -> Value:
    """Wait until a condition is true, and return its value. AssertionError if that takes too long."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "nothing came of it in time"
        time.sleep(0.05)
    return value
