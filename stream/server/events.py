"""Events for operators: the last ones are kept, and each goes to the log and to the webhook."""

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
INFO_KINDS = frozenset(
    {"camera_placed", "camera_up", "face_seen", "node_joined", "node_left", "sink_live", "webhook_live"}
)
"""Kinds that ask for no action; all others are logged as warnings."""
_MAX_TEXT = 500
"""Most characters of a text; a longer one is cut off."""


def log_to_stderr() -> None:
    """Write what the package logs to stderr, one line for each event, with UTC time and level; idempotent."""
    logger = logging.getLogger("stream")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        formatter = logging.Formatter("%(asctime)sZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        handler.setFormatter(formatter)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


class Events:
    """The newest `capacity` events; older ones are dropped. All methods may be called from any thread.

    Credentials of addresses in texts and facts are replaced by ***.
    """

    def __init__(self, webhook: Webhook | None = None, capacity: int = 1000) -> None:
        self._events: deque[Event] = deque(maxlen=capacity)
        self._webhook = webhook
        self._lock = threading.Lock()
        self._number = 0

    def start(self) -> None:
        """Start the webhook; it sends the events that were added before, too."""
        if self._webhook is not None:
            # Events about the webhook are not sent to it: each failure would cause the next one.
            self._webhook.start(lambda kind, text: self._add("", kind, text, {}, None))

    def stop(self, timeout_s: float = 2.0) -> None:
        """Have the webhook send what waits, within `timeout_s`. Later events are only kept and logged."""
        if self._webhook is not None:
            self._webhook.stop(timeout_s)

    def add(self, camera: str, kind: str, text: str, **facts: object) -> None:
        """Add an event; returns at once.

        `camera`: the camera's name, empty for the server. `text`: one line for people. `facts`: values for
        programs.
        """
        self._add(camera, kind, text, facts, self._webhook)

    def since(self, number: int = 0) -> list[Event]:
        """The events with an `id` above `number`, oldest first."""
        with self._lock:
            return [event for event in self._events if event.id > number]

    def _add(
        self, camera: str, kind: str, text: str, facts: Mapping[str, object], webhook: Webhook | None
    ) -> None:
        text = _single_line(text)
        plain = {_single_line(key): _to_json_value(value) for key, value in facts.items()}
        with self._lock:  # so that numbers, log and webhook have the same order
            at, self._number = time.time(), self._number + 1
            utc = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            event = Event(self._number, at, utc, camera, kind, text, plain)
            self._events.append(event)
            if webhook is not None:
                webhook.post(event)
            LOG.log(
                logging.INFO if kind in INFO_KINDS else logging.WARNING,
                "%s %s: %s",
                camera or "server",
                kind,
                text,
            )


def _single_line(text: str) -> str:
    """A text as one line without credentials, so that a camera's text cannot forge lines of the log."""
    text = "".join(character if character.isprintable() else " " for character in redact(text))
    return " ".join(text.split())[:_MAX_TEXT]


def _to_json_value(value: object) -> JsonValue:
    """A value that JSON can hold, without credentials. NaN and infinity become None."""
    if isinstance(value, Mapping):
        return {_single_line(str(key)): _to_json_value(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json_value(part) for part in value]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return _single_line(str(value))
