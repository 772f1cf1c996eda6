"""One camera kept running: its process is started, read, and started again after a crash or a freeze."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from stream.live.session.live_settings import LiveSettings
from stream.live.session.session_report import SessionReport
from stream.pipeline.processes import start_thread
from stream.server.camera_messages import ExtendLease, Preview, SessionEvent, WatchPreviews
from stream.server.camera_process import CameraSpec
from stream.server.opening_hours import is_open, next_opening
from stream.server.supervisor.camera_handle import CameraHandle
from stream.server.supervisor.camera_status import CameraStatus, HistoryPoint, ProcessState
from stream.server.supervisor.niceness import CameraNiceness
from stream.server.supervisor.restart_policy import RestartPolicy, SupervisionLimits
from stream.server.supervisor.viewers import Viewers

_HISTORY_POINTS = 360
_POLL_S = 1.0
"""Longest pause before the schedule, or the number of processes that start, is looked at again."""
_FLOOD = "announces"
"""Part of the report's `detail` if the source sends more than it announces. Decoding that takes the
processor from the other cameras."""


@dataclass(frozen=True, slots=True)
class _Phase:
    """State of the process, and when it changes."""

    state: ProcessState
    reason: str = ""
    """Why the process does not run."""
    retry_at_s: float = 0.0
    """`time.monotonic()` of the next start, after a crash."""


class StartPermit:
    """One camera's share in a semaphore that bounds how many processes start at the same time."""

    def __init__(self, semaphore: threading.BoundedSemaphore) -> None:
        self._semaphore = semaphore
        self._held = False

    def acquire(self, timeout_s: float) -> bool:
        """Wait for a free permit; False if none came free in time."""
        self._held = self._semaphore.acquire(timeout=timeout_s)
        return self._held

    def release(self) -> None:
        """Give the permit back, if it is held."""
        if self._held:
            self._held = False
            self._semaphore.release()


class CameraSupervisor:
    """Keeps one camera running.

    A thread of its own starts the process, reads its messages and waits for its end. Other methods may
    be called from any thread. `start_permits` bounds how many cameras start at the same time: a start
    takes seconds of a core, and many at once would slow each other and the cameras that run.
    `on_event(kind, text)` is called in the camera's thread.
    """

    def __init__(
        self,
        spec: CameraSpec,
        limits: SupervisionLimits,
        start_permits: threading.BoundedSemaphore,
        on_event: Callable[[str, str], None],
    ) -> None:
        self.viewers = Viewers(self._watch_previews)
        self._spec, self._limits, self._on_event = spec, limits, on_event
        self._policy = RestartPolicy(limits)
        self._permit = StartPermit(start_permits)
        self._niceness = CameraNiceness()
        self._process: CameraHandle | None = None
        self._phase = _Phase("waiting")
        self._report: SessionReport | None = None
        self._history: deque[HistoryPoint] = deque(maxlen=_HISTORY_POINTS)
        self._stopping = self._restarting = False
        """Whether to end for good; whether to start again at once, with another spec."""
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    # --- control ---------------------------------------------------------------------------------

    @property
    def spec(self) -> CameraSpec:
        """The settings that the camera runs with, and those that the next process starts with."""
        return self._spec

    def start(self) -> None:
        """Start the camera's thread; returns at once."""
        self._thread = start_thread(f"camera {self._spec.name}", self._run)

    def restart(self, spec: CameraSpec) -> None:
        """Run with another spec: the process ends, and another starts at once."""
        with self._changed:
            self._spec, self._restarting = spec, True
            self._policy.reset()
            self._changed.notify_all()
        self._stop_process()

    def update_spec(self, spec: CameraSpec) -> None:
        """Keep another spec for the next start; `change` has told the process that runs."""
        self._spec = spec

    def extend_lease(self, until_s: float) -> None:
        """Put off the end of the camera's lease to that `time.monotonic()`."""
        lease, process = self._spec.lease, self._process
        if lease is not None:
            lease.until_s = until_s
        if process is not None:
            process.send(ExtendLease(until_s))

    def request_stop(self) -> None:
        """Tell the process to end for good; returns at once."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._stop_process()

    def join(self, deadline_s: float) -> None:
        """Wait for the end, and kill what still runs at `deadline_s` (`time.monotonic()`)."""
        if self._thread is None:
            return
        self._thread.join(max(0.0, deadline_s - time.monotonic()))
        if self._thread.is_alive():
            process = self._process
            if process is not None:
                process.kill("did not finish in time")
            self._thread.join()
        self.viewers.close()

    def change(self, changes: LiveSettings) -> None:
        """Change the settings of the running session; nothing happens if none runs.

        Raises StreamError if the session refuses the change, or does not answer.
        """
        process = self._process
        if process is not None and self._phase.state == "running":
            process.change(changes)

    def check(self) -> None:
        """Kill a process that is frozen, and stop one that is not to run now; called twice a second."""
        process, limits, lease = self._process, self._limits, self._spec.lease
        if process is None:
            return
        if lease is not None and lease.left_s() <= 0:
            process.request_stop()
            process.kill("its lease is over")
            return
        is_slow = self._phase.state != "running" or self._niceness.is_idle
        if (silence_s := process.silence_s()) > (limits.start_s if is_slow else limits.frozen_s):
            process.kill(f"no sign of life for {silence_s:.0f} s")
        elif process.stop_requested:
            if process.stopping_s() > limits.finish_s:
                process.kill("did not finish in time")
        elif not self._is_due():
            process.request_stop()

    def record_history(self, now: float) -> None:
        """Add a point to the history, at `now` in Unix time (s); called every 10 s."""
        report = self._report if self._phase.state == "running" else None
        self._history.append(HistoryPoint.of(report, now))

    # --- status ----------------------------------------------------------------------------------

    def history(self) -> list[HistoryPoint]:
        """Points of the last hour, oldest first."""
        return list(self._history)

    def status(self) -> CameraStatus:
        """The state of the camera now."""
        spec, process, phase = self._spec, self._process, self._phase
        report = self._report if phase.state == "running" else None
        return CameraStatus(
            name=spec.name,
            settings=spec.redacted,
            process=phase.state,
            words=report.words if report is not None else self._describe(phase),
            pid=process.pid if process is not None else 0,
            restarts=self._policy.restarts,
            nice=self._niceness.value,
            report=report,
        )

    def _describe(self, phase: _Phase) -> str:
        """The state of the process, for people."""
        left_s = max(0.0, phase.retry_at_s - time.monotonic())
        match phase.state:
            case "restarting":
                return f"restarting in {left_s:.0f} s ({phase.reason})"
            case "broken":
                crashes = self._limits.breaker_crashes
                return f"stopped after {crashes} crashes, next try in {left_s:.0f} s ({phase.reason})"
            case "paused":
                opening = next_opening(self._spec.settings.schedule, datetime.now())
                return f"paused by its schedule until {opening:%a %H:%M}"
            case "ended":
                return "its source ended"
            case _:
                return phase.state

    # --- the camera's thread ---------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            if not self._is_due():
                self._set_phase(self._resting_state())
                self._wait(_POLL_S)
                continue
            self._set_phase("waiting")
            if self._permit.acquire(_POLL_S):
                self._run_process()
                self._permit.release()
        self._set_phase("stopped")

    def _run_process(self) -> None:
        """Start the process, read its messages until it ends, and wait as long as its end asks for."""
        nice = self._niceness.start(self._policy.recent_crashes)
        self._restarting = False
        self._set_phase("starting")
        try:
            process = CameraHandle(self._spec, nice)
        except OSError as error:  # no memory or no process is left, or it died at once
            self._permit.release()
            self._wait_after_crash(f"its process cannot be started ({error.strerror})")
            return
        self._process = process
        process.send(WatchPreviews(self.viewers.kinds))
        if self._stopping or self._restarting:
            process.request_stop()
        for message in process.messages():
            self._handle(message, process)
        self._permit.release()
        self._process = None
        process.end()
        if process.stop_requested:
            return
        if process.exit_code == 0:
            self._set_phase("ended")
            self._wait(None)
        else:
            self._wait_after_crash(process.end_reason)

    def _handle(self, message: SessionReport | SessionEvent | Preview, process: CameraHandle) -> None:
        match message:
            case SessionReport():
                self._report = message
                if self._phase.state == "starting":
                    self._set_phase("running")
                    self._permit.release()
                if process.age_s() > self._limits.healthy_s:
                    self._policy.reset()
                self._niceness.adjust(process.pid, floods=_FLOOD in message.detail)
            case SessionEvent(kind, text):
                self._on_event(kind, text)
            case Preview(kind, picture):
                self.viewers.show(kind, picture)
            case _:
                assert_never(message)

    def _wait_after_crash(self, reason: str) -> None:
        """Wait before the next start: longer after each crash, and very long after many."""
        pause_s, is_broken = self._policy.record_crash()
        self._set_phase("broken" if is_broken else "restarting", reason, pause_s)
        self._on_event("camera_restarted", self._describe(self._phase))
        self._wait(pause_s)

    def _wait(self, pause_s: float | None) -> None:
        """Wait until the camera is to stop or to restart, and `pause_s` at most."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._restarting, pause_s)
            self._restarting = False

    # --- shared ----------------------------------------------------------------------------------

    def _is_due(self) -> bool:
        """Whether the camera is enabled, and its schedule and its lease let it run now."""
        settings, lease = self._spec.settings, self._spec.lease
        may_run = lease is None or not lease.is_ending()
        return settings.enabled and may_run and is_open(settings.schedule, datetime.now())

    def _resting_state(self) -> ProcessState:
        settings = self._spec.settings
        if not settings.enabled:
            return "disabled"
        return "waiting" if is_open(settings.schedule, datetime.now()) else "paused"

    def _set_phase(self, state: ProcessState, reason: str = "", pause_s: float = 0.0) -> None:
        self._phase = _Phase(state, reason, time.monotonic() + pause_s)

    def _stop_process(self) -> None:
        process = self._process
        if process is not None:
            process.request_stop()

    def _watch_previews(self, kinds: frozenset[str]) -> None:
        process = self._process
        if process is not None:
            process.send(WatchPreviews(kinds))
