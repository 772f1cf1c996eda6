"""What happened, for people: the last events, the log, and a webhook that is told."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Any

from stream.address import redact
from stream.webhook import Webhook

_KEPT = 1000
_log = logging.getLogger(__name__)


class Events:
    """The last events; older ones are forgotten. Credentials in addresses are taken out of every text.

    Each goes to the log as one line, and to the `webhook`, which `close` ends. All methods may be called
    from any thread; only `close` waits for anybody.
    """

    def __init__(self, webhook: Webhook | None = None) -> None:
        self._events: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()
        self._number = 0
        self._webhook = webhook
        if webhook is not None:
            webhook.on_event = lambda kind, text: self._keep("", kind, text, {})  # it is not told of itself

    def add(self, camera: str, kind: str, text: str, **facts: Any) -> None:
        """Of a camera, or of the server (""). `kind` is one of `webhook.KINDS`."""
        event = self._keep(camera, kind, text, facts)
        if self._webhook is not None:
            self._webhook.offer(event)

    def since(self, number: int = 0) -> list[dict[str, Any]]:
        """Those after the one with this id: id, at (Unix time, s), camera, kind, text, facts."""
        with self._lock:
            return [event for event in self._events if event["id"] > number]

    def close(self, timeout_s: float) -> None:
        """Tell the webhook what it has not been told, for so long at most."""
        if self._webhook is not None:
            self._webhook.stop(timeout_s)

    def _keep(self, camera: str, kind: str, text: str, facts: dict[str, Any]) -> dict[str, Any]:
        text = redact(" ".join(text.split()))  # a line of the log is an event
        facts = {key: redact(value) if isinstance(value, str) else value for key, value in facts.items()}
        with self._lock:
            self._number += 1
            event = {"id": self._number, "at": time.time(), "camera": camera, "kind": kind, "text": text}
            event["facts"] = facts
            self._events.append(event)
        _log.info("%s: %s: %s", camera or "server", kind, text)
        return event
