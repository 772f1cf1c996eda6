"""A source tried out before it becomes a camera: in a process of its own, for a limited time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Never

from stream.config import Config
from stream.errors import StreamError
from stream.pipeline.processes import ChildProcess, Connection

if TYPE_CHECKING:
    from stream.live.source.epoch import SourceFacts


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of a source that was tried out."""

    ok: bool
    jpeg: bytes | None
    """Its first picture."""
    reason: str
    """Why there is none, in one line without credentials."""
    facts: SourceFacts | None


def attempt(source: str, limit_s: float) -> Attempt:
    """Open a source and wait for its first picture."""
    child = ChildProcess("gpen-stream: test of a source", _body, source)
    try:
        if child.link.poll(limit_s):
            result: Attempt = child.link.recv()
            return result
        reason = f"no picture came within {limit_s:.0f} s; is the camera on, and does it send?"
    except (EOFError, OSError):
        reason = "the test ended unexpectedly; see the log"
    finally:
        child.kill()
        child.end(2.0)
    return Attempt(False, None, reason, None)


def _body(link: Connection[Attempt, Never], source: str) -> None:
    from stream.live.source.address import parse_address  # the codecs' libraries, loaded in this process only
    from stream.live.source.capture import first_picture

    try:
        jpeg, facts = first_picture(parse_address(source), Config().source)
        link.send(Attempt(True, jpeg, "", facts))
    except StreamError as error:
        link.send(Attempt(False, None, str(error), None))
