"""Files to restore: a queue, one at a time, each in a process of its own."""

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
from typing import Literal, Never, assert_never, get_args

from pydantic import JsonValue
from pydantic_core import to_jsonable_python

from stream.config import Config
from stream.errors import ConfigError, StreamError
from stream.pipeline.processes import ChildProcess, Connection, start_thread
from stream.server.supervisor import NotFound

_KEPT = 200
"""Jobs that are remembered; the oldest that have ended are forgotten."""
JobState = Literal["queued", "running", "done", "failed", "cancelled"]
STATES: tuple[JobState, ...] = get_args(JobState)
_POLL_S = 0.2
_LEDGER = ".jobs.json"
_END_S = 8.0
"""For a cancelled job to end by itself."""


def inside(folder: Path, name: str) -> Path:
    """The file of that name in a folder; NotFound for anything that is none, or leads elsewhere."""
    if not name or name in (".", "..") or name.startswith(".") or re.search(r"[/\\\x00-\x1f\x7f]", name):
        raise NotFound("there is no such file")
    path = folder / name
    if path.is_symlink() or not path.is_file():
        raise NotFound(f"{name[:80]}: there is no such file")
    return path


@dataclass(frozen=True, slots=True)
class JobStatus:
    """How far one file is, as the API gives it."""

    id: str
    file: str
    preset: str
    model: str
    strength: float
    state: JobState = "queued"
    progress: float = 0.0
    left_s: float | None = None
    fps: float | None = None
    frames: int = 0
    faces: int = 0
    seconds: float | None = None
    frame_rate: float | None = None
    ended_at: float | None = None
    error: str = ""

    def to_json(self) -> dict[str, JsonValue]:
        """As the API gives it."""
        values: dict[str, JsonValue] = to_jsonable_python(self)
        return values


@dataclass(slots=True, eq=False)
class Job:
    """One file on its way."""

    status: JobStatus
    config: Config | None = field(default=None, repr=False)
    """None: it ended before the server was started."""
    result: str = ""
    """Name of what came of it, in the folder of results."""


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A file that can be restored."""

    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class JobRate:
    """From a job's process: the input's frames a second."""

    frame_rate: float


@dataclass(frozen=True, slots=True)
class JobProgress:
    """From a job's process, about twice a second."""

    done: int
    """Frames."""
    total: int
    """0 where the container does not say."""
    faces: int


@dataclass(frozen=True, slots=True)
class JobDone:
    """From a job's process: the last message of one that went well."""

    path: str
    frames: int
    faces: int


@dataclass(frozen=True, slots=True)
class JobError:
    """From a job's process: the last message of one that failed."""

    reason: str
    """In one line."""


FromJob = JobRate | JobProgress | JobDone | JobError


class Jobs:
    """The queue. Any thread may call; one thread of its own runs the jobs.

    Results lie in `folder`/restored, and are known after a restart too.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.results = folder, folder / "restored"
        self._jobs: dict[str, Job] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to work."""
        self.results.mkdir(parents=True, exist_ok=True)
        for left in (
            *self.results.glob(".job-*"),
            *self.folder.glob(".upload-*"),
        ):  # of a server that was killed
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        self._load()
        self._thread = start_thread("jobs", self._run)

    def stop(self) -> None:
        """Kill what runs, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def files(self) -> list[MediaFile]:
        """What can be restored, newest first."""
        found = []
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                if not path.name.startswith(".") and not path.is_symlink() and path.is_file():
                    found.append((path.stat().st_mtime, path.name, path.stat().st_size))
        return [MediaFile(name, size) for _, name, size in sorted(found, reverse=True)]

    def all(self) -> list[JobStatus]:
        """In the order in which they were queued."""
        with self._changed:
            return [job.status for job in self._jobs.values()]

    def find(self, job_id: str) -> Job:
        """NotFound where there is none."""
        with self._changed:
            if (job := self._jobs.get(job_id)) is None:
                raise NotFound("there is no such job")
            return job

    def add(self, file: str, config: Config, preset: str) -> JobStatus:
        """Queue a file of the folder; NotFound, or ConfigError where too many wait."""
        inside(self.folder, file)
        settings = config.restore
        status = JobStatus(secrets.token_hex(6), file, preset, settings.model, settings.strength)
        with self._changed:
            if sum(one.status.state == "queued" for one in self._jobs.values()) >= _KEPT // 2:
                raise ConfigError("too many files wait already; wait for some, or cancel them")
            ended = [key for key, one in self._jobs.items() if one.status.state not in ("queued", "running")]
            for key in ended[: max(0, len(self._jobs) - _KEPT + 1)]:
                del self._jobs[key]
            self._jobs[status.id] = Job(status, config)
            self._changed.notify_all()
        return status

    def remove(self, job_id: str) -> None:
        """Cancel a job that waits or runs; one that has ended goes from the list, its result is deleted."""
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
        while (begun := self._begin()) is not None:
            job, config = begun
            try:
                made, error = self._restore(job, config)
            except OSError as failure:
                made, error = None, f"{job.status.file}: cannot be restored ({failure.strerror})"
            with self._changed:
                self._end(job, made, error)

    def _begin(self) -> tuple[Job, Config] | None:
        """Wait for the next job; None at the end."""
        with self._changed:
            while not self._closing:
                for job in self._jobs.values():
                    if job.status.state == "queued" and job.config is not None:
                        job.status = replace(job.status, state="running")
                        return job, job.config
                self._changed.wait()
            return None

    def _end(self, job: Job, made: Path | None, error: str) -> None:
        """How it went, unless it was cancelled meanwhile."""
        status = replace(job.status, ended_at=time.time())
        if status.state != "running" or self._closing:
            job.status = replace(status, state="cancelled")
            if made is not None:
                made.unlink(missing_ok=True)
        elif made is None:
            job.status = replace(status, state="failed", error=error)
        else:
            job.status = replace(status, state="done", progress=1.0, left_s=0.0)
            job.result = made.name
            self._save()

    def _restore(self, job: Job, config: Config) -> tuple[Path | None, str]:
        """The result, or why there is none; OSError where the machine lacks something."""
        began, file = time.monotonic(), job.status.file
        # A folder of its own: nothing is left of a job that is killed.
        folder = Path(tempfile.mkdtemp(prefix=".job-", dir=self.results))
        try:
            child = ChildProcess(
                "gpen-stream: a file", run_job, str(self.folder / file), str(folder / file), config, nice=5
            )
            try:
                return self._hear(job, child, began)
            except EOFError:
                return None, f"{file}: its process ended unexpectedly; see the server's log"
            finally:
                if self._closing:
                    child.kill()
                else:
                    child.link.close()  # the order to end, where it still works
                child.end(_END_S)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _hear(self, job: Job, child: ChildProcess, began: float) -> tuple[Path | None, str]:
        while job.status.state == "running" and not self._closing:
            if not child.link.poll(_POLL_S):
                continue
            message: FromJob = child.link.recv()
            elapsed_s = time.monotonic() - began
            if isinstance(message, JobError):
                return None, message.reason.replace(f"{self.folder}/", "")
            with self._changed:  # it may be cancelled in between
                job.status = _told(job.status, message, elapsed_s)
            if isinstance(message, JobDone):
                return self._keep(Path(message.path)), ""
        return None, ""

    def _keep(self, made: Path) -> Path:
        """Put a result where it stays, beside others of that name."""
        path, number = self.results / made.name, 1
        while path.exists():
            number += 1
            path = self.results / f"{made.stem}-{number}{made.suffix}"
        return made.rename(path)

    def _save(self) -> None:
        """Note which results there are; what they are is lost where that fails."""
        kept = [job.status.to_json() | {"result": job.result} for job in self._jobs.values() if job.result]
        part = self.results / f"{_LEDGER}.part"
        with contextlib.suppress(OSError):
            part.write_text(json.dumps(kept), encoding="utf-8")
            part.replace(self.results / _LEDGER)

    def _load(self) -> None:
        """Jobs that ended before, as far as their results are there."""
        try:
            facts = json.loads((self.results / _LEDGER).read_text(encoding="utf-8"))
            kept = [Job(result=one.pop("result", ""), status=JobStatus(**one)) for one in facts]
        except (OSError, ValueError, TypeError, AttributeError):
            kept = []
        for job in kept:
            with contextlib.suppress(NotFound):
                inside(self.results, job.result)
                self._jobs[job.status.id] = job


def _told(status: JobStatus, message: JobRate | JobProgress | JobDone, elapsed_s: float) -> JobStatus:
    """How far a job is after a message."""
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


def run_job(link: Connection[FromJob, Never], source: str, target: str, config: Config) -> None:
    """A job's process: restores `source` into `target`, unless the link is closed before."""
    from stream.job.api import restore_file
    from stream.job.interface import Progress
    from stream.media.images import is_image
    from stream.media.probe import probe

    stop, told = threading.Event(), [0.0]

    def progress(now: Progress) -> None:
        if link.closed or link.poll(0):  # cancelled
            stop.set()
        elif time.monotonic() - told[0] > 0.5:
            told[0] = time.monotonic()
            link.send(JobProgress(now.frames_done, now.frames_total, now.faces))

    try:
        if not is_image(Path(source)):
            link.send(JobRate(round(float(probe(Path(source)).rate), 3)))
        outcome = restore_file(source, target, config, progress=progress, stop=stop)
        if not stop.is_set():
            faces = outcome.report["faces_restored"] + outcome.report["faces_carried"]
            link.send(JobDone(str(outcome.path), outcome.report["frames_out"], faces))
    except StreamError as error:
        if not stop.is_set():
            link.send(JobError(str(error)))
    except OSError:  # nobody listens any more
        stop.set()
