"""Detection in unrelated pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from stream.picture.face import Detection, Face, FrameWork
from stream.picture.frame import Frame
from stream.pipeline.stage import Stage


class DetectStage(Stage[FrameWork, FrameWork]):
    """Stage: fills `faces` of each picture on its own, without tracking.

    `find` gives the faces of a frame, upright px.
    """

    def __init__(self, find: Callable[[Frame], list[Detection]]) -> None:
        self.detections_run = 0
        self._find = find

    def process(self, work: FrameWork) -> Iterable[FrameWork]:
        """Fill `faces` of one picture; their track numbers count from 0."""
        self.detections_run += 1
        faces = (
            Face(i, hit.box_xyxy, hit.landmarks, hit.score, coasted=False, confidence=1.0)
            for i, hit in enumerate(self._find(work.frame))
        )
        yield replace(work, faces=tuple(faces))
