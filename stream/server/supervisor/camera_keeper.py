"""One camera kept running: its process started, heard, and started again where it dies or freezes."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from stream.errors import StreamError
from stream.live.session.live_settings import LiveSettings
from stream.live.session.session_report import SessionReport
from stream.pipeline.processes import ChildProcess, start_thread
from stream.server.camera_config import is_open, next_opening
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
from stream.server.camera_process import CameraOrder, run_camera
from stream.server.supervisor.camera_status import CameraStatus, HistoryPoint, ProcessState
from stream.server.supervisor.niceness import IDLE_FROM, can_be_lifted, set_niceness
from stream.server.supervisor.viewers import Viewers

_CHANGE_S = 10.0
_HISTORY = 360
_YIELDING, _FLOODING = 10, IDLE_FROM
"""Niceness of a camera that starts or restarts, and of one that sends far more than it should."""
_SETTLING_S = 10.0
"""Threads that are just being started may inherit the niceness from before a change: it is set again."""
_FLOOD = "announces"
"""In the words of a source that sends more than it announces: decoding it costs what others need."""


@dataclass(frozen=True, slots=True)
class KeeperLimits:
    """When a camera's process is given up, and when it is started again."""

    frozen_s: float = 10.0
    """Without a report for so long it is killed."""
    start_s: float = 60.0
    """Longest wait for the first report."""
    finish_s: float = 15.0
    """Longest wait for its end once it was told to finish."""
    retry_s: float = 1.0
    retry_most_s: float = 30.0
    healthy_s: float = 60.0
    """After so long the pauses begin anew."""
    breaker_crashes: int = 5
    breaker_window_s: float = 120.0
    """So many crashes within so long open the breaker."""
    breaker_s: float = 300.0
    """Then it is tried again after so long only."""


class CameraKeeper:
    """Keeps one camera running in a thread of its own, which alone starts and ends its process.

    `turns` bounds how many processes start at a time: starting costs seconds of a core, and all at
    once they would starve each other and the cameras that run. `on_event(kind, text)` is called in
    the keeper's thread. Everything else may be called from any thread.
    """

    def __init__(
        self,
        order: CameraOrder,
        limits: KeeperLimits,
        turns: threading.BoundedSemaphore,
        on_event: Callable[[str, str], None],
    ) -> None:
        self.viewers = Viewers(lambda kinds: self._send(WatchPreviews(kinds)))
        self.restarts = 0
        self._order, self._limits, self._turns, self._on_event = order, limits, turns, on_event
        self._has_turn = False
        self._child: ChildProcess | None = None
        self._report: SessionReport | None = None
        self._history: deque[HistoryPoint] = deque(maxlen=_HISTORY)
        self._heard_at_s = self._began_at_s = 0.0
        self._state: ProcessState = "waiting"
        self._reason, self._next_at_s = "", 0.0
        self._leaving = self._renewed = False
        """Whether to end for good; whether to start again at once, with another order."""
        self._told_at_s: float | None = None
        """When the process was told to finish."""
        self._killed_for = ""
        self._crashes: deque[float] = deque(maxlen=limits.breaker_crashes)
        self._pause_s = limits.retry_s
        self._nice, self._settling_until_s = 0, 0.0
        self._answers: dict[int, str | None] = {}
        self._number = 0
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._thread: threading.Thread | None = None

    # --- steered from other threads --------------------------------------------------------------

    @property
    def order(self) -> CameraOrder:
        """What it runs by now."""
        return self._order

    def start(self) -> None:
        """Begin."""
        self._thread = start_thread(f"camera {self._order.name}", self._run)

    def renew(self, order: CameraOrder) -> None:
        """Go on with another order: the process finishes and starts again at once."""
        with self._changed:
            self._order, self._renewed = order, True
            self._crashes.clear()
            self._pause_s = self._limits.retry_s
            self._changed.notify_all()
        self._finish()

    def adopt(self, order: CameraOrder) -> None:
        """Have another order for the next start; the process that runs has been told by `change`."""
        self._order = order

    def leave(self) -> None:
        """Ask it to finish for good; returns at once."""
        with self._changed:
            self._leaving = True
            self._changed.notify_all()
        self._finish()

    def join(self, deadline_s: float) -> None:
        """Wait until it ended; kill what still runs at `deadline_s`, monotonic."""
        if self._thread is None:
            return
        self._thread.join(max(0.0, deadline_s - time.monotonic()))
        if self._thread.is_alive():
            self.kill("did not finish in time")
            self._thread.join()
        self.viewers.close()

    def kill(self, reason: str) -> None:
        """Force the process's end."""
        child = self._child
        if child is not None:
            self._killed_for = reason
            child.kill()

    def change(self, changes: LiveSettings) -> None:
        """Have the running session change; StreamError says why not. Nothing where none runs."""
        with self._changed:
            if self._state != "running":
                return
            self._number += 1
            number = self._number
        self._send(ChangeSettings(number, changes))
        with self._changed:
            answered = self._changed.wait_for(
                lambda: number in self._answers or self._state != "running", _CHANGE_S
            )
            error = self._answers.pop(number, None)
        if error or not answered:
            raise StreamError(error or f"{self._order.name}: does not answer; it may be overloaded")

    def check(self) -> None:
        """Called about twice a second: kills a process that froze, ends one whose time is over."""
        child, limits = self._child, self._limits
        if child is None:
            return
        is_slow = self._state != "running" or self._nice >= IDLE_FROM  # the others may take all there is
        patience = limits.start_s if is_slow else limits.frozen_s
        if (silent := time.monotonic() - self._heard_at_s) > patience:
            self.kill(f"no sign of life for {silent:.0f} s")
        elif self._told_at_s is not None:
            if time.monotonic() - self._told_at_s > limits.finish_s:
                self.kill("did not finish in time")
        elif not self._is_due():
            self._finish()

    def remember(self, now: float) -> None:
        """Called each 10 s: a point of the history at `now`, Unix time in s."""
        report, at = self._report, round(now, 1)
        if report is None or self._state != "running":
            point = HistoryPoint(at, None, None, None, None)
        else:
            delay = report.delay
            point = HistoryPoint(at, delay["median_ms"], delay["p95_ms"], report.load, report.fps_out)
        self._history.append(point)

    # --- asked from other threads ----------------------------------------------------------------

    def history(self) -> list[HistoryPoint]:
        """Points of the last hour, oldest first."""
        return list(self._history)

    def status(self) -> CameraStatus:
        """How it stands now."""
        order, child, state = self._order, self._child, self._state
        report = self._report if state == "running" else None
        return CameraStatus(
            name=order.name,
            settings=order.shown,
            process=state,
            words=report.words if report is not None else self._words(state),
            pid=child.pid if child is not None else 0,
            restarts=self.restarts,
            nice=self._nice,
            report=report,
        )

    def _words(self, state: ProcessState) -> str:
        reason, left_s = self._reason, max(0.0, self._next_at_s - time.monotonic())
        if state == "restarting":
            return f"restarting in {left_s:.0f} s ({reason})"
        if state == "broken":
            return (
                f"stopped after {self._limits.breaker_crashes} crashes, next try in {left_s:.0f} s ({reason})"
            )
        if state == "paused":
            return (
                f"paused by its schedule until {next_opening(self._order.settings.schedule, _now()):%a %H:%M}"
            )
        return "its source ended" if state == "ended" else state

    # --- its own thread --------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._leaving:
            if self._is_due():
                self._set("waiting")
                if self._turns.acquire(timeout=1.0):
                    self._has_turn = True
                    self._serve()
                    self._pass_turn()
            else:
                self._set("paused" if self._order.settings.enabled else "disabled")
                self._wait(1.0)
        self._set("stopped")

    def _pass_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self._turns.release()

    def _is_due(self) -> bool:
        settings = self._order.settings
        return settings.enabled and is_open(settings.schedule, _now())

    def _serve(self) -> None:
        """One life of the process, and the pause after it."""
        self._nice = _YIELDING if can_be_lifted() else min(_YIELDING, 2 * len(self._crashes))
        self._renewed, self._told_at_s, self._killed_for, self._report = False, None, "", None
        self._began_at_s = self._heard_at_s = time.monotonic()
        self._set("starting")
        failed = ""
        try:
            child = ChildProcess(
                f"gpen-stream: camera {self._order.name}", run_camera, self._order, nice=self._nice
            )
        except OSError as error:  # no memory or no process left, or it died at once
            self._pass_turn()
            return self._crashed(f"its process cannot be started ({error.strerror})")
        self._child = child
        self._send(WatchPreviews(self.viewers.kinds))
        if self._leaving or self._renewed:
            self._finish()
        try:
            while True:
                message: FromCamera = child.link.recv()
                self._heard_at_s = time.monotonic()
                if isinstance(message, SessionFailed):
                    failed = message.reason
                else:
                    self._take(message)
        except (EOFError, OSError):
            pass  # the process has ended; its exit code says how
        self._pass_turn()
        with self._sending:  # nobody writes to a link that is closed
            self._child = None
            child.end(2.0)
        if self._told_at_s is not None:
            return
        if child.exit_code == 0:
            self._set("ended")
            self._wait(None)
        else:
            self._crashed(self._killed_for or failed or ending(child.exit_code))

    def _take(self, message: SessionReport | SessionEvent | Preview | ChangeAnswer) -> None:
        match message:
            case SessionReport():
                self._report = message
                if self._state == "starting":
                    self._set("running")
                    self._pass_turn()
                self._judge(message)
            case SessionEvent(kind, text):
                self._on_event(kind, text)
            case Preview(kind, picture):
                self.viewers.show(kind, picture)
            case ChangeAnswer(number, error):
                with self._changed:
                    self._answers[number] = error
                    self._changed.notify_all()
            case _:
                assert_never(message)

    def _judge(self, report: SessionReport) -> None:
        """Once a second: how nice it has to be, and whether its past is forgotten."""
        if time.monotonic() - self._began_at_s > self._limits.healthy_s:
            self._crashes.clear()
            self._pause_s = self._limits.retry_s
        nice = _FLOODING if _FLOOD in report.detail else 0
        now, child = time.monotonic(), self._child
        if nice != self._nice and (nice > self._nice or can_be_lifted()):
            self._nice, self._settling_until_s = nice, now + _SETTLING_S
        if child is not None and now < self._settling_until_s:
            set_niceness(child.pid, self._nice)

    def _crashed(self, reason: str) -> None:
        """Wait before the next start: longer each time, and very long after many crashes."""
        now, limits = time.monotonic(), self._limits
        state: ProcessState
        self.restarts += 1
        self._crashes.append(now)
        if len(self._crashes) == limits.breaker_crashes and now - self._crashes[0] < limits.breaker_window_s:
            state, pause_s = "broken", limits.breaker_s
        else:
            state, pause_s = "restarting", self._pause_s
            self._pause_s = min(2 * self._pause_s, limits.retry_most_s)
        self._set(state, reason, pause_s)
        self._on_event("camera_restarted", self._words(state))
        self._wait(pause_s)

    def _set(self, state: ProcessState, reason: str = "", pause_s: float = 0.0) -> None:
        with self._changed:
            self._state, self._reason, self._next_at_s = state, reason, time.monotonic() + pause_s
            self._changed.notify_all()

    def _wait(self, pause_s: float | None) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._leaving or self._renewed, pause_s)
            self._renewed = False

    def _finish(self) -> None:
        """Tell the process, where one runs, to finish."""
        if self._child is not None and self._told_at_s is None:
            self._told_at_s = time.monotonic()
            self._send(Stop())

    def _send(self, message: ToCamera) -> None:
        with self._sending:
            child = self._child
            if child is not None:
                with contextlib.suppress(OSError):  # it just died; its thread sees it too
                    child.link.send(message)


def _now() -> datetime:
    return datetime.now()


def ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with code {code}; see the log"
