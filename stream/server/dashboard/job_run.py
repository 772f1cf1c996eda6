"""One run of a job, in a process of its own, as the queue sees it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from stream.config import Config
from stream.job.interface import Options
from stream.pipeline.processes import ChildProcess
from stream.server.dashboard.job_folder import JobFolder
from stream.server.dashboard.job_process import (
    FromJob,
    JobDone,
    JobError,
    JobProgress,
    JobRate,
    JobRestarted,
    run_job,
)

_POLL_S = 0.2
_END_S = 8.0
"""Longest time for a cancelled job to end by itself."""
_STOP_S = 2.0
"""How long an unexpected end of the process may precede the end of the server: one signal may end both."""

OnMessage = Callable[[JobRate | JobRestarted | JobProgress], None]


class QueuedRun:
    """One run of a job. `cancel` and `kill` may be called from any thread."""

    def __init__(self, source: Path, folder: JobFolder, config: Config, options: Options) -> None:
        self._source, self._folder = source, folder
        self._config, self._options = config, options
        self._ending: Literal["", "cancel", "kill"] = ""
        self._killed = threading.Event()

    @property
    def is_ending(self) -> bool:
        """Whether it was cancelled or killed."""
        return bool(self._ending)

    def cancel(self) -> None:
        """Have the process end; finished segments stay."""
        self._ending = self._ending or "cancel"

    def kill(self) -> None:
        """End the process at once; finished segments stay."""
        self._ending = "kill"
        self._killed.set()

    def follow(self, on_message: OnMessage) -> JobDone | JobError | None:
        """Run the process to its end; returns its last message, or None if it was cancelled or killed.

        Raises OSError if the machine lacks memory, disk space or processes.
        """
        self._folder.make()
        child = ChildProcess(
            "gpen-stream: a file",
            run_job,
            self._source,
            self._folder,
            self._config,
            self._options,
            nice=5,
        )
        try:
            return self._last_message(child, on_message)
        except EOFError:
            if self._killed.wait(_STOP_S) or self.is_ending:
                return None
            return JobError(f"{self._source.name}: its process ended unexpectedly; see the server's log")
        finally:
            if self._ending == "kill":
                child.kill()
            else:
                child.link.close()  # tells a job that still runs to end
            child.end(_END_S)

    def _last_message(self, child: ChildProcess, on_message: OnMessage) -> JobDone | JobError | None:
        """Raises EOFError if the process ends before it has sent its last message."""
        while not self.is_ending:
            if not child.link.poll(_POLL_S):
                continue
            message: FromJob = child.link.recv()
            if isinstance(message, JobDone | JobError):
                return self._readable(message)
            on_message(message)
        return None

    def _readable(self, message: JobDone | JobError) -> JobDone | JobError:
        """The message; an error names the file as the user does, and the server's setting."""
        if isinstance(message, JobDone):
            return message
        text = message.reason
        for folder in (self._folder.path, self._source.parent):
            text = text.replace(f"{folder}/", "")
        if self._options.on is not None:
            text = text.replace("--on ", "server.jobs.on ")
        return JobError(text)
