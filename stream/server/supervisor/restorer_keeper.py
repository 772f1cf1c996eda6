"""The one restorer of all cameras kept running."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Never

from stream.pipeline.cpu_budget import available_cores
from stream.pipeline.processes import ChildProcess, Connection, start_thread
from stream.server.restorer_service.protocol import RestorerAddress
from stream.server.restorer_service.restorer_messages import RestorerReport
from stream.server.supervisor.camera_keeper import ending
from stream.server.supervisor.camera_status import RestorerStatus

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 15.0
_HEALTHY_S = 60.0
_FROZEN_S = 60.0
"""It says nothing while it computes, and one crop of the largest network takes many seconds."""


class RestorerKeeper:
    """Runs the restorer in a process of its own, and starts it again where it dies or hangs.

    Meanwhile cameras let their pictures pass; they meet the next one by themselves.
    """

    def __init__(self, place: RestorerAddress, on_event: Callable[[str, str], None]) -> None:
        self.restarts = 0
        self._place, self._on_event = place, on_event
        self._child: ChildProcess | None = None
        self._report: RestorerReport | None = None
        self._heard_at_s = 0.0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = start_thread("restorer", self._run)

    def check(self) -> None:
        """Called about twice a second: one that hangs is killed."""
        child = self._child
        if child is not None and time.monotonic() - self._heard_at_s > _FROZEN_S:
            child.kill()

    def status(self) -> RestorerStatus:
        """How it stands now."""
        child = self._child
        return RestorerStatus(child.pid if child is not None else 0, self.restarts, self._report)

    def stop(self) -> None:
        """End it; nothing waits in it that is worth keeping."""
        self._ended.set()
        child = self._child
        if child is not None:
            child.kill()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._ended.is_set():
            began_s = time.monotonic()
            reason = self._serve()
            if self._ended.is_set():
                return
            self.restarts += 1
            self._report = None
            if time.monotonic() - began_s > _HEALTHY_S:
                pause_s = _FIRST_PAUSE_S
            self._on_event("restorer_restarted", f"{reason}; it starts again in {pause_s:g} s")
            self._ended.wait(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _serve(self) -> str:
        """One life of the process; why it ended."""
        self._heard_at_s = time.monotonic()
        try:
            child = ChildProcess("gpen-stream: restorer", _body, self._place, available_cores())
        except OSError as error:
            return f"the restorer cannot be started ({error.strerror})"
        self._child = child
        if self._ended.is_set():
            child.kill()
        try:
            while True:
                self._report = child.link.recv()
                self._heard_at_s = time.monotonic()
        except (EOFError, OSError):
            pass  # the process has ended; its exit code says how
        self._child = None
        child.end(2.0)
        return f"the restorer: {ending(child.exit_code)}"


def _body(link: Connection[RestorerReport, Never], place: RestorerAddress, threads: int) -> None:
    from stream.server.restorer_service import run_restorer  # engines are loaded in this process only

    run_restorer(link, place, threads)
