"""Pauses between attempts that keep failing."""

from __future__ import annotations


class Backoff:
    """Pauses that double from `first_s` up to `longest_s`."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self._pause_s = first_s

    def next_s(self) -> float:
        """The pause to make now, in seconds; the next one is twice as long."""
        pause_s = self._pause_s
        self._pause_s = min(2 * pause_s, self._longest_s)
        return pause_s

    def reset(self) -> None:
        """Begin with the first pause again."""
        self._pause_s = self._first_s
