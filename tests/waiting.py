"""Waiting for events, however slow a busy machine is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def until(condition: Callable[[], Value], timeout_s: float = 100) -> Value:
    """Wait until a condition is true, and return its value. AssertionError if that takes too long."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "nothing came of it in time"
        time.sleep(0.05)
    return value
