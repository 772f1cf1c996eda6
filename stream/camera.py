"""One camera of a server, in a process of its own: its session, steered and heard over a pipe."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stream.cameras import CameraSettings
from stream.errors import StreamError
from stream.packets import Jpeg
from stream.workers import Connection, start_thread

_REPORT_S = 1.0
_KEPT = 200
"""Events and answers that wait for the supervisor; the oldest are dropped."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a camera's process is to do."""

    name: str
    settings: CameraSettings
    data: Path
    """Folder in which relative sinks lie."""
    passing: bool = False
    """Whether frames pass through unrestored, as was asked while it ran before."""
    restorer: Any = None


def run_camera(link: Connection, order: Order) -> None:
    """Run until told to stop, until SIGTERM, or until the supervisor is gone; sinks are flushed.

    Takes ("change", number, Changes), ("watch", kinds), ("stop",). Sends ("report", dict) each second,
    ("event", kind, text), ("preview", kind, Jpeg), ("answer", number, error or None), ("failed", text).
    """
    stop, ended = threading.Event(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    outbox = _Outbox(link)
    failed = False
    try:
        session = _session(order, outbox)
        threads = [
            start_thread("commands", _obey, link, session, outbox, stop, ended),
            start_thread("reports", _report, session, outbox, ended),
        ]
        try:
            session.run(stop)
        finally:
            ended.set()
            for thread in threads:
                thread.join()
    except StreamError as error:
        outbox.put(("failed", str(error)))
        failed = True
    finally:
        outbox.close()
    if failed:
        raise SystemExit(1)


def _session(order: Order, outbox: _Outbox) -> Any:
    return _Loop(order, outbox.event, outbox.preview)


class _Loop:
    """Stands in for the session until that is there."""

    def __init__(self, order: Order, on_event, on_preview) -> None:
        self.order, self.on_preview, self.kinds = order, on_preview, frozenset()
        self.number, self.began = 0, time.monotonic()

    def run(self, stop: threading.Event) -> None:
        import cv2
        import numpy as np

        while not stop.wait(0.04):
            self.number += 1
            for kind in self.kinds:
                picture = np.full((360 if kind == "restored" else 720, 640, 3), 90, np.uint8)
                cv2.circle(picture, (self.number * 4 % 640, 180), 60, (80, 160, 240), -1)
                data = cv2.imencode(".jpg", picture)[1].tobytes()
                self.on_preview(kind, Jpeg(data, time.monotonic(), self.number * 3600))

    def report(self) -> dict:
        up = time.monotonic() - self.began
        return {
            "name": self.order.name, "source": "test:", "state": "live", "words": "live", "detail": "", "take": 1,
            "size": [640, 360], "codec": "rawvideo", "fps_in": 25.0, "fps_out": 25.0,
            "delay": {"median_ms": 40.0, "p95_ms": 60.0}, "faces": 1, "faces_restored": self.number,
            "faces_carried": 0, "level": 0, "level_words": "as set", "idle": False, "drops": {"overrun": 0},
            "corrupt_packets": 0, "connections": 1, "sinks": [], "load": 0.3, "cpu_cores": 0.4,
            "memory_mb": 120.0, "model": "gpen-lite-256", "preset": self.order.settings.preset, "strength": 1.0,
            "interval": 1, "engine": "none", "notes": [], "uptime_s": up,
        }  # fmt: skip

    def change(self, changes: Any) -> None: ...

    def watch(self, kinds: frozenset[str]) -> None:
        self.kinds = kinds


def _obey(
    link: Connection, session: Any, outbox: _Outbox, stop: threading.Event, ended: threading.Event
) -> None:
    """Carry out what the supervisor says."""
    while not ended.is_set():
        try:
            if not link.poll(0.2):
                continue
            kind, *values = link.recv()
        except (EOFError, OSError):  # the supervisor is gone: finish
            stop.set()
            return
        if kind == "stop":
            stop.set()
        elif kind == "watch":
            session.watch(*values)
        elif kind == "change":
            number, changes = values
            try:
                session.change(changes)
                outbox.put(("answer", number, None))
            except StreamError as error:
                outbox.put(("answer", number, str(error)))


def _report(session: Any, outbox: _Outbox, ended: threading.Event) -> None:
    while not ended.wait(_REPORT_S):
        outbox.put(("report", session.report()))


@dataclass(slots=True)
class _Outbox:
    """Messages on their way to the supervisor: whoever puts one never waits for the pipe.

    Of previews and reports only the newest is kept.
    """

    link: Connection
    _messages: deque = field(default_factory=lambda: deque(maxlen=_KEPT))
    _newest: dict[Any, tuple] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _closed: bool = False
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self._thread = start_thread("outbox", self._run)

    def put(self, message: tuple) -> None:
        with self._changed:
            if message[0] in ("preview", "report"):
                self._newest[message[0], message[1] if message[0] == "preview" else ""] = message
            else:
                self._messages.append(message)
            self._changed.notify()

    def event(self, kind: str, text: str) -> None:
        self.put(("event", kind, text))

    def preview(self, kind: str, picture: Jpeg) -> None:
        self.put(("preview", kind, picture))

    def close(self) -> None:
        """Send what waits, as long as the supervisor listens."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._messages or self._newest or self._closed)
                ready = [*self._messages, *self._newest.values()]
                self._messages.clear()
                self._newest.clear()
                if not ready:
                    return
            with contextlib.suppress(OSError):  # the supervisor is gone
                for message in ready:
                    self.link.send(message)
