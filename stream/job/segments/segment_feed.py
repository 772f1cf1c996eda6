"""Segments -> frames: the first stage of a pipeline that restores several segments in a row."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

from stream.job.plan.plan import PlannedSegment
from stream.media.decode import FileSource
from stream.picture.face import FrameWork
from stream.pipeline.stage import Stage


@dataclass(frozen=True, slots=True, eq=False)
class SegmentEnd:
    """Follows a segment's last frame through all stages, so that each of them ends the segment."""

    segment: PlannedSegment
    source: FileSource
    """It has read the segment."""


SegmentItem = FrameWork | SegmentEnd


class SegmentFeed(Stage[PlannedSegment, SegmentItem]):
    """A feed of segments, and the stage that decodes them.

    For each segment it yields the frames from the warm-up to the tail, and then a `SegmentEnd`.
    """

    def __init__(
        self, segments: Iterable[PlannedSegment], open_source: Callable[[PlannedSegment], FileSource]
    ) -> None:
        self.frames_in = 0
        """Frames decoded, those of warm-ups and tails too."""
        self._segments, self._open_source = segments, open_source
        self._interrupted = threading.Event()
        self._cut_short = False

    def items(self) -> Iterator[PlannedSegment]:
        """See `Feed.items`."""
        for segment in self._segments:
            if self._interrupted.is_set():
                self._cut_short = True
                return
            yield segment

    def interrupt(self) -> None:
        """See `Feed.interrupt`."""
        self._interrupted.set()

    @property
    def cut_short(self) -> bool:
        """See `Feed.cut_short`."""
        return self._cut_short

    def process(self, item: PlannedSegment) -> Iterable[SegmentItem]:
        """Frames until the segment ends or `interrupt` is called."""
        source = self._open_source(item)
        with closing(source.frames()) as frames:
            for frame in frames:
                self.frames_in += 1
                yield FrameWork(frame)
                if self._interrupted.is_set():
                    self._cut_short = True
                    return
        yield SegmentEnd(item, source)
