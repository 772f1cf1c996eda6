"""Pauses between attempts that grow while the attempts fail."""

from __future__ import annotations

_FIRST_PAUSE_S = 1.0
_HEALTHY_S = 60.0


class Backoff:
    """Doubles the pause with each failure, up to `longest_s`; a minute without a failure resets it to 1 s."""

    def __init__(self, longest_s: float) -> None:
        self._longest_s, self._pause_s = longest_s, _FIRST_PAUSE_S

    def next_attempt_s(self, now_s: float, healthy_since_s: float) -> float:
        """When to try again after a failure at `now_s`; both times are on the monotonic clock.

        `healthy_since_s` is the beginning of the time without failures that ends now.
        """
        if now_s - healthy_since_s > _HEALTHY_S:
            self._pause_s = _FIRST_PAUSE_S
        at_s = now_s + self._pause_s
        self._pause_s = min(2 * self._pause_s, self._longest_s)
        return at_s
