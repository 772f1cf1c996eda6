"""The body of a sink's process: reads messages, writes them, tells the camera's process how it fares."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVarTuple

from stream.live.packets import Finish, Jpeg, Message, Packet, Raw, Snapshot, Start
from stream.live.sinks import KINDS, SinkSpec, create
from stream.live.sinks.backlog import counts
from stream.live.sinks.sink import LiveSink, SinkDone, SinkError
from stream.live.status import ConnectionState, ConnectionStatus
from stream.pipeline.processes import Connection

Arguments = TypeVarTuple("Arguments")

_TICK_S = 0.1
_REPORT_S = 0.2
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 15.0
_HEALTHY_S = 60.0
"""After so long without an error the pause between attempts is short again."""
_NOW_AND_THEN: frozenset[type[Message]] = frozenset({Jpeg, Snapshot})
"""They come when somebody looks, or a face does: whoever takes nothing else is live once it is open.
All others are live with the first picture they have delivered: many a server refuses only that."""


@dataclass(frozen=True, slots=True)
class SinkProgress:
    """How a sink fares; sent about five times a second, so that its absence means that it hangs."""

    status: ConnectionStatus
    event: str
    """Kind of event that a failure is; empty while all is well."""
    wanted: bool
    needs_keyframe: bool
    delivered: int
    dropped: int
    """Both since the process began."""
    delays_ms: tuple[float, ...]
    """Of the frames delivered since the last report: from arrival at the source."""


def run_sink(link: Connection[SinkProgress, Message | Finish], spec: SinkSpec) -> None:
    """Until `Finish` comes or the parent is gone; then the sink is closed as it should be."""
    # A service manager signals every process of the service: the parent decides when a sink ends.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _Runner(link, spec).run()


class _Runner:
    def __init__(self, link: Connection[SinkProgress, Message | Finish], spec: SinkSpec) -> None:
        self._link, self._spec = link, spec
        self._sink: LiveSink | None = None
        self._start: Start | None = None
        self._status, self._event = ConnectionStatus(ConnectionState.CONNECTING), ""
        self._delivered = self._dropped = 0
        self._delays: list[float] = []
        self._gate_shut = True
        """Packets up to the next keyframe are dropped."""
        self._done = False
        self._pause_s, self._attempt_at_s, self._failed_at_s = _FIRST_PAUSE_S, 0.0, 0.0
        self._reported_at_s = 0.0
        self._reported: tuple[ConnectionStatus, bool, bool] | None = None

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
                if isinstance(message, Finish):
                    break
                self._take(message)
        except (EOFError, OSError):
            pass  # the camera's process is gone
        finally:
            self._attempt(self._close)
        if not self._done and self._status.state in (ConnectionState.LIVE, ConnectionState.CONNECTING):
            self._status = ConnectionStatus(ConnectionState.STOPPED)
        self._report(last=True)

    def _freshest(self, message: Message | Finish) -> Message | Finish:
        """Of several pictures that wait in the pipe the newest: nobody wants the others any more."""
        end_s = time.monotonic() + _REPORT_S  # they may come faster than they can be read
        while isinstance(message, (Jpeg, Raw)) and self._link.poll(0) and time.monotonic() < end_s:
            self._dropped += 1
            message = self._link.recv()
        return message

    def _take(self, message: Message) -> None:
        if isinstance(message, Start):
            self._start, self._gate_shut = message, True
        if isinstance(message, Packet):
            self._gate_shut = self._gate_shut and not message.keyframe
        before = self._delivered
        shut = isinstance(message, Packet) and self._gate_shut
        if self._sink is not None and not shut:
            self._attempt(self._write, self._sink, message)
        self._dropped += counts(message) and self._delivered == before

    def _open(self) -> None:
        sink = create(self._spec)
        self._sink = sink
        self._report(now=True)  # opening may take a while
        sink.open()
        self._gate_shut = True
        if self._start is not None:
            sink.write(self._start)
        if KINDS[self._spec.kind].takes <= _NOW_AND_THEN:
            self._live(sink)
        else:
            self._status = ConnectionStatus(
                ConnectionState.CONNECTING, self._status.detail
            )  # or why it failed before

    def _live(self, sink: LiveSink) -> None:
        self._status, self._event = ConnectionStatus(ConnectionState.LIVE, sink.detail), ""

    def _write(self, sink: LiveSink, message: Message) -> None:
        sink.write(message)
        if not counts(message):
            return
        self._live(sink)
        self._delivered += 1
        if isinstance(message, (Packet, Jpeg, Raw)) and message.arrived_at_s:
            self._delays.append((time.monotonic() - message.arrived_at_s) * 1000)

    def _idle(self) -> None:
        if self._sink is not None:
            self._sink.idle()

    def _close(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.close()

    def _attempt(self, action: Callable[[*Arguments], None], *arguments: *Arguments) -> None:
        """Run one step of the sink; where it fails the sink is closed and a later attempt is planned."""
        try:
            action(*arguments)
            if self._sink is not None and self._status.state is ConnectionState.LIVE:
                self._live(self._sink)
        except SinkDone as end:
            self._done = True
            self._status, self._event = ConnectionStatus(ConnectionState.STOPPED, str(end)), ""
            self._attempt(self._close)
        except SinkError as error:
            self._fail(error)
        except Exception as error:  # whatever it is, the picture's other sinks and the next attempt go on
            reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            self._fail(SinkError(f"{self._spec.shown}: {reason}"))

    def _fail(self, error: SinkError) -> None:
        now = time.monotonic()
        if now - self._failed_at_s > _HEALTHY_S:
            self._pause_s = _FIRST_PAUSE_S
        self._failed_at_s = now
        self._attempt_at_s, self._pause_s = now + self._pause_s, min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._status, self._event = (
            ConnectionStatus(error.state, self._spec.safe(str(error)), self._attempt_at_s),
            error.event,
        )
        sink, self._sink = self._sink, None
        if sink is not None:
            with contextlib.suppress(Exception):  # the first error is the one that is told
                sink.close()

    def _report(self, *, now: bool = False, last: bool = False) -> None:
        wanted = self._sink is not None and self._sink.wanted
        needs_keyframe = self._sink is not None and self._gate_shut and self._start is not None
        key = self._status, wanted, needs_keyframe
        due = time.monotonic() - self._reported_at_s >= _REPORT_S
        if not (now or last or due or key != self._reported):
            return
        report = SinkProgress(
            self._status, self._event, wanted, needs_keyframe, self._delivered, self._dropped,
            tuple(self._delays),
        )  # fmt: skip
        self._delays.clear()
        self._reported_at_s, self._reported = time.monotonic(), key
        try:
            self._link.send(report)
        except OSError:
            return  # the camera's process is gone: the next reading tells
