"""Waiting for what happens, however long a busy machine takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def until(condition: Callable[[], Value], timeout_s: float = 100) -> Value:
    """What a condition gives once it is true; AssertionError where it does not become true in time."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "nothing came of it in time"
        time.sleep(0.05)
    return value
