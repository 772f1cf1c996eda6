"""Whether a finished segment is what the plan asked for."""

from __future__ import annotations

from contextlib import closing

from stream.job.plan.plan import PlannedSegment
from stream.job.plan.planned_job import PlannedJob
from stream.job.segments.work_folder import Receipt
from stream.media.decode import FileSource


def segment_fault(job: PlannedJob, segment: PlannedSegment, receipt: Receipt) -> str | None:
    """What is wrong with a segment, in words; None: nothing is.

    Its pictures lie inside the segment, no two at one time, and there are as many as the input has there.
    The packets of some codecs do not tell how many that are (fields, hidden pictures). Where the numbers
    differ, the input is therefore decoded once more, and that number counts. Raises SourceError.
    """
    pts = sorted(receipt.packets.pts)
    if len(set(pts)) != len(pts):
        return "two of its pictures have one time"
    start = None if segment.start_pts is None else segment.start_pts - job.plan.shift_pts
    end = None if segment.end_pts is None else segment.end_pts - job.plan.shift_pts
    if pts and ((start is not None and pts[0] < start) or (end is not None and pts[-1] >= end)):
        return "it has pictures outside of its time"
    if len(pts) != segment.frames and len(pts) != _decoded_frames(job, segment):
        return f"it has {len(pts)} pictures, planned are {segment.frames}"
    return None


def _decoded_frames(job: PlannedJob, segment: PlannedSegment) -> int:
    source = FileSource(job.info, (segment.start_pts, segment.end_pts), job.setup.threads.decoder)
    with closing(source.frames()) as frames:
        return sum(1 for _ in frames)
