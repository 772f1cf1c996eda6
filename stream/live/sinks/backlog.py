"""The bounded queue of messages that wait, in the camera's process, for one sink."""

from __future__ import annotations

import threading
import time
from collections import deque
from enum import Enum

from stream.live.packets import EpochStart, FinishSink, JpegPicture, Message, Packet, RawPicture, Snapshot

_MAX_BYTES = 64 << 20
_MAX_MESSAGES = 16
"""Number of waiting messages at which a snapshot is dropped."""


class BacklogOverflow(Enum):
    """Which packets a full backlog drops. Dropping always goes on up to the next keyframe."""

    DROP_NEW = "drop_new"
    """New packets are dropped, so that the gap in a recording is as short as possible."""
    DROP_WAITING = "drop_waiting"
    """Waiting packets are dropped, because they are stale for a viewer; a fresh keyframe follows."""


class Backlog:
    """A queue whose `put` never blocks. It counts every frame that it drops.

    It is full when its oldest message has waited for `max_wait_s`, or when it holds too many bytes. Of
    pictures that need no others (JpegPicture, RawPicture) only the newest waits.
    """

    def __init__(self, max_wait_s: float, overflow: BacklogOverflow) -> None:
        self.dropped = 0
        """Pictures that were dropped; sound is not counted."""
        self.awaits_keyframe = True
        """Whether packets are dropped until a keyframe comes."""
        self._max_wait_s, self._overflow = max_wait_s, overflow
        self._items: deque[tuple[float, Message | FinishSink]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._closed = False

    @property
    def needs_keyframe(self) -> bool:
        """Whether a keyframe would be accepted now, and no other packet."""
        with self._changed:
            return self.awaits_keyframe and not self._is_full()

    def put(self, message: Message) -> None:
        """Append a message or drop it; returns at once."""
        with self._changed:
            if self._closed or not self._accepts(message):
                self.dropped += is_picture(message)
                return
            self._items.append((time.monotonic(), message))
            self._bytes += _size(message)
            self._changed.notify()

    def finish(self, message: FinishSink) -> None:
        """Append the last item, even to a full backlog; later messages are dropped."""
        with self._changed:
            self._items.append((time.monotonic(), message))
            self._closed = True
            self._changed.notify()

    def abandon(self) -> None:
        """Drop everything that waits, and let `get` return None from now on."""
        with self._changed:
            self.dropped += sum(is_picture(message) for _, message in self._items)
            self._items.clear()
            self._closed = True
            self._changed.notify()

    def get(self) -> Message | FinishSink | None:
        """The next item, for which it waits; None once the backlog is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed)
            if not self._items:
                return None
            _, message = self._items.popleft()
            self._bytes -= _size(message)
            return message

    def _accepts(self, message: Message) -> bool:
        if isinstance(message, EpochStart):
            self.awaits_keyframe = True
            if self._items and isinstance(self._items[-1][1], EpochStart):
                self._items.pop()  # an epoch without a packet: epochs must not pile up
            return True
        if isinstance(message, (JpegPicture, RawPicture)):
            if self._items:
                self.dropped += 1
                self._bytes -= _size(self._items.pop()[1])
            return True
        if not isinstance(message, Packet):
            return len(self._items) < _MAX_MESSAGES
        if self._is_full():
            self.awaits_keyframe = True
            if self._overflow is BacklogOverflow.DROP_WAITING:
                self._drop_waiting()
        if self._is_full():
            return False
        if self.awaits_keyframe and message.keyframe:
            self.awaits_keyframe = False
        return not self.awaits_keyframe

    def _drop_waiting(self) -> None:
        """Drop everything but the newest EpochStart, which describes how later packets are coded."""
        starts = [entry for entry in self._items if isinstance(entry[1], EpochStart)][-1:]
        self.dropped += sum(is_picture(message) for _, message in self._items)
        self._items, self._bytes = deque((time.monotonic(), start) for _, start in starts), 0

    def _is_full(self) -> bool:
        if not self._items:
            return False
        return time.monotonic() - self._items[0][0] > self._max_wait_s or self._bytes > _MAX_BYTES


def is_picture(message: Message | FinishSink) -> bool:
    """Whether the message is a picture, which counts as delivered or as dropped."""
    return (
        message.is_video
        if isinstance(message, Packet)
        else isinstance(message, (JpegPicture, RawPicture, Snapshot))
    )


def _size(message: Message | FinishSink) -> int:
    """Bytes of the message that count towards the backlog's limit."""
    return len(message.data) if isinstance(message, (Packet, JpegPicture, RawPicture)) else 0
