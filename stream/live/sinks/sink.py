"""The contract of a sink. It lives in its own process, one thread calls it."""

from __future__ import annotations

from typing import Protocol

from stream.errors import EncodeError
from stream.live.packets import Message, Start
from stream.live.status import ConnectionState


class SinkError(EncodeError):
    """A sink cannot go on; one line that says why. It is closed, and opened again after a pause.

    `state` is what an operator is shown meanwhile; `event` the kind of event that is told of it.
    """

    def __init__(
        self, message: str, state: ConnectionState = ConnectionState.RETRYING, *, event: str = "sink_failed"
    ) -> None:
        super().__init__(message)
        self.state, self.event = state, event


class SinkDone(Exception):
    """The sink has ended as its user wished, such as by closing the window: it is not opened again."""


class LiveSink(Protocol):
    """Constructed with its SinkSpec; made anew for every attempt."""

    wanted: bool
    """False: nobody looks, and pictures need not be made (MJPEG without viewers)."""
    detail: str
    """What is told beside "live", such as the file's name; no credential."""

    def open(self) -> None:
        """Acquire folders, ports and devices. Raises SinkError."""

    def write(self, message: Message) -> None:
        """Deliver one message; it may block. Raises SinkError, or SinkDone.

        Where packets are taken, a Start comes first and after every opening, then a keyframe.
        """

    def idle(self) -> None:
        """Called about ten times a second when nothing comes. Raises as `write`."""

    def close(self) -> None:
        """Finish the file, leave the server. Always called; raises SinkError where the end is lost."""


def same_coding(one: Start | None, two: Start) -> bool:
    """Whether a new epoch is coded as the old one, so that an output may go on with it."""
    return one is not None and (one.video, one.audio) == (two.video, two.audio)
