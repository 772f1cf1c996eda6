"""Finished segments -> one video with the input's sound, subtitles, chapters and tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from stream.errors import PlanError
from stream.job.plan.plan import Plan
from stream.job.plan.planned_job import PlannedJob
from stream.job.run import restored_note
from stream.job.segments.work_folder import Receipt, WorkFolder
from stream.media.encode import FileSink, OutputOptions
from stream.media.segment_file import PacketIndex, joined

Part = tuple[Path, PacketIndex]


def first_segments(folder: WorkFolder, plan: Plan, receipts: Mapping[int, Receipt]) -> list[Part]:
    """The finished segments from the beginning of the video up to the first that is missing."""
    ready: list[Part] = []
    for segment in plan.segments:
        if segment.index not in receipts:
            break
        ready.append((folder.segment_path(segment.index), receipts[segment.index].packets))
    return ready


def partial_name(destination: Path) -> Path:
    """NAME.partial.EXT: where the first part of a video goes that is not whole."""
    return destination.with_name(f"{destination.stem}.partial{destination.suffix}")


def join_segments(job: PlannedJob, parts: Sequence[Part], target: Path, *, complete: bool) -> FileSink:
    """Write a video of all segments, or with `complete` false of the first ones.

    The encoder is opened once more, but gets no picture: what it writes as the codec's headers must be
    what every segment has. Raises PlanError and EncodeError.
    """
    plan, encoding = job.plan, job.encoding
    output = OutputOptions(
        overwrite=True,  # whether it may be was asked before the work
        allow_loss=plan.allow_loss,
        start_s=plan.start_s,
        duration_s=plan.duration_s,
        restored_note=restored_note(job.setup),
        upscale=job.setup.config.compose.upscale,
    )
    encode = job.setup.config.encode.model_copy(update={"threads": encoding.threads})
    sink = FileSink(job.info, target, encode, output, encoding.recipe)
    try:
        sink.open()
        for path, packets in parts:
            if packets.pts and bytes.fromhex(packets.extradata) != sink.extradata:
                raise PlanError(f"{path}: has other headers than the output; add --restart to begin again")
        end_pts = plan.end_pts if complete else 0
        sink.write_encoded(joined(parts, job.info.time_base, end_pts), up_to_end=complete)
        sink.close()
        sink.finish(complete=True)
        return sink
    except BaseException:
        sink.discard()
        raise
