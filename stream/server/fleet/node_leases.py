"""A node's side of its leases: what it may run, and until when. Pure logic: time is given."""

from __future__ import annotations

import math
from dataclasses import replace

from stream.server.fleet.fleet_messages import LeaseOrder, LeaseTimes, RenewalAnswer


class NodeLeases:
    """The leases of one node. Not thread-safe. Times are `time.monotonic()` of this machine.

    One renewal is under way at a time. An answer counts from the moment at which its renewal was sent, and
    only if that renewal has not been given up.
    """

    def __init__(self, times: LeaseTimes) -> None:
        self.times = times
        self.orders: dict[int, LeaseOrder] = {}
        """By lease number, those of the newest answer, with their settings."""
        self.until_s = -math.inf
        """Until then they may run."""
        self._number = 0
        self._sent_s: float | None = None
        """None: no renewal is under way."""

    def begin(self, now_s: float) -> int:
        """Begin a renewal, giving up the one before; returns the number for its report."""
        self._number += 1
        self._sent_s = now_s
        return self._number

    def is_newest(self, number: int) -> bool:
        """Whether no later renewal has begun than that of this number."""
        return number == self._number

    def take(self, number: int, answer: RenewalAnswer) -> bool:
        """Take the answer to the renewal of this number; False if that one was given up."""
        if not self.is_newest(number) or self._sent_s is None:
            return False
        known, self.orders = self.orders, {}
        for order in answer.orders:
            if order.settings is None:
                if order.number not in known:
                    continue
                order = replace(order, settings=known[order.number].settings)
            self.orders[order.number] = order
        self.until_s = self._sent_s + self.times.valid_s
        self._sent_s = None
        return True

    def may_run(self, now_s: float) -> dict[int, LeaseOrder]:
        """What may run now."""
        return self.orders if now_s < self.until_s else {}
