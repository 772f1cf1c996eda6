"""What both sides of the shared restorer agree on: where it is, lines of JSON, the mapped file."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_LONGEST = 65536
"""Bytes of a line; a longer one is no message of ours."""


def available() -> bool:
    """Whether this system has what the two sides meet by; Windows has not."""
    return hasattr(socket, "AF_UNIX")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a restorer is met: a folder of this user alone."""

    folder: Path

    @property
    def socket(self) -> str:
        """Path of the socket."""
        return str(self.folder / "restorer")


class Lines:
    """Lines of JSON over a socket. Raises OSError (TimeoutError too) and EOFError."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel, self._buffer = channel, b""

    def send(self, message: dict) -> None:
        """One line."""
        self.channel.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict:
        """Wait for a line, as long as the socket's time-out says."""
        while (message := self.buffered()) is None:
            self.read()
        return message

    def read(self) -> None:
        """Take in what has come."""
        data = self.channel.recv(4096)
        if not data:
            raise EOFError
        self._buffer += data
        if len(self._buffer) > _LONGEST:
            raise ConnectionError("a line without end")

    def buffered(self) -> dict | None:
        """A whole line that has come already; None: not yet."""
        line, newline, rest = self._buffer.partition(b"\n")
        if not newline:
            return None
        self._buffer = rest
        try:
            return json.loads(line)
        except ValueError:
            raise ConnectionError("a line that is no JSON") from None


@dataclass(frozen=True, slots=True, eq=False)
class Slots:
    """The mapped file: `crops` f32[N,in,in,3] on their way to the network, `restored` f32[N,S,S,3] back."""

    crops: np.ndarray
    restored: np.ndarray


def map_slots(path: Path, count: int, in_size: int, size: int, create: bool) -> Slots:
    """Map a file for `count` crops; OSError or ValueError where it cannot be, or is too short."""
    here, there = count * in_size * in_size * 3, count * size * size * 3
    whole = np.memmap(path, np.float32, "w+" if create else "r+", shape=(here + there,))
    return Slots(whole[:here].reshape(count, in_size, in_size, 3), whole[here:].reshape(count, size, size, 3))
