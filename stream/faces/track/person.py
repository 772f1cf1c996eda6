"""A followed face: what is known of it, and how detections and flow are brought together."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from stream.faces.track.flow import EYES, MEAN_FACE, Anchor, Estimate
from stream.picture import geometry
from stream.picture.face import Detection
from stream.picture.frame import Frame

_FLOOR = 0.2
"""Least gain of a detection over the carried landmarks."""
_NOISE = 0.03
"""Scatter of a detection's landmarks, in eye distances."""
_STILL = 0.0015
"""Steps of this size, in eye distances, are half noise of the flow and are shortened by half."""
_GRAIN = 0.15
"""And so are steps of this size, px of the frame: the smaller the face, the more of its steps is noise."""
_CREEP = 2e-5
"""Correction of a still face's place in a frame, in eye distances: not seen."""
_STIR = 0.002
"""Motion in a frame up to which a face counts as still, in eye distances: noise of the flow."""
_MASKED = 0.15
"""Part of a face's motion that may be added to it or left out unseen."""
_ALIKE = 0.97
"""While the confidence stays above it the reference patch is kept: a new one would add its noise."""
_TRUSTED = 0.8
"""Certainty below which a place was a guess, such as a half-hidden face's, and is left at once."""
_JUMP = 0.5
"""A detection further off than this, in eye distances, replaces the track's landmarks."""


@dataclass(slots=True, eq=False)
class Person:
    """A face that is followed."""

    id: int
    landmarks: np.ndarray
    box: np.ndarray
    """f64[2,2] corners relative to the landmarks' centre, in eye distances."""
    score: float
    anchor: Anchor
    look: np.ndarray
    sure: bool
    seen: float
    """Sum of the certainties of the detections that the landmarks rest on."""
    confidence: float = 1.0
    pending: np.ndarray = field(default_factory=lambda: np.zeros((5, 2)))
    """Correction that is known but not yet shown, in the face's axes and eye distances."""
    trust: float = 1.0
    """Certainty of what is shown, up to 1."""
    off: np.ndarray = field(default_factory=lambda: np.zeros((5, 2)))
    """What the last detection left unsettled: a second one that agrees with it is no noise."""
    least: float = 1.0
    """Lowest confidence since the reference patch was taken."""
    steady: np.ndarray | None = None
    """The newest keyframe's correction f64[5,2] in the face's axes, where the patch was kept."""
    leeway: float = 0.0
    """How much of it motion has hidden since the last step, eye distances."""
    shown: bool = False
    """Whether a frame of an earlier segment was handed on with this face."""
    emitted: bool = False
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))
    """px a frame"""
    lost: int = 0
    """Frames since it was last held; 0: it is held."""
    missed: int = 0
    """Keyframes in a row that did not find it."""

    def take(self, hit: Detection, frame: Frame, at_once: bool) -> None:
        """Bring a detection in, and take a new reference patch where the old one no longer fits.

        With `at_once` what motion hides of the correction is shown from here on; without, `settle`
        is called for every frame.
        """
        marks = hit.landmarks.astype(np.float64)
        off = (marks - self.landmarks) @ np.linalg.inv(axes_of(self.landmarks)).T
        anew = bool(self.lost) or spread(off) > _JUMP
        if anew:
            self._restart(marks, hit.score)
        else:
            self._correct(off - self.pending, hit.score)
        box = relative_box(hit.box_xyxy, marks)
        self.box = self.box + (1.0 if anew else _FLOOR) * (box - self.box)
        self.score, self.confidence, self.sure = hit.score, 1.0, True
        self.lost = self.missed = 0
        step = self.settle() if at_once else np.zeros((5, 2))
        self.landmarks = self.landmarks + step @ axes_of(self.landmarks).T
        self.steady = None if anew or self.least < _ALIKE else step
        if self.steady is None:
            self.anchor, self.least = Anchor(frame, self.landmarks), 1.0
        else:
            self.anchor.marks = self.anchor.marks + step * EYES

    def carry(self, frame: Frame, doubtful: float) -> Estimate:
        """Follow to the next frame; a second start where the confidence stays below `doubtful`."""
        found = self.anchor.follow(frame, self.landmarks + self.velocity)
        if found.confidence < doubtful:
            still = self.anchor.follow(frame, self.landmarks)
            found = max(found, still, key=lambda estimate: estimate.confidence)
        found = calmed(found, self.landmarks)
        self.confidence, self.least = found.confidence, min(self.least, found.confidence)
        if found.confidence > 0.1:
            moved = found.landmarks - self.landmarks
            self.velocity = 0.3 * self.velocity + 0.7 * moved.mean(axis=0)
            self.landmarks = found.landmarks
            motion = spread(moved) / face_size(found.landmarks)
            self.leeway += _CREEP + _MASKED * max(0.0, motion - _STIR)
        return replace(found, landmarks=self.landmarks)

    def _restart(self, marks: np.ndarray, score: float) -> None:
        if self.lost:
            self.shown = self.emitted = False
        self.landmarks, self.seen = marks, certainty(score)
        self.velocity, self.pending, self.off = np.zeros(2), np.zeros((5, 2)), np.zeros((5, 2))

    def _correct(self, off: np.ndarray, score: float) -> None:
        gain = self._gain(off, score)
        self.pending, self.off = self.pending + gain * off, (1 - gain) * off

    def settle(self) -> np.ndarray:
        """Take from the pending correction f64[5,2] what the face's own motion hides, eye distances.

        A correction of a still face would be seen as movement; in a moving one it is not noticed.
        """
        size = spread(self.pending)
        allowed = size if self.trust < _TRUSTED else max(self.leeway, size - _NOISE)
        step = self.pending * (min(1.0, allowed / size) if self.shown and size > 0 else 1.0)
        self.pending = self.pending - step
        self.leeway = 0.0
        return step

    def _gain(self, off: np.ndarray, score: float) -> float:
        """How far to go towards a detection that is `off` f64[5,2], in eye distances.

        About 1/n, each detection weighing by its score; more where it is off by much, or twice in
        the same direction, or where the flow is weak.
        """
        weight = certainty(score)
        gain = max(_FLOOR, weight / (self.seen + weight)) * min(1.0, 1.2 * score)
        self.trust = min(self.seen, 1.0)
        self.seen += weight
        common = max(0.0, float((off * self.off).sum(axis=1).mean()))
        surprise = 1 - (3 * _NOISE / max(spread(off), 1e-6)) ** 2
        steady = 1 - _NOISE**2 / max(common, 1e-9)
        return float(np.clip(max(gain, surprise, steady, 0.5 - score * self.confidence), 0, 1))


def blend(ahead: Estimate | None, behind: Estimate | None, part: float) -> Estimate | None:
    """Between two runs: `part` 0 is the earlier keyframe, 1 the later. Far apart, the surer wins."""
    if ahead is None or behind is None:
        return ahead or behind
    gap = np.abs(ahead.landmarks - behind.landmarks).max() / face_size(ahead.landmarks)
    if gap > 0.35:
        return max(ahead, behind, key=lambda e: e.confidence)
    weight, other = (1 - part) * ahead.confidence, part * behind.confidence
    share = other / max(weight + other, 1e-9)
    marks = ahead.landmarks + share * (behind.landmarks - ahead.landmarks)
    return Estimate(marks, max(ahead.confidence, behind.confidence))


def calmed(found: Estimate, before: np.ndarray) -> Estimate:
    """The estimate with its step from the landmarks `before` shortened where that is mostly noise.

    By Wiener's gain (Wiener, 1949), p / (p + n) for the step's power p and the flow's noise n: a still
    face stays put, a fast one is followed whole, as by the One Euro filter (Casiez et al., 2012), but
    with no average of the speed that would lag behind.
    """
    step, size = found.landmarks - before, face_size(before)
    power = (spread(step) / size) ** 2
    noise = _STILL**2 + (_GRAIN / size) ** 2
    return replace(found, landmarks=before + step * (power / (power + noise)))


def face_size(landmarks: np.ndarray) -> float:
    """Eye distance of the mean face that spans as much, px: it does not shrink in a turned head."""
    return max(geometry.scale_of(geometry.similarity(MEAN_FACE, landmarks)) * EYES, 1e-3)


def certainty(score: float) -> float:
    """Weight of a detection's landmarks; a half-hidden face scores low and is off by much."""
    return float(np.clip((score - 0.25) / 0.5, 0.1, 1.0) ** 2)


def spread(offsets: np.ndarray) -> float:
    """Root mean square length of offsets [5,2]."""
    return float(np.sqrt((np.asarray(offsets, np.float64) ** 2).sum(axis=1).mean()))


def axes_of(landmarks: np.ndarray) -> np.ndarray:
    """The face's right and down as columns f64[2,2], one eye distance long, upright px."""
    return geometry.similarity(MEAN_FACE, landmarks)[:, :2] * EYES


def relative_box(box_xyxy: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Box corners f64[2,2] relative to the landmarks' centre, in eye distances."""
    corners = box_xyxy.reshape(2, 2).astype(np.float64)
    box: np.ndarray = (corners - landmarks.mean(axis=0)) / face_size(landmarks)
    return box
