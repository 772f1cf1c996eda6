"""The server's side of one camera's process: its messages, its answers and its end."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator

from stream.errors import StreamError
from stream.live.session.live_settings import LiveSettings
from stream.live.session.session_report import SessionReport
from stream.pipeline.processes import ChildProcess
from stream.server.camera_messages import (
    ChangeAnswer,
    ChangeSettings,
    FromCamera,
    Preview,
    SessionEvent,
    SessionFailed,
    Stop,
    ToCamera,
)
from stream.server.camera_process import CameraSpec, run_camera
from stream.server.supervisor.restart_policy import describe_exit

_ANSWER_S = 10.0
"""Longest wait for the answer to a change."""
_END_S = 2.0
"""Longest wait for the process to end once its pipe is closed; then it is terminated."""


class CameraHandle:
    """A process that runs one camera, and the pipe to it.

    One thread reads `messages` and calls `end`. All other methods may be called from any thread.
    The constructor starts the process; it raises OSError if the machine cannot start one.
    """

    def __init__(self, spec: CameraSpec, nice: int) -> None:
        """`nice`: niceness of the new process above that of the server."""
        self._name = spec.name
        self._started_at_s = self._received_at_s = time.monotonic()
        self._child = ChildProcess(f"gpen-stream: camera {spec.name}", run_camera, spec, nice=nice)
        self._stop_requested_at_s: float | None = None
        self._kill_reason = self._failure = ""
        self._sending = threading.Lock()
        """Held while the pipe is written to or closed."""
        self._closed = False
        self._answers: dict[int, str | None] = {}
        """Answers by the request's number: the error, or None if the change was made."""
        self._answered = threading.Condition()
        self._numbers = itertools.count(1)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._child.exit_code

    @property
    def stop_requested(self) -> bool:
        """Whether it was told to stop."""
        return self._stop_requested_at_s is not None

    @property
    def end_reason(self) -> str:
        """Why the process ended although it was not told to, in one line without credentials."""
        return self._kill_reason or self._failure or describe_exit(self._child.exit_code)

    def age_s(self) -> float:
        """Time since the start, in seconds."""
        return time.monotonic() - self._started_at_s

    def silence_s(self) -> float:
        """Time since the last message, in seconds."""
        return time.monotonic() - self._received_at_s

    def stopping_s(self) -> float:
        """Time since it was told to stop, in seconds; 0 if it was not."""
        return time.monotonic() - self._stop_requested_at_s if self._stop_requested_at_s is not None else 0.0

    def messages(self) -> Iterator[SessionReport | SessionEvent | Preview]:
        """The messages of the process, until it ends."""
        while True:
            try:
                message: FromCamera = self._child.link.recv()
            except (EOFError, OSError):  # the process has ended
                return
            self._received_at_s = time.monotonic()
            match message:
                case ChangeAnswer(number, error):
                    with self._answered:
                        self._answers[number] = error
                        self._answered.notify_all()
                case SessionFailed(reason):
                    self._failure = reason
                case _:
                    yield message

    def send(self, message: ToCamera) -> None:
        """Write a message to the pipe; nothing happens if the process has ended."""
        with self._sending, contextlib.suppress(OSError):  # it has just died; the reader notices that too
            if not self._closed:
                self._child.link.send(message)

    def change(self, changes: LiveSettings) -> None:
        """Change the settings of the running session, and wait until that is done.

        A process that ends meanwhile raises nothing: the next one starts with the changed settings.
        Raises StreamError if the session refuses the change, or does not answer within 10 s.
        """
        number = next(self._numbers)
        self.send(ChangeSettings(number, changes))
        with self._answered:
            done = self._answered.wait_for(lambda: number in self._answers or self._closed, _ANSWER_S)
            error = self._answers.pop(number, None)
        if error or not done:
            raise StreamError(error or f"{self._name}: does not answer; it may be overloaded")

    def request_stop(self) -> None:
        """Tell the process to flush its sinks and to end; returns at once."""
        if self._stop_requested_at_s is None:
            self._stop_requested_at_s = time.monotonic()
            self.send(Stop())

    def kill(self, reason: str) -> None:
        """End the process by force. `reason`: what operators are told."""
        self._kill_reason = reason
        self._child.kill()

    def end(self) -> None:
        """Wait until the process has ended, and close the pipe."""
        with self._sending:
            self._closed = True
            self._child.end(_END_S)
        with self._answered:
            self._answered.notify_all()
