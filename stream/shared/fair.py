"""Whose crops are next: shares by priority, as stride scheduling gives them (Waldspurger, 1995)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable


class Fair:
    """Every client has a pass that grows by work over priority; the lowest is next."""

    def __init__(self) -> None:
        self._passes: dict[Hashable, float] = {}
        self._now = 0.0

    def order(self, waiting: Iterable[Hashable]) -> list[Hashable]:
        """Those who wait, the next one first. Who was away gets no more than its turn for it."""
        clients = list(waiting)
        for client in clients:
            self._passes[client] = max(self._passes.get(client, self._now), self._now)
        return sorted(clients, key=self._passes.__getitem__)

    def charge(self, client: Hashable, work: float, priority: float) -> None:
        """`work` was done for a client."""
        start = self._passes.get(client, self._now)
        self._now = max(self._now, start)
        self._passes[client] = start + work / priority

    def forget(self, client: Hashable) -> None:
        """It will not come back."""
        self._passes.pop(client, None)
