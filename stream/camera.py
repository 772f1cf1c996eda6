"""One camera of a server, in a process of its own: its session, steered and heard over a pipe."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream.address import parse_address, redact
from stream.cameras import CameraSettings
from stream.cores import available_cores
from stream.errors import StreamError
from stream.workers import Connection, start_thread

if TYPE_CHECKING:
    from stream.config import Config
    from stream.engines import Engine
    from stream.live import Session
    from stream.model import ModelInfo
    from stream.shared.lines import Place

_REPORT_S = 1.0
_RESTORER_S = 5.0
"""Longest wait for the restorer: the session has to end within 10 s even then."""
_TERMINATED = 128 + signal.SIGTERM
_KEPT = 200
"""Events and answers that wait for the supervisor; the oldest are dropped."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a camera's process is to do."""

    name: str
    settings: CameraSettings
    data: Path
    """Folder in which relative sinks lie."""
    shown: dict[str, Any] = field(default_factory=dict)
    """The settings without credentials."""
    passing: bool = False
    """Whether frames pass through unrestored, as was asked while it ran before."""
    place: Place | None = None
    """Where the restorer of all cameras is met; None: it restores by itself."""


def run_camera(link: Connection, order: Order) -> None:
    """Run until told to stop, until SIGTERM, or until the supervisor is gone; sinks are flushed.

    Takes ("change", number, Changes), ("watch", kinds), ("stop",). Sends ("report", dict) each second,
    ("event", kind, text), ("preview", kind, Jpeg), ("answer", number, error or None), ("failed", text).
    """
    stop, ended, terminated = threading.Event(), threading.Event(), threading.Event()

    def terminate(*_: object) -> None:
        terminated.set()
        stop.set()

    signal.signal(signal.SIGTERM, terminate)
    outbox = _Outbox(link)
    failures: list[BaseException] = []

    def fail(error: BaseException) -> None:
        """Say why, and end; an address in a traceback loses its credentials first."""
        failures.append(error)
        if not isinstance(error, StreamError):
            print(redact("".join(traceback.format_exception(error))), file=sys.stderr, flush=True)
        outbox.put(("failed", _line(error)))
        stop.set()

    threading.excepthook = lambda failure: fail(failure.exc_value)
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
    except Exception as error:
        fail(error)
    finally:
        outbox.close()
    if failures or terminated.is_set():
        raise SystemExit(1 if failures else _TERMINATED)


def _line(error: BaseException) -> str:
    text = redact(" ".join(str(error).split()))
    return text if isinstance(error, StreamError) else f"{type(error).__name__}: {text}"


def _session(order: Order, outbox: _Outbox) -> Session:
    from stream.changes import Changes
    from stream.live import Session  # a second and more, which the supervisor does without

    settings, config = order.settings, order.settings.config()
    # Cameras share the machine by running beside each other: more threads in each gain nothing, but for
    # the detector's, for which all frames behind it wait.
    alone = {
        name: section.model_copy(update={"threads": section.threads or threads})
        for name, section, threads in (
            ("decode", config.decode, 1),
            ("encode", config.encode, 1),
            ("restore", config.restore, max(1, available_cores() // 2)),
        )
    }
    session = Session(
        order.name,
        parse_address(settings.source),
        settings.sinks(order.data),
        config.model_copy(update=alone),
        preset=settings.preset,
        create_engine=_remote(order) if order.place is not None else None,
        on_event=lambda kind, text: outbox.put(("event", kind, text)),
        on_preview=lambda kind, picture: outbox.put(("preview", kind, picture)),
    )
    if order.passing:
        session.change(Changes(passing=True))
    return session


def _remote(order: Order) -> Callable[[Config, ModelInfo], Engine]:
    from stream import zoo
    from stream.shared import RemoteEngine

    def create(config: Config, model: ModelInfo) -> Engine:
        restore = config.restore
        path = zoo.resolve(restore.model, accept_licence=restore.accept_licence)
        priority = order.settings.priority
        return RemoteEngine(
            order.place, order.name, model, path, restore, priority=priority, timeout_s=_RESTORER_S
        )

    return create


def _obey(
    link: Connection, session: Session, outbox: _Outbox, stop: threading.Event, ended: threading.Event
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
            except Exception as error:  # the camera goes on as it was
                outbox.put(("answer", number, _line(error)))


def _report(session: Session, outbox: _Outbox, ended: threading.Event) -> None:
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
