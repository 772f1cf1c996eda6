"""What a plan looks like before its run, and how far a run is: for people and scripts, nothing is changed."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel

from stream.config import Config
from stream.errors import PlanError, SourceError
from stream.job.api import restore_file
from stream.job.executors.local_executor import LocalExecutor
from stream.job.interface import Options, Progress
from stream.job.plan.plan import Plan
from stream.job.plan.planned_job import PlannedJob
from stream.job.planned_run import PlannedRun, needs_plan
from stream.job.segments.join import first_segments, join_segments, partial_name
from stream.job.segments.work_folder import WorkFolder
from stream.media.claim import OutputClaim
from stream.media.probe import probe
from stream.picture.frame import StreamInfo

_TRIED_S = 3.0
"""Length of the part that is restored to measure the speed, seconds."""


class SegmentOutlook(BaseModel, frozen=True):
    """A segment of a plan. Times are seconds since the video's first picture."""

    index: int
    start_s: float
    end_s: float
    frames: int
    extra_frames: int
    """Frames of the warm-up and the tail, which are restored and not encoded."""
    begins_at_cut: bool
    done: bool


class Outlook(BaseModel, frozen=True):
    """A plan, and the time that it takes."""

    segments: tuple[SegmentOutlook, ...]
    frames: int
    extra_frames: int
    fps: float
    """Frames restored in a second on this machine; 0: nothing is left to be restored."""
    seconds: float
    """Expected time for what is not done."""


class PlanProgress(BaseModel, frozen=True):
    """How far a planned run is."""

    output: str
    segments_done: int
    segments_total: int
    frames_done: int
    frames_total: int
    faces: int

    def line(self) -> str:
        """The status as one line."""
        share = 100 * self.frames_done / self.frames_total if self.frames_total else 0.0
        return (
            f"{self.output}: {self.segments_done} of {self.segments_total} segments done, "
            f"{self.frames_done} of {self.frames_total} frames ({share:.0f} %), {self.faces} faces"
        )


def foresee(source: Path, destination: Path, config: Config, options: Options) -> Outlook:
    """The plan that `restore_file` would follow, and its expected time. Raises StreamError."""
    info = probe(source)
    if not needs_plan(info, options):
        raise PlanError(f"{source}: is short enough to be restored without a plan; name --segment SECONDS")
    executor = LocalExecutor()
    try:
        run = PlannedRun(source, destination, config, options, executor)
        plan = run.plan(info)
    finally:
        executor.close()
    if plan is None:
        raise PlanError(f"{source}: its container stores no times, so it is restored without a plan")
    folder = WorkFolder(destination)
    done = {} if options.restart or not folder.has_plan() else folder.finished(plan)
    rows = tuple(_row(plan, info, index, index in done) for index in range(len(plan.segments)))
    left = sum(row.frames + row.extra_frames for row in rows if not row.done)
    fps = _measured_fps(source, config, options, info) if left else 0.0
    return Outlook(
        segments=rows,
        frames=plan.frames,
        extra_frames=sum(row.extra_frames for row in rows),
        fps=round(fps, 2),
        seconds=round(left / fps, 1) if fps else 0.0,
    )


def job_status(destination: Path) -> PlanProgress:
    """How far the run is that writes `destination`. Raises PlanError where there is none."""
    folder = WorkFolder(destination)
    plan = _plan_of(destination, folder)
    receipts = folder.finished(plan).values()
    return PlanProgress(
        output=str(destination),
        segments_done=len(receipts),
        segments_total=len(plan.segments),
        frames_done=sum(receipt.counts.frames_out for receipt in receipts),
        frames_total=plan.frames,
        faces=sum(receipt.counts.faces for receipt in receipts),
    )


def join_finished(destination: Path) -> Path:
    """Join the first segments, as far as they are finished, as NAME.partial.EXT. Raises StreamError."""
    folder = WorkFolder(destination)
    plan = _plan_of(destination, folder)
    parts = first_segments(folder, plan, folder.finished(plan))
    if not any(packets.pts for _, packets in parts):
        raise PlanError(f"{destination}: its first segment is not finished yet; wait, or continue the run")
    target = partial_name(destination)
    with OutputClaim(target):
        join_segments(PlannedJob.of(plan), parts, target, complete=False)
    return target


def _plan_of(destination: Path, folder: WorkFolder) -> Plan:
    if not folder.has_plan():
        state = "is there already" if destination.exists() else "no run that writes it has a plan"
        raise PlanError(f"{destination}: {state}; nothing is being restored by segments")
    return folder.read_plan()


def _row(plan: Plan, info: StreamInfo, index: int, done: bool) -> SegmentOutlook:
    segment = plan.segments[index]
    start = info.start_pts if segment.start_pts is None else segment.start_pts
    start_s = float((start - info.start_pts) * info.time_base)
    if segment.end_pts is not None:
        end_s = float((segment.end_pts - info.start_pts) * info.time_base)
    else:
        end_s = info.duration_s
    return SegmentOutlook(
        index=index,
        start_s=round(start_s, 3),
        end_s=round(end_s, 3),
        frames=segment.frames,
        extra_frames=segment.extra_frames,
        begins_at_cut=segment.begins_at_cut,
        done=done,
    )


def _measured_fps(source: Path, config: Config, options: Options, info: StreamInfo) -> float:
    """Frames a second of a real run over a few seconds from the middle, its start left out."""
    seen: list[Progress] = []
    start_s = options.start_s or 0.0
    length_s = info.duration_s - start_s if options.duration_s is None else options.duration_s
    middle_s = start_s + max(0.0, (length_s - _TRIED_S) / 2)
    part = replace(options, start_s=middle_s, duration_s=_TRIED_S, segment_s=0.0, overwrite=True)
    with tempfile.TemporaryDirectory(prefix="gpen-stream-") as folder:
        restore_file(
            source, Path(folder) / f"trial{source.suffix}", config, options=part, progress=seen.append
        )
    begun = next((at for at in seen if at.frames_done), seen[-1])
    frames, seconds = seen[-1].frames_done - begun.frames_done, seen[-1].elapsed_s - begun.elapsed_s
    if frames <= 0 or seconds <= 0:
        raise SourceError(f"{source}: too short to be measured")
    return frames / seconds
