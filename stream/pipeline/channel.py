"""A bounded queue between two stages that can be closed and can fail.

`queue.Queue.shutdown` exists only from Python 3.13 on.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import Generic, TypeVar

T = TypeVar("T")


class Overflow(Enum):
    """The behaviour of `put` when the channel is full."""

    BLOCK = "block"
    DROP_OLDEST = "drop_oldest"


class ChannelClosed(Exception):
    """The channel accepts no more items, or it has failed; then `Channel.error` says why."""


class Channel(Generic[T]):
    """A bounded queue in order, for any number of threads.

    After `close` readers still get the items that are in the channel. After `fail` readers and writers
    get ChannelClosed at once.
    """

    def __init__(self, capacity: int, overflow: Overflow = Overflow.BLOCK) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        self.dropped = 0
        """Items that DROP_OLDEST has dropped."""
        self._capacity, self._overflow = capacity, overflow
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.error: BaseException | None = None
        """The first error that `fail` was called with."""

    def put(self, item: T) -> None:
        """Append an item; a full channel blocks or drops. Raises ChannelClosed after `close` or `fail`."""
        with self._changed:
            if self._overflow is Overflow.BLOCK:
                self._changed.wait_for(lambda: len(self._items) < self._capacity or self._has_ended())
            if self._has_ended():
                raise ChannelClosed
            if len(self._items) >= self._capacity:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        """Items until the channel is closed and empty. Raises ChannelClosed after `fail`."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._has_ended())
                if self.error is not None:
                    raise ChannelClosed
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item

    def __len__(self) -> int:
        return len(self._items)

    def close(self) -> None:
        """Accept no more items, because none will come or none is wanted. May be called again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Drop all items and wake readers and writers; the first error is kept."""
        with self._changed:
            self.error = self.error or error
            self._items.clear()
            self._changed.notify_all()

    def _has_ended(self) -> bool:
        return self._closed or self.error is not None
