"""A source tried out before it becomes a camera: in a process of its own, for a limited time."""

from __future__ import annotations

from typing import Any

from stream.config import Config
from stream.errors import StreamError
from stream.workers import ChildProcess, Connection


def attempt(source: str, limit_s: float) -> dict[str, Any]:
    """`ok`, `jpeg` (bytes or None), `reason` (why not, one line), `facts` of the first picture."""
    child = ChildProcess("gpen-stream: test of a source", _body, source)
    try:
        if child.link.poll(limit_s):
            return child.link.recv()
        reason = f"no picture came within {limit_s:.0f} s; is the camera on, and does it send?"
    except (EOFError, OSError):
        reason = "the test ended unexpectedly; see the log"
    finally:
        child.kill()
        child.end(2.0)
    return {"ok": False, "jpeg": None, "reason": reason, "facts": {}}


def _body(link: Connection, source: str) -> None:
    from stream.address import parse_address  # the codecs' libraries, loaded in this process only
    from stream.capture import first_picture

    try:
        jpeg, facts = first_picture(parse_address(source), Config().source)
        link.send({"ok": True, "jpeg": jpeg, "reason": "", "facts": facts})
    except StreamError as error:
        link.send({"ok": False, "jpeg": None, "reason": str(error), "facts": {}})
