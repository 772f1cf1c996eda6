"""The signals that ask a program to end."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGBREAK")
END_SIGNALS: tuple[signal.Signals, ...] = tuple(
    signal.Signals[name] for name in _NAMES if name in signal.Signals.__members__
)
"""Ctrl-C, `kill`, the terminal closes, Ctrl-\\, and Ctrl-Break on Windows; those that the system has."""
TERMINAL_SIGNALS = tuple(one for one in END_SIGNALS if one is not signal.SIGTERM)
"""Those that a terminal sends to all processes that it runs in the foreground."""
HANG_UP: signal.Signals | None = signal.Signals.__members__.get("SIGHUP")
"""The terminal closes; None where the system has no such signal."""


@contextmanager
def handle_end_signals(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Call `handler` for every signal that asks the program to end; afterwards all is as it was before.

    SIGHUP and SIGQUIT stay ignored where the caller has them ignored, as `nohup` and a shell's `&` do.
    """
    ignorable = [one for one in END_SIGNALS if one not in (signal.SIGINT, signal.SIGTERM)]
    wanted = [
        one for one in END_SIGNALS if one not in ignorable or signal.getsignal(one) is not signal.SIG_IGN
    ]
    old = {one: signal.signal(one, handler) for one in wanted}
    try:
        yield
    finally:
        for one, before in old.items():
            signal.signal(one, before)
