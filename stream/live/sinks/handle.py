"""A sink as the camera's process sees it: a queue that never blocks, and a process that is supervised."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypedDict

from stream.live.packets import EpochStart, FinishSink, Message, Packet
from stream.live.sinks import KINDS, SinkKind, SinkSpec
from stream.live.sinks.backlog import Backlog, is_picture
from stream.live.sinks.sink_process import SinkProgress, run_sink
from stream.live.status import ConnectionState, ConnectionStatus, Delays, DelaySummary
from stream.pipeline.backoff import Backoff
from stream.pipeline.processes import ChildProcess, start_thread

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_STARTING_S = 60.0
"""A new process may need this long until its first report: a busy machine is slow."""
_KILL_S = 0.2
_HEALTHY = (ConnectionState.LIVE, ConnectionState.CONNECTING)


class SinkReport(TypedDict):
    """How a sink stands, over all its processes together; a part of the session's report, in JSON."""

    name: str
    """The sink as it is shown, without credentials."""
    kind: str
    """A key of `stream.live.sinks.KINDS`."""
    state: str
    """A value of `ConnectionState`."""
    words: str
    """The state with its reason, in words."""
    dropped: int
    """Number of pictures dropped."""
    delivered: int
    """Number of pictures delivered."""
    restarts: int
    """How often its process was replaced."""
    pid: int
    """Id of the process; 0 while there is none."""
    delay: DelaySummary


class SinkHandle:
    """Runs one sink in a process of its own, and replaces a process that died or hangs.

    `offer` and `wants` may be called from any thread; `start`, `check` and `stop` from one. A process
    that sends no report for `hang_timeout_s` is killed. `check` calls `on_event(kind, text)` once for each
    failure, and once when the sink is live again (kind "sink_live"). `on_delay(delay_ms)` is called for every
    frame delivered, in a thread of the handle.
    """

    def __init__(
        self,
        spec: SinkSpec,
        *,
        hang_timeout_s: float = 10.0,
        on_event: Callable[[str, str], None] = lambda kind, text: None,
        on_delay: Callable[[float], None] = lambda delay_ms: None,
    ) -> None:
        self.spec = spec
        self.delays = Delays()
        """Times from a frame's arrival to its delivery by this sink."""
        self.restarts = 0
        self._kind = KINDS[spec.kind]
        self._hang_timeout_s, self._on_delay = hang_timeout_s, on_delay
        self._events = _FailureEvents(spec.shown, on_event)
        self._process: _SinkProcess | None = None
        self._start: EpochStart | None = None
        """The newest start of an epoch, which each new process needs."""
        self._status = ConnectionStatus(ConnectionState.STOPPED)
        """The status while there is no process."""
        self._backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        self._restart_at_s: float | None = None
        self._delivered = self._dropped = 0
        """Counts of the processes that have ended, and of the times without a process."""
        self._lock = threading.Lock()
        """Held only for moments, because `offer` must not wait."""

    def start(self) -> None:
        """Start the process; returns at once. Where that fails, `check` tries again later."""
        self._restart_at_s = None
        try:
            process = _SinkProcess(self.spec, self._kind, self._add_delays)
        except OSError as error:  # no memory, too many files: the session goes on without this sink
            reason = f"no process can be started ({(error.strerror or str(error)).lower()})"
            self._plan_restart(reason, healthy_since_s=time.monotonic())
            return
        with self._lock:
            if self._start is not None:
                process.backlog.put(self._start)
            self._process = process

    def wants(self, kind: type[Message]) -> bool:
        """Whether messages of this kind have to be made for the sink now."""
        if kind not in self._kind.accepts:
            return False
        process = self._process
        return kind is Packet or (process is not None and process.progress.wanted)

    def needs_keyframe(self) -> bool:
        """Whether the sink drops packets until a keyframe comes."""
        process = self._process
        return Packet in self._kind.accepts and process is not None and process.needs_keyframe

    def offer(self, message: Message) -> None:
        """Pass a message on, or drop and count it. Never blocks; kinds that it does not accept are ignored.

        An EpochStart goes to every sink that accepts packets, and again to each new process.
        """
        kind = Packet if isinstance(message, EpochStart) else type(message)
        if kind not in self._kind.accepts:
            return
        with self._lock:
            if isinstance(message, EpochStart):
                self._start = message
            if self._process is None:
                self._dropped += is_picture(message)
            else:
                self._process.backlog.put(message)

    def check(self) -> None:
        """Replace a process that died or hangs, and report failures; to be called several times a second."""
        now = time.monotonic()
        process = self._process
        if process is not None:
            silent_s = now - process.reported_at_s
            if not process.child.alive:
                self._lose(process, f"its process ended ({_ending(process.child.exit_code)})")
            elif silent_s > (self._hang_timeout_s if process.has_reported else _STARTING_S):
                self._lose(process, f"it hung for {silent_s:.0f} s and was killed")
        elif self._restart_at_s is not None and now >= self._restart_at_s:
            self.restarts += 1
            self.start()
        process = self._process
        if process is not None:
            self._events.update(process.progress.status, process.progress.event)
        else:
            self._events.update(self._status)

    def report(self) -> SinkReport:
        """How the sink stands now; from any thread."""
        process, status = self._process, self._status
        dropped, delivered = self._dropped, self._delivered
        if process is not None:
            status = process.progress.status
            dropped, delivered = dropped + process.dropped, delivered + process.progress.delivered
        return {
            "name": self.spec.shown,
            "kind": self.spec.kind,
            "state": status.state.value,
            "words": status.words(),
            "dropped": dropped,
            "delivered": delivered,
            "restarts": self.restarts,
            "pid": process.child.pid if process is not None else 0,
            "delay": self.delays.summary(),
        }

    def finish(self) -> None:
        """Ask the process to deliver what waits and to end; returns at once. `stop` waits for it."""
        self._restart_at_s = None
        if self._process is not None:
            self._process.backlog.finish(FinishSink())

    def stop(self, timeout_s: float) -> None:
        """Deliver what waits and end the process; one that hangs is killed after `timeout_s`."""
        self.finish()
        process, detail = self._process, self._status.detail
        if process is not None:
            in_time = process.child.join(timeout_s)
            self._end(process)
            if not in_time:
                detail = "did not end in time and was killed"
            else:
                detail = "" if self._status.state in _HEALTHY else self._status.detail
        self._status = ConnectionStatus(ConnectionState.STOPPED, detail)

    def _add_delays(self, delays_ms: Sequence[float]) -> None:
        for delay_ms in delays_ms:
            self.delays.add(delay_ms)
            self._on_delay(delay_ms)

    def _lose(self, process: _SinkProcess, reason: str) -> None:
        """End a process that failed, and plan the next one, unless the user has closed the sink."""
        state = process.progress.status.state
        self._end(process)
        if state is ConnectionState.STOPPED and process.child.exit_code == 0:
            return  # `SinkDone`
        self._plan_restart(reason, process.began_at_s)

    def _plan_restart(self, reason: str, healthy_since_s: float) -> None:
        self._restart_at_s = self._backoff.next_attempt_s(time.monotonic(), healthy_since_s)
        self._status = ConnectionStatus(ConnectionState.RETRYING, reason, self._restart_at_s)

    def _end(self, process: _SinkProcess) -> None:
        process.end()
        with self._lock:  # from here on no message goes to a process whose frames were counted
            self._dropped += process.dropped
            self._delivered += process.progress.delivered
            self._status, self._process = process.progress.status, None


class _FailureEvents:
    """Reports each failure of a sink once, and once that it is live again."""

    def __init__(self, name: str, on_event: Callable[[str, str], None]) -> None:
        self._name, self._on_event = name, on_event
        self._failure = ""
        """The failure that was reported last; empty while the sink is well."""

    def update(self, status: ConnectionStatus, event: str = "") -> None:
        """Compare the sink's status with what was reported.

        `event` is the kind of event that the sink gave for its failure; it is empty for a failure of the
        sink's process, whose text does not name the sink.
        """
        failure = "" if status.state in (*_HEALTHY, ConnectionState.STOPPED) else status.detail
        if failure and failure != self._failure:
            self._failure = failure
            self._on_event(event or "sink_failed", failure if event else f"{self._name}: {failure}")
        elif self._failure and status.state is ConnectionState.LIVE:
            self._failure = ""
            self._on_event("sink_live", f"{self._name}: live again")


class _SinkProcess:
    """A process that runs a sink, and the two threads that exchange messages with it."""

    def __init__(self, spec: SinkSpec, kind: SinkKind, on_delays: Callable[[Sequence[float]], None]) -> None:
        self.backlog = Backlog(kind.max_wait_s, kind.overflow)
        self.progress = SinkProgress(ConnectionStatus(ConnectionState.CONNECTING, "starting"))
        """The last report of the process."""
        self.began_at_s = self.reported_at_s = time.monotonic()
        self.has_reported = False
        self._sent = 0
        """Pictures that were sent to the process."""
        self._ended = False
        self._on_delays = on_delays
        self.child = ChildProcess(f"gpen-stream {spec.kind}", run_sink, spec)
        self._threads = [
            start_thread(f"to {spec.kind}", self._send), start_thread(f"from {spec.kind}", self._receive)
        ]  # fmt: skip

    @property
    def needs_keyframe(self) -> bool:
        """Whether a keyframe is needed here or in the process."""
        return self.backlog.needs_keyframe or self.progress.needs_keyframe

    @property
    def dropped(self) -> int:
        """Pictures dropped here and in the process; after `end` also those sent and never delivered."""
        if self._ended:
            return self.backlog.dropped + self._sent - self.progress.delivered
        return self.backlog.dropped + self.progress.dropped

    def end(self) -> None:
        """Make sure that the process and both threads have ended."""
        if self.child.alive:
            self.child.kill()
        self.child.join(_KILL_S)
        self.backlog.abandon()
        for thread in self._threads:
            thread.join()
        self.child.end(_KILL_S)
        self._ended = True

    def _send(self) -> None:
        try:
            while (message := self.backlog.get()) is not None:
                self._sent += is_picture(message)
                self.child.link.send(message)
        except OSError:
            return  # the process is gone: `SinkHandle.check` notices

    def _receive(self) -> None:
        try:
            while True:
                progress: SinkProgress = self.child.link.recv()
                self.progress = progress
                self._on_delays(progress.delays_ms)
                self.has_reported, self.reported_at_s = True, time.monotonic()
        except (EOFError, OSError):
            return


def stop_all(handles: Sequence[SinkHandle], timeout_s: float) -> None:
    """Stop several sinks at the same time; each has ended, or was killed, after about `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    for handle in handles:
        handle.finish()
    for handle in handles:
        handle.stop(max(0.1, deadline_s - time.monotonic()))


def _ending(code: int | None) -> str:
    return f"by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
