"""What the server and a camera's process say to each other over their pipe: one class for each message."""

from __future__ import annotations

from dataclasses import dataclass

from stream.live.packets import Jpeg
from stream.live.session.live_settings import LiveSettings
from stream.live.session.session_report import SessionReport

# --- to the camera's process ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChangeSettings:
    """Change the running session; a ChangeAnswer with the same number follows."""

    number: int
    changes: LiveSettings


@dataclass(frozen=True, slots=True)
class WatchPreviews:
    """Send previews of these kinds from now on, and no others."""

    kinds: frozenset[str]


@dataclass(frozen=True, slots=True)
class Stop:
    """Flush the sinks and end."""


ToCamera = ChangeSettings | WatchPreviews | Stop

# --- from the camera's process ----------------------------------------------------------------------
# A SessionReport comes as it is, once a second.


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """Something that people should know."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Preview:
    """A picture for those who watch."""

    kind: str
    picture: Jpeg


@dataclass(frozen=True, slots=True)
class ChangeAnswer:
    """Whether a change was made."""

    number: int
    error: str | None
    """Why not, in one line; None: it was made."""


@dataclass(frozen=True, slots=True)
class SessionFailed:
    """The session fails, and the process is about to end."""

    reason: str
    """In one line, without credentials."""


FromCamera = SessionReport | SessionEvent | Preview | ChangeAnswer | SessionFailed
