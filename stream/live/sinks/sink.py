"""The contract of a sink, and the exceptions by which it ends an attempt."""

from __future__ import annotations

from typing import Protocol

from stream.errors import EncodeError
from stream.live.packets import EpochStart, Message
from stream.live.status import ConnectionState


class SinkError(EncodeError):
    """A sink cannot go on; the message is one line that says why.

    The sink is closed, and a new one is opened after a pause. Until then an operator is shown `state`.
    `event` is the kind of event that reports the failure.
    """

    def __init__(
        self, message: str, state: ConnectionState = ConnectionState.RETRYING, *, event: str = "sink_failed"
    ) -> None:
        super().__init__(message)
        self.state, self.event = state, event


class SinkDone(Exception):
    """The user has ended the sink, for example by closing its window; it is not opened again."""


class LiveSink(Protocol):
    """Delivers messages to one target. It lives in a process of its own, and one thread calls it.

    Its constructor takes a SinkSpec. Every attempt makes a new instance. Only `write` has to be written: the
    other methods do nothing by default.
    """

    wanted: bool = True
    """Whether the sink needs pictures now; False, for example, for MJPEG without viewers."""
    detail: str = ""
    """Text shown to operators beside "live", such as the file's name; it holds no credential."""

    def open(self) -> None:
        """Acquire folders, ports and devices. Raises SinkError."""
        return None

    def write(self, message: Message) -> None:
        """Deliver one message; this may block. Raises SinkError or SinkDone.

        A sink that accepts packets gets an EpochStart first after every `open`, and then a keyframe.
        """

    def idle(self) -> None:
        """Do what is due while no message comes; called about ten times a second. Raises as `write` does."""
        return None

    def close(self) -> None:
        """Finish the file or leave the server; always called. Raises SinkError where the end is lost."""
        return None


def same_coding(one: EpochStart | None, two: EpochStart) -> bool:
    """Whether an output of the epoch `one` can take the packets of the epoch `two` too."""
    return one is not None and (one.video, one.audio) == (two.video, two.audio)
