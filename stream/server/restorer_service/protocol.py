"""What both sides of the shared restorer agree on: where it is, lines of JSON, the mapped memory."""

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

_LONGEST = 65536
"""Bytes of a line; a longer one is no message of ours."""


def available() -> bool:
    """Whether this system has what the two sides meet by; Windows has not."""
    return hasattr(socket, "AF_UNIX") and hasattr(socket, "send_fds")


@dataclass(frozen=True, slots=True)
class RestorerAddress:
    """Where a restorer is met: a folder of this user alone."""

    folder: Path

    @property
    def socket(self) -> str:
        """Path of the socket."""
        return str(self.folder / "restorer")


class Lines(Generic[Incoming]):
    """Messages over a socket, each a line of JSON. Raises OSError (TimeoutError too) and EOFError."""

    def __init__(self, channel: socket.socket, incoming: TypeAdapter[Incoming]) -> None:
        """`incoming`: the messages that the other side may send."""
        self.channel, self._incoming, self._buffer = channel, incoming, b""
        self.handles: list[int] = []
        """Files that came along; closed with the channel."""

    def send(self, message: Section, handles: Sequence[int] = ()) -> None:
        """One line, and files with it."""
        data = message.model_dump_json().encode() + b"\n"
        sent = socket.send_fds(self.channel, [data], handles) if handles else 0
        if sent < len(data):  # sending nothing fails where the other side has answered and hung up meanwhile
            self.channel.sendall(data[sent:])

    def receive(self) -> Incoming:
        """Wait for a line, as long as the socket's time-out says."""
        while (message := self.buffered()) is None:
            self.read()
        return message

    def read(self) -> None:
        """Take in what has come."""
        data, handles, _, _ = socket.recv_fds(self.channel, 4096, 1)
        self.handles += handles
        if not data:
            raise EOFError
        self._buffer += data
        if len(self._buffer) > _LONGEST or len(self.handles) > 1:
            raise ConnectionError("no message of ours")

    def buffered(self) -> Incoming | None:
        """A whole line that has come already; None: not yet."""
        line, newline, rest = self._buffer.partition(b"\n")
        if not newline:
            return None
        self._buffer = rest
        try:
            return self._incoming.validate_json(line)
        except ValidationError:
            raise ConnectionError("a line that is no message of ours") from None

    def close(self) -> None:
        """Hang up."""
        self.channel.close()
        for handle in self.handles:
            os.close(handle)
        self.handles.clear()


@dataclass(frozen=True, slots=True, eq=False)
class SharedCrops:
    """Mapped memory: `crops` f32[N,in,in,3] on their way to the network, `restored` f32[N,S,S,3] back."""

    crops: npt.NDArray[np.float32]
    restored: npt.NDArray[np.float32]


def new_memory() -> int:
    """A file descriptor of memory without a name: nothing is left of it when both sides are gone.

    On Linux no disk is behind it: pages of a file, even an unlinked one, would be written out again
    and again, for days.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create("crops")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def map_slots(handle: int, count: int, in_size: int, size: int, create: bool) -> SharedCrops:
    """Map memory for `count` crops; OSError or ValueError where it cannot be, or is too short."""
    here, there = count * in_size * in_size * 3, count * size * size * 3
    length = 4 * (here + there)
    if create:
        os.ftruncate(handle, length)
    whole = np.frombuffer(mmap.mmap(handle, length), np.float32)
    return SharedCrops(
        whole[:here].reshape(count, in_size, in_size, 3), whole[here:].reshape(count, size, size, 3)
    )
