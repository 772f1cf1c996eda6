"""Whose crops are next: shares by priority, as stride scheduling gives them (Waldspurger, 1995)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

Client = TypeVar("Client", bound=Hashable)


class Fair(Generic[Client]):
    """Every client has a pass that grows by work over priority; the lowest is next.

    Work is counted in seconds of the network's time, so that a large network is no way to a larger share.
    """

    def __init__(self) -> None:
        self._passes: dict[Client, float] = {}
        self._strides: dict[Client, float] = {}
        """The last growth of each pass."""
        self._now = 0.0
        """Pass of the one that was served last."""

    def order(self, waiting: Iterable[Client]) -> list[Client]:
        """Those who wait, the next one first. Who was away comes back with a claim to one turn at most."""
        clients = list(waiting)
        for client in clients:
            least = self._now - self._strides.get(client, 0.0)
            self._passes[client] = max(self._passes.get(client, least), least)
        return sorted(clients, key=self._passes.__getitem__)

    def charge(self, client: Client, work_s: float, priority: float, turn: bool = True) -> None:
        """`work_s` was done for a client, in its own `turn` or along with another's."""
        start = self._passes.get(client, self._now)
        if turn:
            self._now = max(self._now, start)
        self._strides[client] = work_s / priority
        self._passes[client] = start + work_s / priority

    def precedes(self, client: Client, other: Client) -> bool:
        """Whether `client` would be served before `other`, were it waiting too."""
        return self._passes.get(client, self._now) < self._passes.get(other, self._now)

    def forget(self, client: Client) -> None:
        """It will not come back."""
        self._passes.pop(client, None)
        self._strides.pop(client, None)
