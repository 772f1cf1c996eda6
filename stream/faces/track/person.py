"""One tracked face: its appearance, its position, and the time since it was lost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stream.faces.track.face_axes import face_size, relative_box
from stream.faces.track.landmark_filter import MIN_GAIN, LandmarkFilter
from stream.picture.face import Detection
from stream.picture.frame import Frame

_CLEAR = 0.75
"""Confidence above which a face may go without a detection for one keyframe."""
_APPEARANCE_GAIN = 0.3
"""Weight of the newest detection in the running average of a face's appearance."""


class Person:
    """A face that is followed from its first detection on."""

    def __init__(self, id: int, hit: Detection, frame: Frame, appearance: np.ndarray, *, sure: bool) -> None:
        """Begin with a detection in `frame`; `appearance` is as `association.appearance_of` gives it."""
        self.id = id
        """The number of its track."""
        self.position = LandmarkFilter(frame, hit)
        self.box = relative_box(hit.box_xyxy, self.position.landmarks)
        """f64[2,2]: corners relative to the landmarks' centre, in eye distances."""
        self.score = hit.score
        """Score of the newest detection, 0..1."""
        self.appearance = appearance
        self.sure = sure
        """Whether it counts as a face; an unsure one becomes sure with its second detection."""
        self.lost = 0
        """Frames since it was lost; 0: it is followed."""
        self.emitted_before = False
        """Whether frames before the present segment were handed on with this face."""
        self._emitted = False
        self._missed = 0
        """Keyframes in a row without a detection of it."""

    @property
    def expected_centre(self) -> np.ndarray:
        """Expected position of the landmarks' centre, f64[2] upright px."""
        place = self.position
        centre: np.ndarray = place.landmarks.mean(axis=0) + place.velocity * min(self.lost, 10)
        return centre

    def is_kept(self, max_lost: int) -> bool:
        """Whether it is followed or may still return."""
        return self.lost <= max_lost and (self.sure or not self.lost)

    def age(self, frames: int) -> None:
        """Count frames since the last keyframe, if it is lost."""
        if self.lost:
            self.lost += frames

    def confirm(self, hit: Detection, appearance: np.ndarray, frame: Frame, *, at_once: bool) -> None:
        """Update it with its detection in a keyframe; `at_once` is as for `LandmarkFilter.correct`."""
        if self.lost:
            self.emitted_before = self._emitted = False
        replaced = self.position.correct(
            hit, frame, restart=bool(self.lost), visible=self.emitted_before, at_once=at_once
        )
        box = relative_box(hit.box_xyxy, hit.landmarks.astype(np.float64))
        self.box = self.box + (1.0 if replaced else MIN_GAIN) * (box - self.box)
        self.score, self.sure = hit.score, True
        self.lost = self._missed = 0
        self.appearance = self.appearance + _APPEARANCE_GAIN * (appearance - self.appearance)

    def miss(self, hits: Sequence[Detection]) -> None:
        """Note that none of a keyframe's detections is this face; it is lost, if it was not clear."""
        if self.lost:
            return
        self._missed += 1
        landmarks = self.position.landmarks
        reach, centre = face_size(landmarks), landmarks.mean(axis=0)
        covered = any(np.linalg.norm(hit.landmarks.mean(axis=0) - centre) < reach for hit in hits)
        clear = self.sure and self._missed < 2 and self.position.confidence > _CLEAR
        if not clear or covered:
            self.lost = 1

    @property
    def was_detected(self) -> bool:
        """Whether the newest keyframe found it."""
        return not self.lost and not self._missed

    def emit(self, *, at_once: bool) -> None:
        """Note that a frame is handed on with this face; `at_once`: each frame is a segment of its own."""
        self._emitted = True
        self.emitted_before |= at_once

    def end_segment(self) -> None:
        """Note that the frames up to a keyframe have been handed on."""
        self.emitted_before |= self._emitted
