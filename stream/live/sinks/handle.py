"""A sink as the camera's process sees it: a queue that never blocks, and a process that is watched."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypedDict

from stream.live.packets import Finish, Message, Packet, Start
from stream.live.sinks import KINDS, SinkKind, SinkSpec
from stream.live.sinks.backlog import Backlog, counts
from stream.live.sinks.sink_process import SinkProgress, run_sink
from stream.live.status import ConnectionState, ConnectionStatus, Delays, DelaySummary
from stream.pipeline.processes import ChildProcess, start_thread

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_HEALTHY_S = 60.0
_STARTING_S = 60.0
"""A process on a busy machine needs long until its first report."""
_KILL_S = 0.2


class SinkReport(TypedDict):
    """How a sink fares, over all its processes together; a part of the session's report, in JSON."""

    name: str
    """As it is shown: without credentials."""
    kind: str
    """A key of `stream.live.sinks.KINDS`."""
    state: str
    """A value of `ConnectionState`."""
    words: str
    dropped: int
    delivered: int
    restarts: int
    pid: int
    """0 while there is no process."""
    delay: DelaySummary


class SinkHandle:
    """Runs one sink in a process of its own, and starts it again where it died or hangs.

    `offer` and `wants` may be called from any thread; `start`, `check` and `stop` from one. A process
    that says nothing for `patience_s` hangs: it is killed. `on_event(kind, text)` is called by
    `check`, once for each failure and once when the sink is well again (kind "sink_live").
    """

    def __init__(
        self,
        spec: SinkSpec,
        *,
        patience_s: float = 10.0,
        on_event: Callable[[str, str], None] = lambda kind, text: None,
    ) -> None:
        self.spec = spec
        self.delays = Delays()
        self.on_delay: Callable[[float], None] = lambda delay_ms: None
        """Called for every frame delivered, ms, in a thread of the handle's."""
        self._kind = KINDS[spec.kind]
        self._patience_s, self._on_event = patience_s, on_event
        self._run: _SinkProcess | None = None
        self._start: Start | None = None
        self._status = ConnectionStatus(ConnectionState.STOPPED)
        self._told = ""
        self._restart_at_s: float | None = None
        self._pause_s = _FIRST_PAUSE_S
        self._delivered = self._dropped = 0
        self._lock = threading.Lock()
        """Held for moments only: `offer` must not wait."""
        self.restarts = 0

    def start(self) -> None:
        """Start the process; returns at once."""
        self._begin()

    def wants(self, kind: type[Message]) -> bool:
        """Whether messages of a kind have to be made for it now."""
        if kind not in self._kind.takes:
            return False
        run = self._run
        return kind is Packet or (run is not None and run.wanted)

    def needs_keyframe(self) -> bool:
        """Whether packets are dropped until a keyframe comes."""
        run = self._run
        return Packet in self._kind.takes and run is not None and run.needs_keyframe

    def offer(self, message: Message) -> None:
        """Pass a message on, or drop and count it. Never blocks; kinds it does not take are ignored.

        A Start goes to every sink that takes packets, and again to each new process.
        """
        kind = Packet if isinstance(message, Start) else type(message)
        if kind not in self._kind.takes:
            return
        with self._lock:
            if isinstance(message, Start):
                self._start = message
            if self._run is None:
                self._dropped += counts(message)
            else:
                self._run.backlog.put(message)

    def check(self) -> None:
        """Called about five times a second: a process that died or hangs is replaced."""
        now = time.monotonic()
        run = self._run
        if run is not None:
            if not run.child.alive:
                self._lost(run, f"its process ended ({_ending(run.child.exit_code)})")
            elif now - run.heard_at_s > (self._patience_s if run.has_spoken else _STARTING_S):
                self._lost(run, f"it hung for {now - run.heard_at_s:.0f} s and was killed")
            elif now - run.began_at_s > _HEALTHY_S:
                self._pause_s = _FIRST_PAUSE_S
        elif self._restart_at_s is not None and now >= self._restart_at_s:
            self.restarts += 1
            self._begin()
        self._tell()

    def report(self) -> SinkReport:
        """How it fares now; from any thread."""
        run, status = self._run, self._status
        dropped, delivered = self._dropped, self._delivered
        if run is not None:
            status = run.status
            dropped, delivered = dropped + run.dropped, delivered + run.delivered
        return {
            "name": self.spec.shown,
            "kind": self.spec.kind,
            "state": status.state.value,
            "words": status.words(),
            "dropped": dropped,
            "delivered": delivered,
            "restarts": self.restarts,
            "pid": run.child.pid if run is not None else 0,
            "delay": self.delays.summary(),
        }

    def finish(self) -> None:
        """Ask it to deliver what waits and to end; returns at once. `stop` waits for it."""
        self._restart_at_s = None
        if self._run is not None:
            self._run.backlog.finish(Finish())

    def stop(self, timeout_s: float) -> None:
        """Deliver what waits, end the process; what hangs is killed after `timeout_s`."""
        self.finish()
        run, detail = self._run, self._status.detail
        if run is not None:
            in_time = run.child.join(timeout_s)
            self._end(run)
            well = self._status.state in (ConnectionState.LIVE, ConnectionState.CONNECTING)
            detail = "" if well else self._status.detail
            detail = detail if in_time else "did not end in time and was killed"
        self._status = ConnectionStatus(ConnectionState.STOPPED, detail)

    def _begin(self) -> None:
        self._restart_at_s = None
        try:
            run = _SinkProcess(self.spec, self._kind, self._deliver)
        except OSError as error:  # no memory, too many files: the picture goes on without it
            self._retry(f"no process can be started ({(error.strerror or str(error)).lower()})")
            return
        with self._lock:
            if self._start is not None:
                run.backlog.put(self._start)
            self._run = run

    def _deliver(self, delays_ms: Sequence[float]) -> None:
        for delay_ms in delays_ms:
            self.delays.add(delay_ms)
            self.on_delay(delay_ms)

    def _lost(self, run: _SinkProcess, reason: str) -> None:
        ended = run.status
        self._end(run)
        if ended.state is ConnectionState.STOPPED and run.child.exit_code == 0:
            return  # its user closed it: `SinkDone`
        self._retry(reason)

    def _retry(self, reason: str) -> None:
        self._restart_at_s = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._status = ConnectionStatus(ConnectionState.RETRYING, reason, self._restart_at_s)

    def _end(self, run: _SinkProcess) -> None:
        run.end()
        with self._lock:  # no frame is offered to a process whose count is closed
            self._dropped += run.dropped
            self._delivered += run.delivered
            self._status, self._run = run.status, None

    def _tell(self) -> None:
        run = self._run
        status, event = (run.status, run.event) if run is not None else (self._status, "")
        failing = (
            status.detail
            if status.state not in (ConnectionState.LIVE, ConnectionState.CONNECTING, ConnectionState.STOPPED)
            else ""
        )
        if failing and failing != self._told:
            # What a sink says names its target already; what is said of its process does not.
            self._on_event(event or "sink_failed", failing if event else f"{self.spec.shown}: {failing}")
            self._told = failing
        elif self._told and status.state is ConnectionState.LIVE:
            self._on_event("sink_live", f"{self.spec.shown}: live again")
            self._told = ""


class _SinkProcess:
    """One life of the process, with the two threads that talk to it."""

    def __init__(self, spec: SinkSpec, kind: SinkKind, on_delays: Callable[[Sequence[float]], None]) -> None:
        self.backlog = Backlog(kind.held_s, kind.overflow)
        self.began_at_s = self.heard_at_s = time.monotonic()
        self.has_spoken = False
        self.status, self.event = ConnectionStatus(ConnectionState.CONNECTING, "starting"), ""
        self.wanted = self._child_needs_keyframe = False
        self.delivered = 0
        self._sent = self._child_dropped = 0
        self._lost = False
        self._on_delays = on_delays
        self.child = ChildProcess(f"gpen-stream {spec.kind}", run_sink, spec)
        self._threads = [
            start_thread(f"to {spec.kind}", self._send), start_thread(f"from {spec.kind}", self._receive)
        ]  # fmt: skip

    @property
    def needs_keyframe(self) -> bool:
        return self.backlog.needs_keyframe or self._child_needs_keyframe

    @property
    def dropped(self) -> int:
        """On both sides; after the end also what was on its way and never delivered."""
        if self._lost:
            return self.backlog.dropped + self._sent - self.delivered
        return self.backlog.dropped + self._child_dropped

    def end(self) -> None:
        """Make sure that the process is gone and both threads have ended."""
        if self.child.alive:
            self.child.kill()
        self.child.join(_KILL_S)
        self.backlog.abandon()
        for thread in self._threads:
            thread.join()
        self.child.end(_KILL_S)
        self._lost = True

    def _send(self) -> None:
        try:
            while (message := self.backlog.get()) is not None:
                self._sent += counts(message)
                self.child.link.send(message)
        except OSError:
            return  # the process is gone: `check` sees it

    def _receive(self) -> None:
        try:
            while True:
                report: SinkProgress = self.child.link.recv()
                self.delivered, self._child_dropped = report.delivered, report.dropped
                self.wanted, self._child_needs_keyframe = report.wanted, report.needs_keyframe
                self.status, self.event = report.status, report.event
                self._on_delays(report.delays_ms)
                self.has_spoken, self.heard_at_s = True, time.monotonic()
        except (EOFError, OSError):
            return


def stop_all(handles: Sequence[SinkHandle], timeout_s: float) -> None:
    """Stop several at the same time; all have ended, or were killed, after about `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    for handle in handles:
        handle.finish()
    for handle in handles:
        handle.stop(max(0.1, deadline_s - time.monotonic()))


def _ending(code: int | None) -> str:
    return f"by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
