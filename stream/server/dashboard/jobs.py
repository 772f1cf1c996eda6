"""Files to restore: a queue that runs one job at a time, each in its own process."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, assert_never, get_args

from pydantic import JsonValue
from pydantic_core import to_jsonable_python

from stream.config import Config
from stream.errors import ConfigError, NotFoundError
from stream.pipeline.processes import ChildProcess, start_thread
from stream.server.dashboard.job_process import FromJob, JobDone, JobError, JobProgress, JobRate, run_job

_MAX_JOBS = 200
"""Jobs in the list; beyond it the oldest that have ended are removed."""
JobState = Literal["queued", "running", "done", "failed", "cancelled"]
JOB_STATES: tuple[JobState, ...] = get_args(JobState)
_POLL_S = 0.2
_JOBS_FILE = ".jobs.json"
_END_S = 8.0
"""Longest time for a cancelled job to end by itself."""


def file_in(folder: Path, name: str) -> Path:
    """The file of that name in a folder. NotFoundError: there is none, or the name leads elsewhere."""
    if not name or name in (".", "..") or name.startswith(".") or re.search(r"[/\\\x00-\x1f\x7f]", name):
        raise NotFoundError("there is no such file")
    path = folder / name
    if path.is_symlink() or not path.is_file():
        raise NotFoundError(f"{name[:80]}: there is no such file")
    return path


@dataclass(frozen=True, slots=True)
class JobStatus:
    """The state of a job: its input, its settings and its progress."""

    id: str
    file: str
    """Name of the input in the server's folder."""
    preset: str
    model: str
    strength: float
    """Share of the restored face in the result, 0 to 1."""
    state: JobState = "queued"
    progress: float = 0.0
    """Share of the frames that are done, 0 to 1."""
    left_s: float | None = None
    """Estimated time to the end, in s."""
    fps: float | None = None
    """Frames restored per second."""
    frames: int = 0
    """Frames that are done."""
    faces: int = 0
    """Faces that were restored."""
    seconds: float | None = None
    """Duration of the job, in s."""
    frame_rate: float | None = None
    """Frames of the input per second; None for a picture."""
    ended_at: float | None = None
    """Unix time, s."""
    error: str = ""
    """Why the job failed, in one line."""

    def to_json(self) -> dict[str, JsonValue]:
        """The job as the API gives it."""
        values: dict[str, JsonValue] = to_jsonable_python(self)
        return values


@dataclass(slots=True, eq=False)
class Job:
    """One job of the queue."""

    status: JobStatus
    config: Config | None = field(default=None, repr=False)
    """None for a job of an earlier run of the server, which has ended."""
    result: str = ""
    """Name of its result in the folder of results; empty while there is none."""


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A file that can be restored."""

    name: str
    bytes: int
    """Size of the file, in bytes."""


class JobQueue:
    """Runs jobs one after the other, in a thread of its own. Any thread may call the public methods.

    Results lie in `folder`/restored. The jobs that made them are listed after a restart of the server too.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.results = folder, folder / "restored"
        self._jobs: dict[str, Job] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Delete unfinished files of a killed server, list the jobs that ended before, start the thread."""
        self.results.mkdir(parents=True, exist_ok=True)
        for path in (*self.results.glob(".job-*"), *self.folder.glob(".upload-*")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._load()
        self._thread = start_thread("jobs", self._run)

    def stop(self) -> None:
        """Kill the job that runs, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def files(self) -> list[MediaFile]:
        """The files in the folder, newest first."""
        found = []
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # it was just deleted
                if not path.name.startswith(".") and not path.is_symlink() and path.is_file():
                    found.append((path.stat().st_mtime, path.name, path.stat().st_size))
        return [MediaFile(name, size) for _, name, size in sorted(found, reverse=True)]

    def all(self) -> list[JobStatus]:
        """All jobs, in the order in which they were added."""
        with self._changed:
            return [job.status for job in self._jobs.values()]

    def find(self, job_id: str) -> Job:
        """The job with that id; NotFoundError if there is none."""
        with self._changed:
            if (job := self._jobs.get(job_id)) is None:
                raise NotFoundError("there is no such job")
            return job

    def add(self, file: str, config: Config, preset: str) -> JobStatus:
        """Add a job for a file of the folder.

        Raises NotFoundError if there is no such file, ConfigError if too many jobs wait.
        """
        file_in(self.folder, file)
        settings = config.restore
        status = JobStatus(secrets.token_hex(6), file, preset, settings.model, settings.strength)
        with self._changed:
            if sum(one.status.state == "queued" for one in self._jobs.values()) >= _MAX_JOBS // 2:
                raise ConfigError("too many files wait already; wait for some, or cancel them")
            ended = [key for key, one in self._jobs.items() if one.status.state not in ("queued", "running")]
            for key in ended[: max(0, len(self._jobs) - _MAX_JOBS + 1)]:
                del self._jobs[key]
            self._jobs[status.id] = Job(status, config)
            self._changed.notify_all()
        return status

    def remove(self, job_id: str) -> None:
        """Cancel a job that waits or runs. Remove one that has ended from the list, and delete its result."""
        job = self.find(job_id)
        with self._changed:
            if job.status.state in ("queued", "running"):
                job.status = replace(job.status, state="cancelled")
                self._changed.notify_all()
                return
            self._jobs.pop(job_id, None)
            if job.result:
                (self.results / job.result).unlink(missing_ok=True)
            self._save()

    def _run(self) -> None:
        while (next_job := self._wait_for_job()) is not None:
            job, config = next_job
            try:
                result, error = self._restore(job, config)
            except OSError as failure:
                result, error = None, f"{job.status.file}: cannot be restored ({failure.strerror})"
            with self._changed:
                self._finish(job, result, error)

    def _wait_for_job(self) -> tuple[Job, Config] | None:
        """The next job, as soon as there is one; None at the end."""
        with self._changed:
            while not self._closing:
                for job in self._jobs.values():
                    if job.status.state == "queued" and job.config is not None:
                        job.status = replace(job.status, state="running")
                        return job, job.config
                self._changed.wait()
            return None

    def _finish(self, job: Job, result: Path | None, error: str) -> None:
        """Set the final state of a job: done, failed or, if it was cancelled meanwhile, cancelled."""
        status = replace(job.status, ended_at=time.time())
        if status.state != "running" or self._closing:
            job.status = replace(status, state="cancelled")
            if result is not None:
                result.unlink(missing_ok=True)
        elif result is None:
            job.status = replace(status, state="failed", error=error)
        else:
            job.status = replace(status, state="done", progress=1.0, left_s=0.0)
            job.result = result.name
            self._save()

    def _restore(self, job: Job, config: Config) -> tuple[Path | None, str]:
        """Restore a file; returns the result, or None and the reason.

        Raises OSError if the machine lacks memory, disk space or processes.
        """
        started_s, file = time.monotonic(), job.status.file
        # The job writes into a folder of its own, which is deleted: a killed job leaves nothing behind.
        folder = Path(tempfile.mkdtemp(prefix=".job-", dir=self.results))
        try:
            child = ChildProcess(
                "gpen-stream: a file", run_job, str(self.folder / file), str(folder / file), config, nice=5
            )
            try:
                return self._follow(job, child, started_s)
            except EOFError:
                return None, f"{file}: its process ended unexpectedly; see the server's log"
            finally:
                if self._closing:
                    child.kill()
                else:
                    child.link.close()  # tells a job that still runs to end
                child.end(_END_S)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _follow(self, job: Job, child: ChildProcess, started_s: float) -> tuple[Path | None, str]:
        """Read a job's messages until it ends or is cancelled; returns the result, or None and the reason."""
        while job.status.state == "running" and not self._closing:
            if not child.link.poll(_POLL_S):
                continue
            message: FromJob = child.link.recv()
            elapsed_s = time.monotonic() - started_s
            if isinstance(message, JobError):
                return None, message.reason.replace(f"{self.folder}/", "")
            with self._changed:  # another thread may cancel it
                job.status = updated_status(job.status, message, elapsed_s)
            if isinstance(message, JobDone):
                return self._move_result(Path(message.path)), ""
        return None, ""

    def _move_result(self, file: Path) -> Path:
        """Move a result to the folder of results; a number is added to a name that is taken."""
        path, number = self.results / file.name, 1
        while path.exists():
            number += 1
            path = self.results / f"{file.stem}-{number}{file.suffix}"
        return file.rename(path)

    def _save(self) -> None:
        """Write the jobs that have a result to a file. If that fails, they are not listed after a restart."""
        kept = [job.status.to_json() | {"result": job.result} for job in self._jobs.values() if job.result]
        part = self.results / f"{_JOBS_FILE}.part"
        with contextlib.suppress(OSError):
            part.write_text(json.dumps(kept), encoding="utf-8")
            part.replace(self.results / _JOBS_FILE)

    def _load(self) -> None:
        """Read the jobs of earlier runs whose results still exist."""
        try:
            facts = json.loads((self.results / _JOBS_FILE).read_text(encoding="utf-8"))
            kept = [Job(result=one.pop("result", ""), status=JobStatus(**one)) for one in facts]
        except (OSError, ValueError, TypeError, AttributeError):
            kept = []
        for job in kept:
            with contextlib.suppress(NotFoundError):
                file_in(self.results, job.result)
                self._jobs[job.status.id] = job


def updated_status(
    status: JobStatus, message: JobRate | JobProgress | JobDone, elapsed_s: float
) -> JobStatus:
    """The status of a job after a message from its process, `elapsed_s` after its start."""
    match message:
        case JobRate(frame_rate):
            return replace(status, frame_rate=frame_rate)
        case JobDone(_, frames, faces):
            return replace(status, frames=frames, faces=faces, seconds=round(elapsed_s, 1))
        case JobProgress(done, total, faces):
            fps = round(done / elapsed_s, 2) if elapsed_s > 0 else None
            status = replace(status, frames=done, faces=faces, fps=fps)
            if not total:
                return status
            left_s = round(elapsed_s * max(0, total - done) / done, 1) if done else None
            return replace(status, progress=round(min(1.0, done / total), 4), left_s=left_s)
        case _:
            assert_never(message)
