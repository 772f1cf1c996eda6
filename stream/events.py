"""What happened, for people: the last events, and whoever listens."""

from __future__ import annotations

import threading
import time
from collections import deque


class Events:
    """A bounded log."""

    def __init__(self) -> None:
        self._events: deque[dict] = deque(maxlen=1000)
        self._lock = threading.Lock()
        self._number = 0

    def add(self, camera: str, kind: str, text: str, **facts) -> None:
        with self._lock:
            self._number += 1
            self._events.append(
                {"id": self._number, "at": time.time(), "camera": camera, "kind": kind, "text": text}
                | {"facts": facts}
            )

    def since(self, number: int = 0) -> list[dict]:
        with self._lock:
            return [event for event in self._events if event["id"] > number]
