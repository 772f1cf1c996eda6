"""The restorer that all cameras share, kept running."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Never

from stream.pipeline.backoff import Backoff
from stream.pipeline.cpu_budget import available_cores
from stream.pipeline.processes import ChildProcess, Connection, start_thread
from stream.server.restorer_service.protocol import RestorerAddress
from stream.server.restorer_service.restorer_messages import RestorerReport
from stream.server.supervisor.camera_status import RestorerStatus
from stream.server.supervisor.restart_policy import describe_exit

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 15.0
"""Pauses before a restart; they double from the first to the longest."""
_HEALTHY_S = 60.0
"""After a process that ran this long the pauses begin anew."""
_FROZEN_S = 60.0
"""A process that sends no report for this long is killed. It sends none while a network computes, and one
crop takes the largest network many seconds."""


class RestorerSupervisor:
    """Runs the restorer in its own process, and starts it again when it dies or freezes.

    While none runs, cameras let their pictures pass unrestored. They connect to the next one by themselves.
    `on_event(kind, text)` is called in the supervisor's thread.
    """

    def __init__(self, address: RestorerAddress, on_event: Callable[[str, str], None]) -> None:
        self.address = address
        self._on_event = on_event
        self._restarts = 0
        self._child: ChildProcess | None = None
        self._report: RestorerReport | None = None
        self._received_at_s = 0.0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the supervisor's thread; returns at once."""
        self._thread = start_thread("restorer", self._run)

    def check(self) -> None:
        """Kill a process that is frozen; called twice a second."""
        child = self._child
        if child is not None and time.monotonic() - self._received_at_s > _FROZEN_S:
            child.kill()

    def status(self) -> RestorerStatus:
        """The state of the restorer now."""
        child = self._child
        return RestorerStatus(child.pid if child is not None else 0, self._restarts, self._report)

    def stop(self) -> None:
        """Kill the process, which holds nothing worth keeping, and end."""
        self._ended.set()
        child = self._child
        if child is not None:
            child.kill()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        while not self._ended.is_set():
            started_s = time.monotonic()
            reason = self._run_process()
            if self._ended.is_set():
                return
            self._restarts += 1
            self._report = None
            if time.monotonic() - started_s > _HEALTHY_S:
                backoff.reset()
            pause_s = backoff.next_s()
            self._on_event("restorer_restarted", f"{reason}; it starts again in {pause_s:g} s")
            self._ended.wait(pause_s)

    def _run_process(self) -> str:
        """Start the process and read its reports until it ends; returns why it ended."""
        self._received_at_s = time.monotonic()
        try:
            child = ChildProcess("gpen-stream: restorer", _run_restorer, self.address, available_cores())
        except OSError as error:
            return f"the restorer cannot be started ({error.strerror})"
        self._child = child
        if self._ended.is_set():
            child.kill()
        try:
            while True:
                self._report = child.link.recv()
                self._received_at_s = time.monotonic()
        except (EOFError, OSError):
            pass  # the process has ended; its exit code says how
        self._child = None
        child.end(2.0)
        return f"the restorer: {describe_exit(child.exit_code)}"


def _run_restorer(link: Connection[RestorerReport, Never], address: RestorerAddress, threads: int) -> None:
    # Imported here because it loads the engines, which the server does without.
    from stream.server.restorer_service.service import run_restorer

    run_restorer(link, address, threads)
