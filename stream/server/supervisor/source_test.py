"""A source tested before it becomes a camera: in its own process, and for a limited time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Never

from stream.config import Config
from stream.errors import StreamError
from stream.pipeline.processes import ChildProcess, Connection

if TYPE_CHECKING:
    from stream.live.source.epoch import SourceFacts


@dataclass(frozen=True, slots=True)
class SourceTestResult:
    """Whether a source delivered a picture."""

    ok: bool
    jpeg: bytes | None
    """Its first picture."""
    reason: str
    """Why there is no picture, in one line without credentials."""
    facts: SourceFacts | None


def run_source_test(source: str, limit_s: float) -> SourceTestResult:
    """Open a source in another process, and wait at most `limit_s` for its first picture."""
    child = ChildProcess("gpen-stream: test of a source", _open_source, source)
    try:
        if child.link.poll(limit_s):
            result: SourceTestResult = child.link.recv()
            return result
        reason = f"no picture came within {limit_s:.0f} s; is the camera on, and does it send?"
    except (EOFError, OSError):
        reason = "the test ended unexpectedly; see the log"
    finally:
        child.kill()
        child.end(2.0)
    return SourceTestResult(False, None, reason, None)


def _open_source(link: Connection[SourceTestResult, Never], source: str) -> None:
    # Imported here because it loads the codecs' libraries, which the server does without.
    from stream.live.source.address import parse_address
    from stream.live.source.capture import first_picture

    try:
        jpeg, facts = first_picture(parse_address(source), Config().source)
        link.send(SourceTestResult(True, jpeg, "", facts))
    except StreamError as error:
        link.send(SourceTestResult(False, None, str(error), None))
