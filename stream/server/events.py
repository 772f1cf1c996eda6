"""What happened, for people: the last events, a line of the log for each, and the webhook."""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime

from pydantic import JsonValue

from stream.live.source.address import redact
from stream.server.webhook import Event, Webhook

LOG = logging.getLogger(__name__)
GOOD = frozenset({"camera_up", "face_seen", "sink_live", "webhook_live"})
"""Kinds that ask nobody to do anything; all others are warnings."""
_TEXT = 500
"""Longest text, in signs."""


def log_to_stderr() -> None:
    """Have each event written as one line, and what else the package logs, with UTC time and level."""
    ours = logging.getLogger("stream")
    if not ours.handlers:
        handler = logging.StreamHandler(sys.stderr)
        form = logging.Formatter("%(asctime)sZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
        form.converter = time.gmtime
        handler.setFormatter(form)
        ours.addHandler(handler)
        ours.setLevel(logging.INFO)
        ours.propagate = False


class Events:
    """The last `kept` events, oldest first; the oldest give way. Every method: from any thread.

    Credentials of addresses in texts and facts become ***.
    """

    def __init__(self, webhook: Webhook | None = None, kept: int = 1000) -> None:
        self._events: deque[Event] = deque(maxlen=kept)
        self._webhook = webhook
        self._lock = threading.Lock()
        self._number = 0

    def start(self) -> None:
        """Begin to post; what came before waits, and is posted too."""
        if self._webhook is not None:
            # Trouble with the webhook is not posted by it: that would never end.
            self._webhook.start(lambda kind, text: self._add("", kind, text, {}, None))

    def stop(self, timeout_s: float = 2.0) -> None:
        """Post what waits, within `timeout_s`; later events are kept and logged only."""
        if self._webhook is not None:
            self._webhook.stop(timeout_s)

    def add(self, camera: str, kind: str, text: str, **facts: object) -> None:
        """Something happened; returns at once. `facts`: values for machines."""
        self._add(camera, kind, text, facts, self._webhook)

    def since(self, number: int = 0) -> list[Event]:
        """Those with a higher `id`, oldest first."""
        with self._lock:
            return [event for event in self._events if event.id > number]

    def _add(
        self, camera: str, kind: str, text: str, facts: Mapping[str, object], webhook: Webhook | None
    ) -> None:
        text = _line(text)
        plain = {_line(key): _plain(value) for key, value in facts.items()}
        with self._lock:  # numbers, the log and the webhook have the same order
            at, self._number = time.time(), self._number + 1
            utc = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            event = Event(self._number, at, utc, camera, kind, text, plain)
            self._events.append(event)
            if webhook is not None:
                webhook.post(event)
            LOG.log(
                logging.INFO if kind in GOOD else logging.WARNING, "%s %s: %s", camera or "server", kind, text
            )


def _line(text: str) -> str:
    """One line without credentials: what a camera calls itself must not forge lines of the log."""
    text = "".join(sign if sign.isprintable() else " " for sign in redact(text))
    return " ".join(text.split())[:_TEXT]


def _plain(value: object) -> JsonValue:
    """As JSON can hold it, without credentials."""
    if isinstance(value, Mapping):
        return {_line(str(key)): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return _line(str(value))
