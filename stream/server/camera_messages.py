"""Messages between the server and a camera's process, which go over a pipe: one class for each."""

from __future__ import annotations

from dataclasses import dataclass

from stream.live.packets import JpegPicture
from stream.live.session.live_settings import LiveSettings
from stream.live.session.session_report import SessionReport

# --- to the camera's process ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChangeSettings:
    """Change settings of the running session. The process answers with a ChangeAnswer of the same number."""

    number: int
    changes: LiveSettings


@dataclass(frozen=True, slots=True)
class WatchPreviews:
    """Send previews of these kinds from now on, and of no others."""

    kinds: frozenset[str]
    """Members of `stream.server.supervisor.viewers.PREVIEW_KINDS`."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Flush the sinks and end the process."""


@dataclass(frozen=True, slots=True)
class ExtendLease:
    """The camera's lease ends later than was said before."""

    until_s: float
    """`time.monotonic()`, which all processes of a machine share."""


ToCamera = ChangeSettings | WatchPreviews | Stop | ExtendLease

# --- from the camera's process ----------------------------------------------------------------------
# A SessionReport is sent as it is, once a second.


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """An event for operators."""

    kind: str
    text: str
    """The event as text for users, in one line without credentials."""


@dataclass(frozen=True, slots=True)
class Preview:
    """A picture for the viewers of the camera."""

    kind: str
    """A member of `stream.server.supervisor.viewers.PREVIEW_KINDS`."""
    picture: JpegPicture


@dataclass(frozen=True, slots=True)
class ChangeAnswer:
    """Whether the session has made a change."""

    number: int
    """Number of the request."""
    error: str | None
    """Why the change was refused, in one line; None: it was made."""


@dataclass(frozen=True, slots=True)
class SessionFailed:
    """The session has failed, and the process is about to end."""

    reason: str
    """The reason, in one line without credentials."""


FromCamera = SessionReport | SessionEvent | Preview | ChangeAnswer | SessionFailed
