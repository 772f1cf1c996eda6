"""What waits in the camera's process for one sink: bounded, and putting never blocks."""

from __future__ import annotations

import threading
import time
from collections import deque
from enum import Enum

from stream.live.packets import Finish, Jpeg, Message, Packet, Raw, Snapshot, Start

_MOST_BYTES = 64 << 20
_MOST_SNAPSHOTS = 16


class BacklogOverflow(Enum):
    """Which packets are dropped when the backlog is full; always up to the next keyframe."""

    DROP_NEW = "drop_new"
    """For recordings: what waits is kept, the gap is as short as can be."""
    DROP_WAITING = "drop_waiting"
    """For viewers: what waits is stale, the picture goes on with a fresh keyframe."""


class Backlog:
    """The queue to a sink. It is full where the oldest message has waited for `held_s`, or too many bytes
    wait. Of pictures (Jpeg, Raw) only the newest waits. Every frame dropped is counted.
    """

    def __init__(self, held_s: float, overflow: BacklogOverflow) -> None:
        self.dropped = 0
        """Pictures; sound is not counted."""
        self.gate_shut = True
        """Packets are dropped: a keyframe is waited for."""
        self._held_s, self._overflow = held_s, overflow
        self._items: deque[tuple[float, Message | Finish]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._closed = False

    @property
    def needs_keyframe(self) -> bool:
        """Whether a keyframe would be let in, and nothing else."""
        with self._changed:
            return self.gate_shut and not self._is_full()

    def put(self, message: Message) -> None:
        """Append or drop; returns at once."""
        with self._changed:
            if self._closed or not self._admits(message):
                self.dropped += counts(message)
                return
            self._items.append((time.monotonic(), message))
            self._bytes += _size(message)
            self._changed.notify()

    def finish(self, order: Finish) -> None:
        """One last item, whatever waits; nothing is taken afterwards."""
        with self._changed:
            self._items.append((time.monotonic(), order))
            self._closed = True
            self._changed.notify()

    def abandon(self) -> None:
        """Drop what waits, and wake the reader for good."""
        with self._changed:
            self.dropped += sum(counts(message) for _, message in self._items)
            self._items.clear()
            self._closed = True
            self._changed.notify()

    def get(self) -> Message | Finish | None:
        """The next item; waits for it. None: there is none any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed)
            if not self._items:
                return None
            _, message = self._items.popleft()
            self._bytes -= _size(message)
            return message

    def _admits(self, message: Message) -> bool:
        if isinstance(message, Start):
            self.gate_shut = True
            if self._items and isinstance(self._items[-1][1], Start):
                self._items.pop()  # nothing came of that epoch: epochs cannot pile up
            return True
        if isinstance(message, (Jpeg, Raw)):
            if self._items:
                self.dropped += 1
                self._bytes -= _size(self._items.pop()[1])
            return True
        if not isinstance(message, Packet):
            return len(self._items) < _MOST_SNAPSHOTS
        if self._is_full():
            self.gate_shut = True
            if self._overflow is BacklogOverflow.DROP_WAITING:
                self._drop_waiting()
        if self._is_full():
            return False
        if self.gate_shut and message.keyframe:
            self.gate_shut = False
        return not self.gate_shut

    def _drop_waiting(self) -> None:
        """All but the newest Start: what follows is coded as it says."""
        starts = [entry for entry in self._items if isinstance(entry[1], Start)][-1:]
        self.dropped += sum(counts(message) for _, message in self._items)
        self._items, self._bytes = deque((time.monotonic(), start) for _, start in starts), 0

    def _is_full(self) -> bool:
        if not self._items:
            return False
        return time.monotonic() - self._items[0][0] > self._held_s or self._bytes > _MOST_BYTES


def counts(message: Message | Finish) -> bool:
    """Whether it is a picture that can be delivered or dropped."""
    return message.is_video if isinstance(message, Packet) else isinstance(message, (Jpeg, Raw, Snapshot))


def _size(message: Message | Finish) -> int:
    return len(message.data) if isinstance(message, (Packet, Jpeg, Raw)) else 0
