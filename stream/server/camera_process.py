"""One camera of a server, in a process of its own: its session, steered and heard over a pipe."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from stream.errors import StreamError
from stream.live.session.live_settings import LiveSettings
from stream.live.session.session_report import SessionReport
from stream.live.source.address import parse_address, redact
from stream.pipeline.cpu_budget import available_cores
from stream.pipeline.processes import Connection, start_thread
from stream.server.camera_config import CameraSettings
from stream.server.camera_messages import (
    ChangeAnswer,
    ChangeSettings,
    FromCamera,
    Preview,
    SessionEvent,
    SessionFailed,
    Stop,
    ToCamera,
    WatchPreviews,
)

if TYPE_CHECKING:
    from stream.config import Config
    from stream.live.session.session import Session
    from stream.models.engines import Engine
    from stream.models.info import ModelInfo
    from stream.server.restorer_service.protocol import RestorerAddress

_REPORT_S = 1.0
_RESTORER_S = 5.0
"""Longest wait for the restorer: the session has to end within 10 s even then."""
_TERMINATED = 128 + signal.SIGTERM
_KEPT = 200
"""Events and answers that wait for the supervisor; the oldest are dropped."""


@dataclass(frozen=True, slots=True)
class CameraOrder:
    """What a camera's process is to do."""

    name: str
    settings: CameraSettings
    data: Path
    """Folder in which relative sinks lie."""
    shown: CameraSettings
    """The settings, with *** for credentials."""
    passing: bool = False
    """Whether frames pass through unrestored, as was asked while it ran before."""
    place: RestorerAddress | None = None
    """Where the restorer of all cameras is met; None: it restores by itself."""


def run_camera(link: Connection[FromCamera, ToCamera], order: CameraOrder) -> None:
    """Run until told to stop, until SIGTERM, or until the supervisor is gone; sinks are flushed."""
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
        outbox.put(SessionFailed(_line(error)))
        stop.set()

    threading.excepthook = lambda failure: fail(failure.exc_value or failure.exc_type())
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


def _session(order: CameraOrder, outbox: _Outbox) -> Session:
    from stream.live.session.session import Session  # a second and more, which the supervisor does without

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
        create_engine=_remote(order, order.place) if order.place is not None else None,
        on_event=lambda kind, text: outbox.put(SessionEvent(kind, text)),
        on_preview=lambda kind, picture: outbox.put(Preview(kind, picture)),
    )
    if order.passing:
        session.change(LiveSettings(passing=True))
    return session


def _remote(order: CameraOrder, place: RestorerAddress) -> Callable[[Config, ModelInfo], Engine]:
    from stream.models import registry
    from stream.server.restorer_service import RemoteEngine

    def create(config: Config, model: ModelInfo) -> Engine:
        restore = config.restore
        path = registry.resolve(restore.model, accept_licence=restore.accept_licence)
        priority = order.settings.priority
        return RemoteEngine(place, order.name, model, path, restore, priority=priority, timeout_s=_RESTORER_S)

    return create


def _obey(
    link: Connection[FromCamera, ToCamera],
    session: Session,
    outbox: _Outbox,
    stop: threading.Event,
    ended: threading.Event,
) -> None:
    """Carry out what the supervisor says."""
    while not ended.is_set():
        try:
            if not link.poll(0.2):
                continue
            message = link.recv()
        except (EOFError, OSError):  # the supervisor is gone: finish
            stop.set()
            return
        match message:
            case Stop():
                stop.set()
            case WatchPreviews(kinds):
                session.watch(kinds)
            case ChangeSettings(number, changes):
                try:
                    session.change(changes)
                    outbox.put(ChangeAnswer(number, None))
                except Exception as error:  # the camera goes on as it was
                    outbox.put(ChangeAnswer(number, _line(error)))
            case _:
                assert_never(message)


def _report(session: Session, outbox: _Outbox, ended: threading.Event) -> None:
    while not ended.wait(_REPORT_S):
        outbox.put(session.report())


class _Outbox:
    """Messages on their way to the supervisor: whoever puts one never waits for the pipe.

    Of reports, and of previews of a kind, only the newest is kept.
    """

    def __init__(self, link: Connection[FromCamera, ToCamera]) -> None:
        self._link = link
        self._messages: deque[FromCamera] = deque(maxlen=_KEPT)
        self._newest: dict[tuple[type[FromCamera], str], FromCamera] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._thread = start_thread("outbox", self._run)

    def put(self, message: FromCamera) -> None:
        with self._changed:
            match message:
                case SessionReport():
                    self._newest[SessionReport, ""] = message
                case Preview(kind):
                    self._newest[Preview, kind] = message
                case _:
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
                    self._link.send(message)
