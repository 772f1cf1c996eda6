"""The state of a job as it is shown, and how the messages of its process change it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, assert_never, get_args

from pydantic import JsonValue
from pydantic_core import to_jsonable_python

from stream.server.dashboard.job_process import JobDone, JobProgress, JobRate, JobRestarted

JobState = Literal["queued", "running", "done", "failed", "cancelled"]
JOB_STATES: tuple[JobState, ...] = get_args(JobState)


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
    """Duration of the job, in s; of its last run if it was interrupted."""
    frame_rate: float | None = None
    """Frames of the input per second; None for a picture."""
    ended_at: float | None = None
    """Unix time, s."""
    error: str = ""
    """Why the job failed, in one line."""
    place: int | None = None
    """Place among the jobs that wait, from 1; None for all others."""
    segments_done: int = 0
    """Segments that are finished, those of earlier runs included."""
    segments_total: int = 0
    """Segments of the video; 0: it is short enough to be restored in one piece, or is not planned yet."""
    workers: int = 0
    """Processes that restore the job now; 0 while it does not run."""
    continuing: bool = False
    """Whether segments of an earlier run are used, one that was cancelled, failed or lost its server."""
    note: str = ""
    """What the user should know about the job, in one line."""

    def to_json(self) -> dict[str, JsonValue]:
        """The job as the API gives it."""
        values: dict[str, JsonValue] = to_jsonable_python(self)
        return values

    @property
    def has_ended(self) -> bool:
        """Whether the job neither waits nor runs."""
        return self.state not in ("queued", "running")

    def waiting(self, continuing: bool) -> JobStatus:
        """The status of the same job when it waits for another run."""
        return JobStatus(
            self.id, self.file, self.preset, self.model, self.strength,
            frame_rate=self.frame_rate, continuing=continuing,
        )  # fmt: skip


def updated_status(
    status: JobStatus, message: JobRate | JobRestarted | JobProgress | JobDone, elapsed_s: float
) -> JobStatus:
    """The status of a job after a message from its process, `elapsed_s` after the start of the process."""
    match message:
        case JobRate(frame_rate):
            return replace(status, frame_rate=frame_rate)
        case JobRestarted(reason):
            note = f"began again, since {reason}" if reason else "began again"
            return replace(status, continuing=False, note=note)
        case JobDone(_, frames, faces):
            seconds, segments = round(elapsed_s, 1), status.segments_total
            return replace(status, frames=frames, faces=faces, seconds=seconds, segments_done=segments)
        case JobProgress():
            return _with_progress(status, message, elapsed_s)
        case _:
            assert_never(message)


def _with_progress(status: JobStatus, now: JobProgress, elapsed_s: float) -> JobStatus:
    restored = now.done - now.before
    fps = round(restored / elapsed_s, 2) if elapsed_s > 0 else None
    status = replace(
        status, frames=now.done, faces=now.faces, fps=fps, workers=now.workers, continuing=now.before > 0,
        segments_done=now.segments_done, segments_total=now.segments_total,
    )  # fmt: skip
    if not now.total:
        return status
    left_s = round(elapsed_s * max(0, now.total - now.done) / restored, 1) if restored > 0 else None
    return replace(status, progress=round(min(1.0, now.done / now.total), 4), left_s=left_s)
