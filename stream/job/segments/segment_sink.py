"""Restored frames -> finished segments on disk, with their receipts."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av

from stream.job.counts import RunCounts
from stream.job.plan.plan import Plan, PlannedSegment
from stream.job.segments.segment_feed import SegmentEnd, SegmentItem
from stream.job.segments.work_folder import Receipt, WorkFolder
from stream.media.encode import encode_error
from stream.media.segment_encoder import SegmentEncoder, SegmentEncoding
from stream.media.segment_file import PacketIndex
from stream.picture.face import FrameWork
from stream.pipeline.stage import Stage


@dataclass(frozen=True, slots=True)
class UnfinishedPart:
    """What was encoded of a segment that was cut short."""

    segment: PlannedSegment
    path: Path
    packets: PacketIndex


class PlannedSegmentSink(Stage[SegmentItem, None]):
    """The last stage: encodes each segment into a file. A segment counts once its receipt is there."""

    def __init__(
        self,
        plan: Plan,
        segments: Iterator[PlannedSegment],
        folder: WorkFolder,
        encoding: SegmentEncoding,
        counts: Callable[[int, SegmentEnd], RunCounts],
    ) -> None:
        """`segments` come in this order. `counts` gives those of the segment at a place in the row."""
        self.frames_out = 0
        self.unfinished: UnfinishedPart | None = None
        """Set at the end, where a segment was cut short after its first frame."""
        self.finished: dict[int, Receipt] = {}
        """The segments that this sink finished, by index."""
        self._segments, self._folder, self._encoding, self._counts = segments, folder, encoding, counts
        self._shift = plan.shift_pts
        self._end_pts = plan.end_pts
        self._encoder: SegmentEncoder | None = None
        self._part: Path | None = None
        self._segment: PlannedSegment | None = None
        self._frames = self._place = 0
        self._began_s = time.monotonic()

    def process(self, item: SegmentItem) -> Iterable[None]:
        """Encode a frame, or finish the segment."""
        with self._errors():
            if isinstance(item, SegmentEnd):
                self._finish(item)
            else:
                self._encode(item)
        return ()

    def flush(self) -> Iterable[None]:
        """Keep what was encoded of a segment that was cut short."""
        if self._encoder is not None and self._part is not None and self._segment is not None:
            with self._errors():
                self.unfinished = UnfinishedPart(self._segment, self._part, self._encoder.finish())
        return ()

    def close(self) -> None:
        """Release the encoder."""
        if self._encoder is not None:
            self._encoder.close()
        self._encoder = None

    def _encode(self, work: FrameWork) -> None:
        if self._encoder is None:
            self._segment = next(self._segments)
            self._part, self._frames = self._folder.new_part(self._segment.index), 0
            end = self._segment.end_pts
            end_pts = self._end_pts if end is None else end - self._shift
            self._encoder = SegmentEncoder(self._encoding, self._part, end_pts)
        picture = work.frame.picture
        picture.pict_type = 0  # else the encoder would have to use the old stream's types
        self._encoder.write(picture, work.frame.time.pts - self._shift)
        self._frames += 1
        self.frames_out += 1

    def _finish(self, end: SegmentEnd) -> None:
        """Have the segment on disk, with its receipt."""
        if self._encoder is None or self._part is None:
            next(self._segments)  # not one frame of it could be decoded
            packets = PacketIndex.empty()
            self._part = self._folder.new_part(end.segment.index)
            self._part.touch()
        else:
            packets = self._encoder.finish()
        now = time.monotonic()
        counts = self._counts(self._place, end)
        receipt = Receipt(
            index=end.segment.index,
            counts=counts.model_copy(update={"frames_out": self._frames}),
            packets=packets,
            worker=f"{platform.node()}:{os.getpid()}",
            seconds=round(now - self._began_s, 3),
            truncated=end.source.truncated,
            notes=tuple(end.source.notes),
        )
        self._folder.store(self._part, receipt)
        self.finished[receipt.index] = receipt
        self._encoder, self._part, self._frames = None, None, 0
        self._place, self._began_s = self._place + 1, now

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn FFmpeg's and the system's errors into one line."""
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            encoding = self._encoding
            enlarged = encoding.shown is not encoding.info
            raise encode_error(error, encoding.destination, encoding.recipe, enlarged=enlarged) from error
