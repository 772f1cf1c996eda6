"""Pauses between attempts that grow while the attempts fail."""

from __future__ import annotations

_HEALTHY_S = 60.0


class Backoff:
    """Pauses that double from `first_s` up to `longest_s`, both in seconds."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self._pause_s = first_s

    def next_s(self) -> float:
        """The pause to make now, in seconds; the next one is twice as long."""
        pause_s = self._pause_s
        self._pause_s = min(2 * pause_s, self._longest_s)
        return pause_s

    def next_attempt_s(self, now_s: float, healthy_since_s: float) -> float:
        """The time of the next attempt after a failure at `now_s`; both times are on the monotonic clock.

        `healthy_since_s` is the beginning of the time without failures that ends now. After a minute
        of it the pauses begin with the first one again.
        """
        if now_s - healthy_since_s > _HEALTHY_S:
            self.reset()
        return now_s + self.next_s()

    def reset(self) -> None:
        """Begin with the first pause again."""
        self._pause_s = self._first_s
