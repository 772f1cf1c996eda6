"""The process of one camera: it runs the session, obeys the supervisor and reports to it over a pipe."""

from __future__ import annotations

import contextlib
import math
import queue
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from stream.errors import StreamError
from stream.live.session.live_settings import LiveSettings
from stream.live.session.session_report import SessionReport
from stream.live.sinks import SinkSpec
from stream.live.source.address import parse_address, redact
from stream.pipeline.cpu_budget import available_cores
from stream.pipeline.processes import Connection, start_thread
from stream.server.camera_config import CameraSettings
from stream.server.camera_lease import CameraLease, end_this_process_at, prepare_to_end
from stream.server.camera_messages import (
    ChangeAnswer,
    ChangeSettings,
    ExtendLease,
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
"""Time between two reports."""
_POLL_S = 0.2
_RESTORER_S = 5.0
"""Longest wait for the restorer: the session has to end within 10 s even then."""
_TERMINATED_EXIT_CODE = 128 + signal.SIGTERM
_OUTBOX_CAPACITY = 200
"""Events and answers that may wait for the supervisor; beyond it the oldest are dropped."""


@dataclass(frozen=True, slots=True)
class CameraSpec:
    """All that a camera's process has to know."""

    name: str
    settings: CameraSettings
    data_folder: Path
    """Folder of sinks whose path is relative."""
    redacted: CameraSettings
    """The settings, with *** in place of credentials."""
    passing: bool = False
    """Whether frames go out unchanged: what was last set while the camera ran."""
    restorer: RestorerAddress | None = None
    """Address of the restorer of all cameras; None: this process restores by itself."""
    lease: CameraLease | None = None
    """Until when the camera may run; None: for ever."""

    def sinks(self) -> list[SinkSpec]:
        """The camera's sinks."""
        number = self.lease.number if self.lease is not None else 0
        return [replace(sink, lease=number) for sink in self.settings.sinks(self.data_folder)]


def run_camera(link: Connection[FromCamera, ToCamera], spec: CameraSpec) -> None:
    """Run the camera until it is told to stop, gets SIGTERM or loses the supervisor; flush the sinks then.

    The process ends with code 0, 1 after a failure or 143 after SIGTERM. If it has a lease, the kernel kills
    it by SIGALRM when that is over.
    """
    stop, ended, terminated = threading.Event(), threading.Event(), threading.Event()

    def terminate(*_: object) -> None:
        terminated.set()
        stop.set()

    signal.signal(signal.SIGTERM, terminate)
    inbox = _Inbox(link, spec.lease, stop)
    outbox = _Outbox(link)
    failures: list[BaseException] = []

    def fail(error: BaseException) -> None:
        """Report the reason and end the session. Credentials in the traceback are masked."""
        failures.append(error)
        if not isinstance(error, StreamError):
            print(redact("".join(traceback.format_exception(error))), file=sys.stderr, flush=True)
        outbox.put(SessionFailed(_single_line(error)))
        stop.set()

    threading.excepthook = lambda failure: fail(failure.exc_value or failure.exc_type())
    try:
        session = _create_session(spec, outbox)
        threads = [
            start_thread("commands", _obey, inbox, session, outbox, stop, ended),
            start_thread("reports", _send_reports, session, outbox, ended),
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
        inbox.close()
        outbox.close()
    if failures or terminated.is_set():
        raise SystemExit(1 if failures else _TERMINATED_EXIT_CODE)


def _single_line(error: BaseException) -> str:
    """The error's message in one line without credentials."""
    text = redact(" ".join(str(error).split()))
    return text if isinstance(error, StreamError) else f"{type(error).__name__}: {text}"


def _create_session(spec: CameraSpec, outbox: _Outbox) -> Session:
    # Imported here because it takes a second and more, which the supervisor does without.
    from stream.live.session.session import Session

    settings, config = spec.settings, spec.settings.config()
    # Cameras run at the same time, so more threads in each gain nothing. The detector is an exception:
    # all later frames wait for it.
    sections = {
        name: section.model_copy(update={"threads": section.threads or threads})
        for name, section, threads in (
            ("decode", config.decode, 1),
            ("encode", config.encode, 1),
            ("restore", config.restore, max(1, available_cores() // 2)),
        )
    }
    session = Session(
        spec.name,
        parse_address(settings.source),
        spec.sinks(),
        config.model_copy(update=sections),
        preset=settings.preset,
        create_engine=_remote_engine(spec, spec.restorer) if spec.restorer is not None else None,
        on_event=lambda kind, text: outbox.put(SessionEvent(kind, text)),
        on_preview=lambda kind, picture: outbox.put(Preview(kind, picture)),
    )
    if spec.passing:
        session.change(LiveSettings(passing=True))
    return session


def _remote_engine(spec: CameraSpec, address: RestorerAddress) -> Callable[[Config, ModelInfo], Engine]:
    from stream.models import registry
    from stream.server.restorer_service.remote_engine import RemoteEngine

    def create(config: Config, model: ModelInfo) -> Engine:
        restore = config.restore
        path = registry.resolve(restore.model, accept_licence=restore.accept_licence)
        priority = spec.settings.priority
        return RemoteEngine(
            address, spec.name, model, path, restore, priority=priority, timeout_s=_RESTORER_S
        )

    return create


def _obey(
    inbox: _Inbox,
    session: Session,
    outbox: _Outbox,
    stop: threading.Event,
    ended: threading.Event,
) -> None:
    """Carry out what the supervisor sends, until the session has ended."""
    while not ended.is_set():
        try:
            message = inbox.commands.get(timeout=_POLL_S)
        except queue.Empty:
            continue
        match message:
            case Stop():
                stop.set()
            case WatchPreviews(kinds):
                session.watch(kinds)
            case ChangeSettings(number, changes):
                try:
                    session.change(changes)
                    outbox.put(ChangeAnswer(number, None))
                except Exception as error:  # the camera keeps its settings
                    outbox.put(ChangeAnswer(number, _single_line(error)))
            case ExtendLease():
                pass  # the inbox has done it
            case _:
                assert_never(message)


def _send_reports(session: Session, outbox: _Outbox, ended: threading.Event) -> None:
    while not ended.wait(_REPORT_S):
        outbox.put(session.report())


class _Inbox:
    """Reads what the supervisor sends, from the first moment on.

    A lease has to be extended in time, also while the session is being created or a command is carried out.
    """

    def __init__(
        self, link: Connection[FromCamera, ToCamera], lease: CameraLease | None, stop: threading.Event
    ) -> None:
        """To be called in the main thread. `stop` is set when the supervisor is gone."""
        self.commands: queue.SimpleQueue[ToCamera] = queue.SimpleQueue()
        self._link, self._stop = link, stop
        self._closed = threading.Event()
        self._until_s = lease.until_s if lease is not None else math.inf
        if lease is not None:
            prepare_to_end()
            # This process may have taken long to start: what extends its lease is in the pipe then.
            while self._read(0):
                pass
            end_this_process_at(self._until_s)
        self._thread = start_thread("inbox", self._run)

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.is_set():
            if self._read(_POLL_S) and self._until_s < math.inf:
                end_this_process_at(self._until_s)

    def _read(self, timeout_s: float) -> bool:
        """Read one message, if one comes in time."""
        try:
            if not self._link.poll(timeout_s):
                return False
            message = self._link.recv()
        except (EOFError, OSError):  # the supervisor is gone
            self._stop.set()
            self._closed.set()
            return False
        if isinstance(message, ExtendLease):
            self._until_s = message.until_s
        else:
            self.commands.put(message)
        return True


class _Outbox:
    """A queue of messages to the supervisor: `put` never waits for the pipe.

    Of the reports, and of the previews of one kind, only the newest waits.
    """

    def __init__(self, link: Connection[FromCamera, ToCamera]) -> None:
        self._link = link
        self._messages: deque[FromCamera] = deque(maxlen=_OUTBOX_CAPACITY)
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
        """Send the messages that wait, unless the supervisor is gone, and end."""
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
