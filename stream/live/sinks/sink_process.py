"""The body of a sink's process: it delivers messages and reports its progress to the camera's process."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVarTuple

from stream.live.packets import EpochStart, FinishSink, JpegPicture, Message, Packet, RawPicture, Snapshot
from stream.live.sinks import KINDS, SinkSpec, create
from stream.live.sinks.backlog import is_picture
from stream.live.sinks.sink import LiveSink, SinkDone, SinkError
from stream.live.status import ConnectionState, ConnectionStatus
from stream.pipeline.backoff import Backoff
from stream.pipeline.processes import Connection

Arguments = TypeVarTuple("Arguments")

_TICK_S = 0.1
_REPORT_S = 0.2
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 15.0
_OCCASIONAL: frozenset[type[Message]] = frozenset({JpegPicture, Snapshot})
"""Messages that come only while there are viewers or faces. A sink that accepts nothing else is live once it
is open. Every other sink is live once it has delivered a picture, because some servers refuse only that."""


@dataclass(frozen=True, slots=True)
class SinkProgress:
    """State of a sink. It is sent about five times a second, so that silence means that the sink hangs."""

    status: ConnectionStatus
    event: str = ""
    """Kind of event that reports the failure; empty while all is well."""
    wanted: bool = False
    needs_keyframe: bool = False
    delivered: int = 0
    """Pictures delivered since the process began."""
    dropped: int = 0
    """Pictures dropped since the process began."""
    delays_ms: tuple[float, ...] = ()
    """Times from arrival at the source to delivery, of the frames delivered since the last report."""


def run_sink(link: Connection[SinkProgress, Message | FinishSink], spec: SinkSpec) -> None:
    """Run a sink until `FinishSink` comes or the camera's process is gone; then close it in order."""
    # A service manager signals every process of the service: the camera's process decides when a sink ends.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _SinkRunner(link, spec).run()


class _SinkRunner:
    """Opens the sink, passes messages to it, and opens a new one after a failure and a pause."""

    def __init__(self, link: Connection[SinkProgress, Message | FinishSink], spec: SinkSpec) -> None:
        self._link, self._spec = link, spec
        self._progress = _ProgressReporter(link)
        self._sink: LiveSink | None = None
        self._start: EpochStart | None = None
        self._status, self._event = ConnectionStatus(ConnectionState.CONNECTING), ""
        self._awaits_keyframe = True
        """Whether packets are dropped until a keyframe comes."""
        self._done = False
        """Whether the user has ended the sink."""
        self._backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        self._attempt_at_s = self._failed_at_s = 0.0

    def run(self) -> None:
        try:
            while True:
                if self._sink is None and not self._done and time.monotonic() >= self._attempt_at_s:
                    self._attempt(self._open)
                self._report()
                if not self._link.poll(_TICK_S):
                    self._attempt(self._idle)
                    continue
                message = self._freshest(self._link.recv())
                if isinstance(message, FinishSink):
                    break
                self._deliver(message)
        except (EOFError, OSError):
            pass  # the camera's process is gone
        finally:
            self._attempt(self._close)
        if not self._done and self._status.state in (ConnectionState.LIVE, ConnectionState.CONNECTING):
            self._status = ConnectionStatus(ConnectionState.STOPPED)
        self._report(at_once=True)

    def _freshest(self, message: Message | FinishSink) -> Message | FinishSink:
        """The newest of the pictures that wait in the pipe; the older ones are dropped."""
        end_s = time.monotonic() + _REPORT_S  # they may come faster than they can be read
        while (
            isinstance(message, (JpegPicture, RawPicture)) and self._link.poll(0) and time.monotonic() < end_s
        ):
            self._progress.dropped += 1
            message = self._link.recv()
        return message

    def _deliver(self, message: Message) -> None:
        """Pass a message to the sink, or drop it while there is no sink or a keyframe has to come first."""
        if isinstance(message, EpochStart):
            self._start, self._awaits_keyframe = message, True
        if isinstance(message, Packet):
            self._awaits_keyframe = self._awaits_keyframe and not message.keyframe
        delivered = self._progress.delivered
        skipped = isinstance(message, Packet) and self._awaits_keyframe
        if self._sink is not None and not skipped:
            self._attempt(self._write, self._sink, message)
        if is_picture(message) and self._progress.delivered == delivered:
            self._progress.dropped += 1

    def _open(self) -> None:
        sink = create(self._spec)
        self._sink = sink
        self._report(at_once=True)  # opening may take a while
        sink.open()
        self._awaits_keyframe = True
        if self._start is not None:
            sink.write(self._start)
        if KINDS[self._spec.kind].accepts <= _OCCASIONAL:
            self._set_live(sink)
        else:  # the detail may say why the last attempt failed
            self._status = ConnectionStatus(ConnectionState.CONNECTING, self._status.detail)

    def _set_live(self, sink: LiveSink) -> None:
        self._status, self._event = ConnectionStatus(ConnectionState.LIVE, sink.detail), ""

    def _write(self, sink: LiveSink, message: Message) -> None:
        sink.write(message)
        if is_picture(message):
            self._set_live(sink)
            self._progress.add_delivered(message)

    def _idle(self) -> None:
        if self._sink is not None:
            self._sink.idle()

    def _close(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.close()

    def _attempt(self, action: Callable[[*Arguments], None], *arguments: *Arguments) -> None:
        """Run one step of the sink. Where it fails, the sink is closed and a later attempt is planned."""
        try:
            action(*arguments)
            if self._sink is not None and self._status.state is ConnectionState.LIVE:
                self._set_live(self._sink)
        except SinkDone as end:
            self._done = True
            self._status, self._event = ConnectionStatus(ConnectionState.STOPPED, str(end)), ""
            self._attempt(self._close)
        except SinkError as error:
            self._fail(error)
        except Exception as error:  # whatever a library raises: the next attempt comes all the same
            reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            self._fail(SinkError(f"{self._spec.shown}: {reason}"))

    def _fail(self, error: SinkError) -> None:
        now = time.monotonic()
        self._attempt_at_s = self._backoff.next_attempt_s(now, healthy_since_s=self._failed_at_s)
        self._failed_at_s = now
        self._status = ConnectionStatus(error.state, self._spec.safe(str(error)), self._attempt_at_s)
        self._event = error.event
        with contextlib.suppress(Exception):  # the first error is the one that is reported
            self._close()

    def _report(self, *, at_once: bool = False) -> None:
        sink = self._sink
        wanted = sink is not None and sink.wanted
        needs_keyframe = sink is not None and self._awaits_keyframe and self._start is not None
        self._progress.report(self._status, self._event, wanted, needs_keyframe, at_once=at_once)


class _ProgressReporter:
    """Counts a sink's pictures. Sends a report at every change, and else every fifth of a second."""

    def __init__(self, link: Connection[SinkProgress, Message | FinishSink]) -> None:
        self.delivered = self.dropped = 0
        self._link = link
        self._delays_ms: list[float] = []
        self._reported_at_s = 0.0
        self._reported: tuple[ConnectionStatus, bool, bool] | None = None

    def add_delivered(self, message: Message) -> None:
        """Count a picture that was delivered just now."""
        self.delivered += 1
        if isinstance(message, (Packet, JpegPicture, RawPicture)) and message.arrived_at_s:
            self._delays_ms.append((time.monotonic() - message.arrived_at_s) * 1000)

    def report(
        self, status: ConnectionStatus, event: str, wanted: bool, needs_keyframe: bool, *, at_once: bool
    ) -> None:
        """Send a report if one is due, or in any case with `at_once`."""
        state = status, wanted, needs_keyframe
        due = time.monotonic() - self._reported_at_s >= _REPORT_S
        if not (at_once or due or state != self._reported):
            return
        progress = SinkProgress(
            status, event, wanted, needs_keyframe, self.delivered, self.dropped, tuple(self._delays_ms)
        )
        self._delays_ms.clear()
        self._reported_at_s, self._reported = time.monotonic(), state
        with contextlib.suppress(OSError):  # the camera's process is gone: the next `recv` notices
            self._link.send(progress)
