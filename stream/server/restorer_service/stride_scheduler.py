"""Chooses whose crops are restored next: shares by priority, by stride scheduling (Waldspurger, 1995)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

Client = TypeVar("Client", bound=Hashable)


class StrideScheduler(Generic[Client]):
    """Gives each client a pass, which grows by work divided by priority; the lowest pass is next.

    Work is the time that the network computes, in seconds: a large network gets no larger share.
    """

    def __init__(self) -> None:
        self._passes: dict[Client, float] = {}
        self._strides: dict[Client, float] = {}
        """The last growth of each pass."""
        self._now = 0.0
        """Pass of the client that was served last."""

    def order(self, waiting: Iterable[Client]) -> list[Client]:
        """The clients that wait, the next one first.

        A client that did not wait for a while may be served once before the others, not more often.
        """
        clients = list(waiting)
        for client in clients:
            least = self._now - self._strides.get(client, 0.0)
            self._passes[client] = max(self._passes.get(client, least), least)
        return sorted(clients, key=self._passes.__getitem__)

    def charge(self, client: Client, work_s: float, priority: float, own_turn: bool = True) -> None:
        """Count work that was done for a client.

        `own_turn`: whether the client was the next one; False: its work was done along with another's.
        """
        start = self._passes.get(client, self._now)
        if own_turn:
            self._now = max(self._now, start)
        self._strides[client] = work_s / priority
        self._passes[client] = start + work_s / priority

    def precedes(self, client: Client, other: Client) -> bool:
        """Whether `client` would be served before `other` if both waited."""
        return self._passes.get(client, self._now) < self._passes.get(other, self._now)

    def remove(self, client: Client) -> None:
        """Forget a client that will not come back."""
        self._passes.pop(client, None)
        self._strides.pop(client, None)
