"""How cameras and the shared restorer communicate: by lines of JSON over a socket, and shared memory."""

from __future__ import annotations

import mmap
import os
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from stream.config_live import Section

Incoming = TypeVar("Incoming")

_MAX_LINE_BYTES = 65536
"""A longer line is a protocol error."""


def is_supported() -> bool:
    """Whether this system has Unix sockets that carry file descriptors; Windows has none."""
    return hasattr(socket, "AF_UNIX") and hasattr(socket, "send_fds")


@dataclass(frozen=True, slots=True)
class RestorerAddress:
    """The address at which a restorer listens."""

    folder: Path
    """A folder that only this user may enter."""

    @property
    def socket(self) -> str:
        """Path of the Unix socket."""
        return str(self.folder / "restorer")


class MessageSocket(Generic[Incoming]):
    """A Unix socket whose messages are lines of JSON.

    All methods but `close` raise OSError, TimeoutError included, and EOFError if the other side is gone.
    A line that is no such message raises ConnectionError, which is an OSError.
    """

    def __init__(self, connection: socket.socket, incoming: TypeAdapter[Incoming]) -> None:
        """`incoming`: the messages that the other side may send."""
        self.connection, self._incoming, self._buffer = connection, incoming, b""
        self.handles: list[int] = []
        """File descriptors that were received; closed with the socket."""

    def send(self, message: Section, handles: Sequence[int] = ()) -> None:
        """Send a message, and file descriptors with it."""
        data = message.model_dump_json().encode() + b"\n"
        sent = socket.send_fds(self.connection, [data], handles) if handles else 0
        if sent < len(data):  # sending no bytes fails if the other side has just answered and closed
            self.connection.sendall(data[sent:])

    def receive(self) -> Incoming:
        """Wait for a message, for as long as the socket's time-out allows."""
        while (message := self.buffered()) is None:
            self.read()
        return message

    def read(self) -> None:
        """Read into the buffer what the socket has received."""
        data, handles, _, _ = socket.recv_fds(self.connection, 4096, 1)
        self.handles += handles
        if not data:
            raise EOFError
        self._buffer += data
        if len(self._buffer) > _MAX_LINE_BYTES or len(self.handles) > 1:
            raise ConnectionError("a line is too long, or more than one file came with it")

    def buffered(self) -> Incoming | None:
        """The next message in the buffer; None if no whole line has been received."""
        line, newline, rest = self._buffer.partition(b"\n")
        if not newline:
            return None
        self._buffer = rest
        try:
            return self._incoming.validate_json(line)
        except ValidationError:
            raise ConnectionError("a line is not a known message") from None

    def close(self) -> None:
        """Close the socket and the file descriptors that were received."""
        self.connection.close()
        for handle in self.handles:
            os.close(handle)
        self.handles.clear()


@dataclass(frozen=True, slots=True, eq=False)
class SharedCrops:
    """Memory that both sides map. N crops of side `in` go to the network, of side S come back."""

    crops: npt.NDArray[np.float32]
    """f32[N,in,in,3], written by the camera."""
    restored: npt.NDArray[np.float32]
    """f32[N,S,S,3], written by the restorer."""


def new_memory() -> int:
    """A file descriptor of memory without a name, which is freed when both sides have ended.

    On Linux it has no file on a disk: pages of a file, even of a deleted one, would be written out
    again and again, for days.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create("crops")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def map_crops(handle: int, count: int, in_size: int, size: int, create: bool) -> SharedCrops:
    """Map memory for `count` crops of side `in_size` px and their restorations of side `size` px.

    `create`: whether the memory is new and gets its length here. Raises OSError or ValueError if the
    memory cannot be mapped or is too short.
    """
    in_values, out_values = count * in_size * in_size * 3, count * size * size * 3
    length = 4 * (in_values + out_values)
    if create:
        os.ftruncate(handle, length)
    whole = np.frombuffer(mmap.mmap(handle, length), np.float32)
    return SharedCrops(
        crops=whole[:in_values].reshape(count, in_size, in_size, 3),
        restored=whole[in_values:].reshape(count, size, size, 3),
    )
