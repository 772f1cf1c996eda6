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
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from stream.config import Config
from stream.errors import ConfigError, StreamError
from stream.supervisor import NotFound
from stream.workers import ChildProcess, Connection, start_thread

_KEPT = 200
"""Jobs that are remembered; the oldest that have ended are forgotten."""
STATES = ("queued", "running", "done", "failed", "cancelled")
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


@dataclass(slots=True, eq=False)
class Job:
    """One file on its way."""

    id: str
    file: str
    preset: str
    model: str
    strength: float
    config: Config | None = field(default=None, repr=False)
    """None: it ended before the server was started."""
    state: str = "queued"
    """One of STATES."""
    progress: float = 0.0
    left_s: float | None = None
    fps: float | None = None
    frames: int = 0
    faces: int = 0
    seconds: float | None = None
    frame_rate: float | None = None
    ended_at: float | None = None
    error: str = ""
    result: str = ""
    """Name of what came of it, in the folder of results."""

    def shown(self) -> dict[str, Any]:
        """As the API gives it."""
        names = (each.name for each in fields(self) if each.name not in ("config", "result"))
        return {name: getattr(self, name) for name in names}


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

    def files(self) -> list[dict[str, Any]]:
        """What can be restored, newest first: name, bytes."""
        found = []
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                if not path.name.startswith(".") and not path.is_symlink() and path.is_file():
                    found.append((path.stat().st_mtime, path.name, path.stat().st_size))
        return [{"name": name, "bytes": size} for _, name, size in sorted(found, reverse=True)]

    def all(self) -> list[dict[str, Any]]:
        """In the order in which they were queued."""
        with self._changed:
            return [job.shown() for job in self._jobs.values()]

    def find(self, job_id: str) -> Job:
        """NotFound where there is none."""
        with self._changed:
            if (job := self._jobs.get(job_id)) is None:
                raise NotFound("there is no such job")
            return job

    def add(self, file: str, config: Config, preset: str) -> dict[str, Any]:
        """Queue a file of the folder; NotFound, or ConfigError where too many wait."""
        inside(self.folder, file)
        settings = config.restore
        job = Job(secrets.token_hex(6), file, preset, settings.model, settings.strength, config)
        with self._changed:
            if sum(one.state == "queued" for one in self._jobs.values()) >= _KEPT // 2:
                raise ConfigError("too many files wait already; wait for some, or cancel them")
            ended = [key for key, one in self._jobs.items() if one.state not in ("queued", "running")]
            for key in ended[: max(0, len(self._jobs) - _KEPT + 1)]:
                del self._jobs[key]
            self._jobs[job.id] = job
            self._changed.notify_all()
        return job.shown()

    def remove(self, job_id: str) -> None:
        """Cancel a job that waits or runs; one that has ended goes from the list, its result is deleted."""
        job = self.find(job_id)
        with self._changed:
            if job.state in ("queued", "running"):
                job.state = "cancelled"
                self._changed.notify_all()
                return
            self._jobs.pop(job_id, None)
            if job.result:
                (self.results / job.result).unlink(missing_ok=True)
            self._save()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._next() is not None)
                if self._closing:
                    return
                job = self._next()
                job.state = "running"
            try:
                made, error = self._restore(job)
            except OSError as failure:
                made, error = None, f"{job.file}: cannot be restored ({failure.strerror})"
            with self._changed:
                self._end(job, made, error)

    def _end(self, job: Job, made: Path | None, error: str) -> None:
        """How it went, unless it was cancelled meanwhile."""
        job.ended_at = time.time()
        if job.state != "running" or self._closing:
            job.state = "cancelled"
            if made is not None:
                made.unlink(missing_ok=True)
        elif made is None:
            job.state, job.error = "failed", error
        else:
            job.result, job.state, job.progress, job.left_s = made.name, "done", 1.0, 0.0
            self._save()

    def _next(self) -> Job | None:
        return next((job for job in self._jobs.values() if job.state == "queued"), None)

    def _restore(self, job: Job) -> tuple[Path | None, str]:
        """The result, or why there is none; OSError where the machine lacks something."""
        began = time.monotonic()
        # A folder of its own: nothing is left of a job that is killed.
        folder = Path(tempfile.mkdtemp(prefix=".job-", dir=self.results))
        try:
            child = ChildProcess(
                "gpen-stream: a file",
                run_job,
                str(self.folder / job.file),
                str(folder / job.file),
                job.config,
                nice=5,
            )
            try:
                return self._hear(job, child, began)
            except EOFError:
                return None, f"{job.file}: its process ended unexpectedly; see the server's log"
            finally:
                if self._closing:
                    child.kill()
                else:
                    child.link.close()  # the order to end, where it still works
                child.end(_END_S)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _hear(self, job: Job, child: ChildProcess, began: float) -> tuple[Path | None, str]:
        while job.state == "running" and not self._closing:
            if not child.link.poll(_POLL_S):
                continue
            kind, value = child.link.recv()
            if kind == "failed":
                return None, value.replace(f"{self.folder}/", "")
            if kind == "rate":
                job.frame_rate = value
            elif kind == "progress":
                self._progress(job, value, time.monotonic() - began)
            else:
                made, job.frames, job.faces = value
                job.seconds = round(time.monotonic() - began, 1)
                return self._keep(Path(made)), ""
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
        kept = [job.shown() | {"result": job.result} for job in self._jobs.values() if job.result]
        part = self.results / f"{_LEDGER}.part"
        with contextlib.suppress(OSError):
            part.write_text(json.dumps(kept), encoding="utf-8")
            part.replace(self.results / _LEDGER)

    def _load(self) -> None:
        """Jobs that ended before, as far as their results are there."""
        try:
            kept = [
                Job(**facts) for facts in json.loads((self.results / _LEDGER).read_text(encoding="utf-8"))
            ]
        except (OSError, ValueError, TypeError):
            kept = []
        for job in kept:
            with contextlib.suppress(NotFound):
                inside(self.results, job.result)
                self._jobs[job.id] = job

    def _progress(self, job: Job, value: tuple[int, int, int], elapsed_s: float) -> None:
        done, total, faces = value
        job.frames, job.faces = done, faces
        job.fps = round(done / elapsed_s, 2) if elapsed_s > 0 else None
        if total:
            job.progress = round(min(1.0, done / total), 4)
            job.left_s = round(elapsed_s * max(0, total - done) / done, 1) if done else None


def run_job(link: Connection, source: str, target: str, config: Config) -> None:
    """A job's process: ("rate", frames a second), ("progress", (done, total, faces)), and in the end
    ("done", (path, frames, faces)) or ("failed", text)."""
    from stream.api import Progress, restore_file
    from stream.images import is_image
    from stream.probe import probe

    stop, told = threading.Event(), [0.0]

    def progress(now: Progress) -> None:
        if link.closed or link.poll(0):  # cancelled
            stop.set()
        elif time.monotonic() - told[0] > 0.5:
            told[0] = time.monotonic()
            link.send(("progress", (now.frames_done, now.frames_total, now.faces)))

    try:
        if not is_image(Path(source)):
            link.send(("rate", round(float(probe(Path(source)).rate), 3)))
        outcome = restore_file(source, target, config, progress=progress, stop=stop)
        if not stop.is_set():
            faces = outcome.report["faces_restored"] + outcome.report["faces_carried"]
            link.send(("done", (str(outcome.path), outcome.report["frames_out"], faces)))
    except StreamError as error:
        if not stop.is_set():
            link.send(("failed", str(error)))
    except OSError:  # nobody listens any more
        stop.set()
