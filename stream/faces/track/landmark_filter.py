"""Landmarks of a followed face, fused from detections and optical flow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stream.faces.track.face_axes import axes_of, face_size, rms_length
from stream.faces.track.flow import EYES, Estimate, ReferencePatch
from stream.picture.face import Detection
from stream.picture.frame import Frame

MIN_GAIN = 0.2
"""Least weight of a detection against the landmarks that flow has brought."""
_DETECTION_NOISE = 0.03
"""Scatter of a detection's landmarks, in eye distances."""
_FLOW_NOISE = 0.0015
"""Noise of the flow, in eye distances a frame: a step of this size is shortened by half."""
_FLOW_NOISE_PX = 0.15
"""The same in px of the frame, added to it: the smaller the face, the more of its steps is noise."""
_CREEP = 2e-5
"""Correction of a still face in each frame, in eye distances: too small to be seen."""
_STILL = 0.002
"""Motion in a frame up to which a face counts as still, in eye distances: noise of the flow."""
_HIDDEN_PART = 0.15
"""Part of a face's motion by which its place can be corrected unseen."""
_KEEP_PATCH = 0.97
"""While the confidence stays above it the reference patch is kept: a new one would add its noise."""
_GUESSED = 0.8
"""Certainty below which the place was a guess, as for a half-hidden face, and is corrected at once."""
_JUMP = 0.5
"""A detection farther away than this, in eye distances, replaces the landmarks."""


class LandmarkFilter:
    """Follows the landmarks of one face; offsets are in the face's axes and eye distances (`face_axes`).

    Flow moves the landmarks in every frame, and detections correct them. A correction of a still face
    would be seen as motion, so it waits as `pending` until the face's own motion hides it.
    """

    def __init__(self, frame: Frame, hit: Detection) -> None:
        """Begin with the first detection of the face, in `frame`."""
        self.landmarks = hit.landmarks.astype(np.float64)
        """f64[5,2], upright px."""
        self.velocity = np.zeros(2)
        """Motion of the landmarks' centre, px a frame."""
        self.confidence = 1.0
        """Confidence of the newest estimate, 0..1."""
        self.hidden_motion = 0.0
        """Size of the correction that motion has hidden since the last one, in eye distances."""
        self.kept_step: np.ndarray | None = None
        """The newest keyframe's correction f64[5,2], if the reference patch was kept then."""
        self._reference = ReferencePatch(frame, self.landmarks)
        self._lowest_confidence = 1.0
        """Lowest confidence since the reference patch was cut."""
        self._weight = certainty(hit.score)
        """Sum of the certainties of the detections that the landmarks are fused from."""
        self._certainty = 1.0
        """Certainty of the shown landmarks before the newest detection, at most 1."""
        self._pending = np.zeros((5, 2))
        """Correction that is known but not shown yet."""
        self._remainder = np.zeros((5, 2))
        """The part of the newest detection's offset that was treated as noise."""

    def follow(self, frame: Frame, doubtful: float) -> Estimate:
        """Follow to the next frame; a second start is tried where the confidence is below `doubtful`."""
        found = self._reference.follow(frame, self.landmarks + self.velocity)
        if found.confidence < doubtful:
            unmoved = self._reference.follow(frame, self.landmarks)
            found = max(found, unmoved, key=lambda estimate: estimate.confidence)
        found = damped(found, self.landmarks)
        self.confidence = found.confidence
        self._lowest_confidence = min(self._lowest_confidence, found.confidence)
        if found.confidence > 0.1:
            moved = found.landmarks - self.landmarks
            self.velocity = 0.3 * self.velocity + 0.7 * moved.mean(axis=0)
            self.landmarks = found.landmarks
            motion = rms_length(moved) / face_size(found.landmarks)
            self.hidden_motion += _CREEP + _HIDDEN_PART * max(0.0, motion - _STILL)
        return replace(found, landmarks=self.landmarks)

    def locate(self, frame: Frame, guess: np.ndarray) -> Estimate:
        """The face in any frame, near the landmarks `guess` f64[5,2]; the filter does not change."""
        return self._reference.follow(frame, guess)

    def correct(self, hit: Detection, frame: Frame, *, restart: bool, visible: bool, at_once: bool) -> bool:
        """Fuse a detection in `frame`; returns whether it replaced the landmarks.

        A new reference patch is cut where the old one no longer fits. `restart`: the landmarks are
        replaced wherever the detection is. `visible`: earlier frames show the face, so that a correction
        could be seen. `at_once`: what motion hides of the correction is applied here, for the frames
        since the last keyframe; else `correct_reference` is called for every frame.
        """
        marks = hit.landmarks.astype(np.float64)
        offset = (marks - self.landmarks) @ np.linalg.inv(axes_of(self.landmarks)).T
        replaced = restart or rms_length(offset) > _JUMP
        if replaced:
            self.landmarks, self._weight = marks, certainty(hit.score)
            self.velocity = np.zeros(2)
            self._pending, self._remainder = np.zeros((5, 2)), np.zeros((5, 2))
        else:
            offset = offset - self._pending
            gain = self._gain(offset, hit.score)
            self._pending = self._pending + gain * offset
            self._remainder = (1 - gain) * offset
        self.confidence = 1.0
        step = self._pop_step(visible) if at_once else np.zeros((5, 2))
        self.landmarks = self.landmarks + step @ axes_of(self.landmarks).T
        if replaced or self._lowest_confidence < _KEEP_PATCH:
            self.kept_step = None
            self._reference, self._lowest_confidence = ReferencePatch(frame, self.landmarks), 1.0
        else:
            self.kept_step = step
            self._reference.shift(step * EYES)
        return replaced

    def correct_reference(self, visible: bool) -> None:
        """Apply what motion hides of the pending correction, from the next frame on."""
        self._reference.shift(self._pop_step(visible) * EYES)

    def _pop_step(self, visible: bool) -> np.ndarray:
        """Remove from the pending correction f64[5,2] the part that motion hides, and return it."""
        size = rms_length(self._pending)
        allowed = size if self._certainty < _GUESSED else max(self.hidden_motion, size - _DETECTION_NOISE)
        step = self._pending * (min(1.0, allowed / size) if visible and size > 0 else 1.0)
        self._pending = self._pending - step
        self.hidden_motion = 0.0
        return step

    def _gain(self, offset: np.ndarray, score: float) -> float:
        """How far to go towards a detection at `offset` f64[5,2], 0..1.

        About 1/n, each detection weighing by its score. It is larger where the detection is far away, or
        twice in the same direction, and where the flow is weak.
        """
        weight = certainty(score)
        gain = max(MIN_GAIN, weight / (self._weight + weight)) * min(1.0, 1.2 * score)
        self._certainty = min(self._weight, 1.0)
        self._weight += weight
        common = max(0.0, float((offset * self._remainder).sum(axis=1).mean()))
        surprise = 1 - (3 * _DETECTION_NOISE / max(rms_length(offset), 1e-6)) ** 2
        repeated = 1 - _DETECTION_NOISE**2 / max(common, 1e-9)
        return float(np.clip(max(gain, surprise, repeated, 0.5 - score * self.confidence), 0, 1))


def blend(forward: Estimate | None, backward: Estimate | None, progress: float) -> Estimate | None:
    """Blend the estimates of two runs of the flow; where they differ much, the more confident one wins.

    `progress` is 0 at the earlier keyframe, where `forward` counts alone, and 1 at the later.
    """
    if forward is None or backward is None:
        return forward or backward
    gap = np.abs(forward.landmarks - backward.landmarks).max() / face_size(forward.landmarks)
    if gap > 0.35:
        return max(forward, backward, key=lambda estimate: estimate.confidence)
    weight, other = (1 - progress) * forward.confidence, progress * backward.confidence
    share = other / max(weight + other, 1e-9)
    marks = forward.landmarks + share * (backward.landmarks - forward.landmarks)
    return Estimate(marks, max(forward.confidence, backward.confidence))


def damped(found: Estimate, before: np.ndarray) -> Estimate:
    """The estimate with its step from the landmarks `before` shortened where that is mostly noise.

    By Wiener's gain (Wiener, 1949), p / (p + n) for the step's power p and the flow's noise n. A still
    face stays in place and a fast one is followed wholly, as by the One Euro filter (Casiez et al., 2012),
    but without an average of the speed, which would lag.
    """
    step, size = found.landmarks - before, face_size(before)
    power = (rms_length(step) / size) ** 2
    noise = _FLOW_NOISE**2 + (_FLOW_NOISE_PX / size) ** 2
    return replace(found, landmarks=before + step * (power / (power + noise)))


def certainty(score: float) -> float:
    """Weight of a detection's landmarks, 0.01..1: a half-hidden face scores low and is placed badly."""
    return float(np.clip((score - 0.25) / 0.5, 0.1, 1.0) ** 2)
