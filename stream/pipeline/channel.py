"""A bounded queue between two stages that can be closed and can fail.

`queue.Queue.shutdown` does not exist before Python 3.13; this is the little that is needed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import Generic, TypeVar

T = TypeVar("T")


class Overflow(Enum):
    """What `put` does when the channel is full."""

    BLOCK = "block"
    DROP_OLDEST = "drop_oldest"


class Closed(Exception):
    """The channel takes no more items, or failed: then its `error` says why."""


class Channel(Generic[T]):
    """Bounded, in order, for any number of threads.

    `close` lets the reader drain what is there. `fail` wakes both sides at once: they get Closed,
    and the first error stays in `error`, with its traceback, for whoever owns the threads.
    `dropped` counts what DROP_OLDEST threw away.
    """

    def __init__(self, capacity: int, overflow: Overflow = Overflow.BLOCK) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        self.dropped = 0
        self._capacity, self._overflow = capacity, overflow
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.error: BaseException | None = None

    def put(self, item: T) -> None:
        """Append; blocks or drops when full. Raises Closed after `close` or `fail`."""
        with self._changed:
            if self._overflow is Overflow.BLOCK:
                self._changed.wait_for(lambda: len(self._items) < self._capacity or self._over())
            if self._over():
                raise Closed
            if len(self._items) >= self._capacity:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        """Items until the channel is closed and empty; raises Closed after `fail`."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._over())
                if self.error is not None:
                    raise Closed
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item

    def __len__(self) -> int:
        return len(self._items)

    def close(self) -> None:
        """No more items will come (or are wanted). Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Wake both sides with an error; the first one stays."""
        with self._changed:
            self.error = self.error or error
            self._items.clear()
            self._changed.notify_all()

    def _over(self) -> bool:
        return self._closed or self.error is not None
