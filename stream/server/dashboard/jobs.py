"""Files to restore: a queue of jobs that survives the server, each job in a process of its own."""

from __future__ import annotations

import contextlib
import re
import secrets
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from stream.config import Config, parse_config
from stream.errors import ConfigError, NotFoundError
from stream.job.interface import Options
from stream.pipeline.processes import start_thread
from stream.server.camera_config import JobSettings
from stream.server.dashboard.file_types import is_media
from stream.server.dashboard.job_folder import JobFolder
from stream.server.dashboard.job_list import JobList, StoredJob
from stream.server.dashboard.job_process import JobDone, JobError, JobProgress, JobRate, JobRestarted
from stream.server.dashboard.job_run import QueuedRun
from stream.server.dashboard.job_status import JobStatus, updated_status

_MAX_JOBS = 200
"""Jobs in the list; beyond it the oldest that have ended are removed."""


def file_in(folder: Path, name: str) -> Path:
    """The file of that name in a folder. NotFoundError: there is none, or the name leads elsewhere."""
    if not name or name in (".", "..") or name.startswith(".") or re.search(r"[/\\\x00-\x1f\x7f]", name):
        raise NotFoundError("there is no such file")
    path = folder / name
    if path.is_symlink() or not path.is_file():
        raise NotFoundError(f"{name[:80]}: there is no such file")
    return path


@dataclass(slots=True, eq=False)
class Job:
    """One job of the queue."""

    status: JobStatus
    config: Config | None = field(default=None, repr=False)
    """None for a job that is done, and for one whose settings this version does not know."""
    result: str = ""
    """Name of its result in the folder of results; empty while there is none."""
    segment_s: float | None = None
    """Longest segment, s; None: as the server's settings say."""
    run: QueuedRun | None = field(default=None, repr=False)
    """The run that has not ended yet; a cancelled one needs a moment."""


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A file that can be restored."""

    name: str
    bytes: int
    """Size of the file, in bytes."""


class JobQueue:
    """Runs jobs in their order, one or several at a time. Any thread may call the public methods.

    Results lie in `folder`/restored, and the list of jobs beside them. A server that is started again
    continues: jobs that waited wait again, and those that ran go on after their last finished segment.
    """

    def __init__(self, folder: Path, settings: JobSettings | None = None) -> None:
        self.folder, self.results = folder, folder / "restored"
        self._settings = settings or JobSettings()
        self._list = JobList(self.results)
        self._jobs: dict[str, Job] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Read the list of jobs, delete what belongs to none of them, and start the threads."""
        self.results.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob(".upload-*"):
            path.unlink()
        self._list.drop_parts()
        with self._changed:
            stored = self._list.read()
            if stored is None:
                self._list_results()
            else:
                self._take_up(stored)
                known = {self._folder_of(job).path for job in self._jobs.values() if not job.result}
                for folder in JobFolder.found(self.results):
                    if folder.path not in known:
                        folder.remove()
            self._save()
        for number in range(self._settings.at_once):
            self._threads.append(start_thread(f"jobs-{number}", self._run))

    def stop(self) -> None:
        """Kill the jobs that run, and end. The next start continues with them."""
        with self._changed:
            self._closing = True
            for job in self._jobs.values():
                if job.run is not None:
                    job.run.kill()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def files(self) -> list[MediaFile]:
        """The files in the folder, newest first."""
        found = []
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # it was just deleted
                if not path.name.startswith(".") and not path.is_symlink() and path.is_file():
                    found.append((path.stat().st_mtime, path.name, path.stat().st_size))
        return [MediaFile(name, size) for _, name, size in sorted(found, reverse=True)]

    def all(self) -> list[JobStatus]:
        """All jobs, oldest first; those that wait are in the order in which they will run."""
        with self._changed:
            places = {key: place for place, key in enumerate(self._waiting(), 1)}
            return [replace(job.status, place=places.get(key)) for key, job in self._jobs.items()]

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
            self._check_room()
            ended = [key for key, one in self._jobs.items() if one.status.has_ended and one.run is None]
            for key in ended[: max(0, len(self._jobs) - _MAX_JOBS + 1)]:
                self._folder_of(self._jobs.pop(key)).remove()
            self._jobs[status.id] = Job(status, config, segment_s=self._settings.segment_s)
            self._save()
            self._changed.notify_all()
            return replace(status, place=len(self._waiting()))

    def retry(self, job_id: str) -> JobStatus:
        """Have a job that failed or was cancelled wait again, behind all others.

        Raises NotFoundError if its file is gone, ConfigError if it cannot be tried again.
        """
        with self._changed:
            job = self.find(job_id)
            status = job.status
            if status.state not in ("failed", "cancelled"):
                raise ConfigError(f"{status.file}: has neither failed nor been cancelled; add it again")
            if job.config is None:
                raise ConfigError(f"{status.file}: its settings are not known any more; add it again")
            file_in(self.folder, status.file)
            self._check_room()
            job.status = status.waiting(self._folder_of(job).has_segments())
            self._jobs[job_id] = self._jobs.pop(job_id)
            self._save()
            self._changed.notify_all()
            return replace(job.status, place=len(self._waiting()))

    def move(self, job_id: str, place: int) -> JobStatus:
        """Move a job that waits to a place among those that wait, from 1; a place too high is the last one.

        Raises NotFoundError if there is no such job, ConfigError if it does not wait.
        """
        with self._changed:
            job, waiting = self.find(job_id), self._waiting()
            if job_id not in waiting:
                raise ConfigError(
                    f"{job.status.file}: does not wait; only the order of waiting files changes"
                )
            slots = set(waiting)
            waiting.remove(job_id)
            waiting.insert(place - 1, job_id)
            order = iter(waiting)
            keys = [next(order) if key in slots else key for key in self._jobs]
            self._jobs = {key: self._jobs[key] for key in keys}
            self._save()
            return replace(job.status, place=waiting.index(job_id) + 1)

    def remove(self, job_id: str) -> None:
        """Cancel a job that waits or runs. Remove one that has ended from the list, with its files."""
        with self._changed:
            job = self.find(job_id)
            if not job.status.has_ended:
                job.status = replace(job.status, state="cancelled", ended_at=time.time(), workers=0)
                if job.run is not None:
                    job.run.cancel()
            else:
                self._jobs.pop(job_id, None)
                if job.result:
                    (self.results / job.result).unlink(missing_ok=True)
                if job.run is None:  # else `_finish` does it
                    self._folder_of(job).remove()
            self._save()
            self._changed.notify_all()

    def _waiting(self) -> list[str]:
        """Ids of the jobs that wait, in their order."""
        return [key for key, job in self._jobs.items() if job.status.state == "queued"]

    def _folder_of(self, job: Job) -> JobFolder:
        return JobFolder.of(self.results, job.status.id)

    def _check_room(self) -> None:
        if len(self._waiting()) >= _MAX_JOBS // 2:
            raise ConfigError("too many files wait already; wait for some, or cancel them")

    def _run(self) -> None:
        while (job := self._wait_for_job()) is not None:
            try:
                answer = self._restore(job)
            except OSError as failure:
                answer = JobError(f"{job.status.file}: cannot be restored ({failure.strerror})")
            with self._changed:
                self._finish(job, answer)

    def _wait_for_job(self) -> Job | None:
        """The next job, as soon as there is one; None at the end."""
        with self._changed:
            while not self._closing:
                for job in self._jobs.values():
                    if job.status.state == "queued" and job.config is not None and job.run is None:
                        longest_s = job.segment_s or self._settings.segment_s
                        options = Options(overwrite=True, segment_s=longest_s, on=self._settings.on)
                        source = self.folder / job.status.file
                        job.run = QueuedRun(source, self._folder_of(job), job.config, options)
                        job.status = replace(job.status, state="running")
                        self._save()
                        return job
                self._changed.wait()
            return None

    def _restore(self, job: Job) -> JobDone | JobError | None:
        """Restore a file; None: the job was cancelled, or the server ends. Raises OSError."""
        run, began_s = job.run, time.monotonic()
        if run is None:
            raise RuntimeError("the job has no run")

        def show(message: JobRate | JobRestarted | JobProgress | JobDone) -> None:
            with self._changed:  # another thread may cancel it, and have it wait again
                if not run.is_ending:
                    job.status = updated_status(job.status, message, time.monotonic() - began_s)

        answer = run.follow(show)
        if isinstance(answer, JobDone):
            show(answer)
        return answer

    def _finish(self, job: Job, answer: JobDone | JobError | None) -> None:
        """Set the final state of a job after a run, unless it was cancelled or the server ends."""
        run, job.run = job.run, None
        folder = self._folder_of(job)
        try:
            if isinstance(answer, JobDone) and run is not None and not run.is_ending:
                self._keep_result(job, Path(answer.path))
            elif isinstance(answer, JobError) and run is not None and not run.is_ending:
                job.status = replace(
                    job.status, state="failed", ended_at=time.time(), error=answer.reason, workers=0
                )
        except OSError as failure:
            reason = f"{job.status.file}: its result cannot be kept ({failure.strerror})"
            job.result = ""
            job.status = replace(job.status, state="failed", ended_at=time.time(), error=reason, workers=0)
        if job.result or not folder.has_segments() or job.status.id not in self._jobs:
            folder.remove()
        self._save()
        self._changed.notify_all()  # it may wait again already

    def _keep_result(self, job: Job, file: Path) -> None:
        """Move a result to the folder of results; a number is added to a name that is taken. Raises OSError.

        The name is stored first: a server that is killed in between knows the result as this job's.
        """
        taken = {other.result for other in self._jobs.values()}
        path, number = self.results / file.name, 1
        while path.exists() or path.name in taken:
            number += 1
            path = self.results / f"{file.stem}-{number}{file.suffix}"
        job.result = path.name
        self._save()
        file.rename(path)
        job.status = replace(
            job.status, state="done", progress=1.0, left_s=0.0, workers=0, ended_at=time.time()
        )
        job.config = None

    def _save(self) -> None:
        self._list.write(
            [
                StoredJob(
                    status=job.status,
                    result=job.result,
                    settings=None if job.config is None else job.config.model_dump(mode="json"),
                    segment_s=job.segment_s,
                )
                for job in self._jobs.values()
            ]
        )

    def _take_up(self, stored: list[StoredJob]) -> None:
        """Add the jobs of an earlier server; those are left out whose results are gone."""
        for one in stored:
            job = Job(one.status, result=one.result, segment_s=one.segment_s)
            folder = self._folder_of(job)
            if job.result and not (folder.path / job.status.file).exists():
                with contextlib.suppress(NotFoundError):
                    file_in(self.results, job.result)
                    now = job.status.ended_at or time.time()
                    job.status = replace(job.status, state="done", progress=1.0, left_s=0.0, ended_at=now)
                    self._jobs[job.status.id] = job
                    continue
            if job.status.state == "done":
                continue
            job.result = ""
            if not job.status.has_ended:
                job.status = job.status.waiting(folder.has_segments())
            try:
                job.config = None if one.settings is None else parse_config(one.settings)
                reason = "they are missing"
            except ConfigError as error:
                reason = str(error)
            if job.config is None and not job.status.has_ended:
                text = f"{job.status.file}: its settings cannot be used any more ({reason}); add it again"
                job.status = replace(job.status, state="failed", ended_at=time.time(), error=text)
            self._jobs[job.status.id] = job

    def _list_results(self) -> None:
        """List the files in the folder of results: the list itself was damaged."""
        for path in sorted(self.results.iterdir(), key=lambda path: path.stat().st_mtime):
            if path.name.startswith(".") or path.is_symlink() or not is_media(path):
                continue
            source = re.sub(r"-\d+(?=\.[^.]+$)", "", path.name)
            name = path.name if (self.folder / path.name).exists() else source
            status = JobStatus(
                secrets.token_hex(6), name, "", "", 1.0, "done",
                progress=1.0, left_s=0.0, ended_at=path.stat().st_mtime,
            )  # fmt: skip
            self._jobs[status.id] = Job(status, result=path.name)
