"""The process that restores one file, and the messages that it sends to the queue of jobs."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Never

from stream.config import Config
from stream.errors import StreamError
from stream.pipeline.processes import Connection

_PROGRESS_S = 0.5
"""Shortest time between two messages about progress."""


@dataclass(frozen=True, slots=True)
class JobRate:
    """The first message about a video."""

    frame_rate: float
    """Frames of the input per second."""


@dataclass(frozen=True, slots=True)
class JobProgress:
    """The progress of a job, sent about twice a second."""

    done: int
    """Frames that are done."""
    total: int
    """Frames in all; 0 if the container does not say."""
    faces: int
    """Faces restored so far."""


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


FromJob = JobRate | JobProgress | JobDone | JobError


def run_job(link: Connection[FromJob, Never], source: str, target: str, config: Config) -> None:
    """Restore `source` into `target`; stop as soon as the other end of the link is closed."""
    # Imported here because these load the networks' libraries, which the server does without.
    from stream.job.api import restore_file
    from stream.job.interface import Progress
    from stream.media.images import is_image
    from stream.media.probe import probe

    stop, sent_at_s = threading.Event(), 0.0

    def progress(now: Progress) -> None:
        nonlocal sent_at_s
        if link.closed or link.poll(0):  # cancelled
            stop.set()
        elif time.monotonic() - sent_at_s > _PROGRESS_S:
            sent_at_s = time.monotonic()
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
    except OSError:  # the server is gone
        stop.set()
