"""The stages of every segment in a row: each segment has stages of its own, which begin without a past.

Segments follow each other in one running pipeline. While the last frames of a segment are encoded, the
next one is decoded and restored already. Nothing that a stage has learnt in one segment reaches the next,
so that a segment's result does not depend on who restores it, and after what.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

from stream.faces.assembly import FaceStages
from stream.job.segments.segment_feed import SegmentEnd, SegmentItem
from stream.picture.face import FrameWork
from stream.pipeline.stage import NamedStage, Stage

_ENCODED_ONLY = ("upscale", "compose")
"""Stages that do not need the frames which are not encoded."""


class StagesBySegment:
    """The face stages of each segment, made when its first frame comes. For the threads of one pipeline."""

    def __init__(self, assemble: Callable[[], FaceStages]) -> None:
        self._assemble = assemble
        self._made = {0: assemble()}
        self._lock = threading.Lock()

    def of(self, place: int) -> FaceStages:
        """The stages of the segment at a place in the row, from 0."""
        with self._lock:
            if place not in self._made:
                self._made[place] = self._assemble()
            return self._made[place]

    def forget(self, place: int) -> None:
        """Release the stages of a segment that is finished."""
        with self._lock:
            self._made.pop(place, None)

    def faces(self) -> int:
        """Faces restored so far in the segments that are not forgotten."""
        with self._lock:
            counts = [stages.restore.counts for stages in self._made.values()]
        return sum(one.restored + one.propagated for one in counts)


class RenewedStage(Stage[SegmentItem, SegmentItem]):
    """One stage of the line. At a segment's end it is flushed and closed, and the next segment's opens."""

    def __init__(self, at: int, stages: StagesBySegment) -> None:
        """`at`: its place in the line of stages."""
        self._at, self._stages = at, stages
        self._place = 0
        self._opened: Stage[FrameWork, FrameWork] | None = None

    def open(self) -> None:
        """Open the first segment's stage, in this thread."""
        self._current()

    def process(self, item: SegmentItem) -> Iterable[SegmentItem]:
        """The stage's results; after a segment's end the next segment's stage takes over."""
        stage = self._current()
        if not isinstance(item, SegmentEnd):
            yield from stage.process(item)
            return
        yield from stage.flush()
        self.close()
        self._place += 1
        yield item

    def flush(self) -> Iterable[SegmentItem]:
        """What is left of a segment that was cut short."""
        return self._opened.flush() if self._opened is not None else ()

    def close(self) -> None:
        """Close the stage that is open."""
        if self._opened is not None:
            self._opened.close()
        self._opened = None

    def _current(self) -> Stage[FrameWork, FrameWork]:
        """The stage of the segment in hand, open."""
        if self._opened is None:
            stage: Stage[FrameWork, FrameWork] = self._stages.of(self._place).in_line()[self._at][1]
            self._opened = stage
            stage.open()
        return self._opened


class EncodedFrames(Stage[SegmentItem, SegmentItem]):
    """Drops the frames of warm-ups and tails."""

    def __init__(self, starts: Iterator[tuple[int | None, int | None]]) -> None:
        """`starts`: of each segment its first pts and the pts at which it ends, in their order."""
        self._windows = starts
        self._window = next(starts, (None, None))

    def process(self, item: SegmentItem) -> Iterable[SegmentItem]:
        """The item, unless it is a frame that is not encoded."""
        if isinstance(item, SegmentEnd):
            self._window = next(self._windows, (None, None))
            yield item
            return
        (start, end), pts = self._window, item.frame.time.pts
        if (start is None or pts >= start) and (end is None or pts < end):
            yield item


def segment_stages(
    stages: StagesBySegment, windows: Iterator[tuple[int | None, int | None]]
) -> list[NamedStage]:
    """The stages between decoding and encoding, for several segments in a row."""
    line: list[NamedStage] = []
    names = [name for name, _ in stages.of(0).in_line()]
    before = next(at for at, name in enumerate(names) if name in _ENCODED_ONLY)
    for at, name in enumerate(names):
        if at == before:
            line.append(("trim", EncodedFrames(windows)))
        line.append((name, RenewedStage(at, stages)))
    return line
