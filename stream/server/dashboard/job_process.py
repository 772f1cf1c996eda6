"""The process that restores one file, and the messages that it sends to the queue of jobs."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Never

from stream.config import Config
from stream.errors import OutputTakenError, PlanChangedError, StreamError
from stream.job.interface import Options, Outcome, Progress, ProgressCallback
from stream.pipeline.processes import Connection, exit_process
from stream.server.dashboard.job_folder import JobFolder

_PROGRESS_S = 0.5
"""Shortest time between two messages about progress."""
_CLAIM_S = 120.0
"""Longest wait for the end of the process of a server that was killed."""
_CLAIM_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class JobRate:
    """The first message about a video."""

    frame_rate: float
    """Frames of the input per second."""


@dataclass(frozen=True, slots=True)
class JobRestarted:
    """The finished segments of an earlier run cannot be used; the job begins again."""

    reason: str
    """What has changed, as the end of a sentence that begins with "since"; may be empty."""


@dataclass(frozen=True, slots=True)
class JobProgress:
    """The progress of a job, sent about twice a second."""

    done: int
    """Frames that are done, those of earlier runs included."""
    total: int
    """Frames in all; 0 if the container does not say."""
    faces: int
    """Faces restored so far."""
    before: int = 0
    """Of `done`: frames that earlier runs have restored."""
    segments_done: int = 0
    segments_total: int = 0
    """0: the video is restored in one piece."""
    workers: int = 1
    """Processes that restore now."""


@dataclass(frozen=True, slots=True)
class JobDone:
    """The last message of a job that succeeded."""

    path: str
    """The result's file."""
    frames: int
    faces: int


@dataclass(frozen=True, slots=True)
class JobError:
    """The last message of a job that failed."""

    reason: str
    """The reason, in one line."""


FromJob = JobRate | JobRestarted | JobProgress | JobDone | JobError


def run_job(
    link: Connection[FromJob, Never], source: Path, folder: JobFolder, config: Config, options: Options
) -> None:
    """Restore `source` into the folder of its job; end as soon as the other end of the link is closed.

    Segments that an earlier run has finished are used, if it had the same input, settings and versions.
    """
    # Imported here because these load the networks' libraries, which the server does without.
    from stream.media.images import is_image
    from stream.media.probe import probe

    stop = threading.Event()
    sent_at_s = 0.0

    def progress(now: Progress) -> None:
        nonlocal sent_at_s
        if _is_cut(link):
            if options.on is None:
                exit_process(0)  # finished segments are on disk, and nobody waits for the rest
            stop.set()  # a cluster is left in order
        elif time.monotonic() - sent_at_s > _PROGRESS_S:
            sent_at_s = time.monotonic()
            link.send(_message(now))

    try:
        if not _claim(link, folder):
            return
        folder.tidy()
        if not is_image(source):
            link.send(JobRate(round(float(probe(source).rate), 3)))
        outcome = _restore(link, source, folder, config, options, progress, stop)
        if stop.is_set():
            folder.tidy()  # the segments stay, and nobody asked for the first part of the video
            return
        faces = outcome.report["faces_restored"] + outcome.report["faces_carried"]
        link.send(JobDone(str(outcome.path), outcome.report["frames_out"], faces))
    except StreamError as error:
        if not stop.is_set():
            link.send(JobError(str(error)))
    except OSError:  # the server is gone
        stop.set()


def _restore(
    link: Connection[FromJob, Never],
    source: Path,
    folder: JobFolder,
    config: Config,
    options: Options,
    progress: ProgressCallback,
    stop: threading.Event,
) -> Outcome:
    """Continue an earlier run, or begin again if that is impossible. Raises StreamError."""
    from stream.job.api import restore_file

    target = folder.path / source.name
    try:
        return restore_file(source, target, config, options=options, progress=progress, stop=stop)
    except PlanChangedError as error:
        link.send(JobRestarted(error.reason))
        anew = replace(options, restart=True)
        return restore_file(source, target, config, options=anew, progress=progress, stop=stop)


def _claim(link: Connection[FromJob, Never], folder: JobFolder) -> bool:
    """Claim the job's folder until this process ends. Raises EncodeError.

    The process of a server that was killed may still work in it, and needs a moment to end. False: nobody
    waits for the job any more.
    """
    from stream.media.claim import OutputClaim

    claim, until_s = OutputClaim(folder.claimed), time.monotonic() + _CLAIM_S
    while not _is_cut(link):
        try:
            claim.acquire()
        except OutputTakenError:
            if time.monotonic() > until_s:
                raise
            time.sleep(_CLAIM_POLL_S)
        else:
            return True
    return False


def _is_cut(link: Connection[FromJob, Never]) -> bool:
    """Whether the other end of the link is closed; the server sends nothing."""
    return link.closed or link.poll(0)


def _message(now: Progress) -> JobProgress:
    return JobProgress(
        now.frames_done, now.frames_total, now.faces, now.frames_before,
        now.segments_done, now.segments_total, now.workers,
    )  # fmt: skip
