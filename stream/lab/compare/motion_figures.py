"""Figures of motion, measured on short stretches of consecutive pairs throughout the clip."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from stream.config import Detect
from stream.faces.detect.finder import FaceFinder
from stream.lab.compare.figures import Figure
from stream.lab.compare.medium import as_frame, at_size
from stream.lab.compare.pairs import Pair
from stream.lab.quality import video_measures as quality

STRETCH = 13
"""Number of consecutive pairs in a stretch."""
_STRETCHES = 8
"""Largest number of stretches."""
_LONGER_PX = 640
"""Longer side of the measured pictures; larger ones are reduced, because flow takes time for every px."""


def stretches(count: int) -> list[range]:
    """Evenly spaced stretches of a clip of `count` pairs; a short clip is one stretch."""
    if count < 3:
        return []
    if count <= STRETCH:
        return [range(count)]
    pieces = min(_STRETCHES, count // STRETCH)
    firsts = [round(i * (count - STRETCH) / max(1, pieces - 1)) for i in range(pieces)]
    return [range(first, first + STRETCH) for first in firsts]


@dataclass(slots=True)
class MotionFigures:
    """Collects pairs in order, measures each complete stretch, and averages the results."""

    count: int
    """Number of pairs in the clip; those in `stretches(count)` are measured."""
    _sums: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    _pending: list[Pair] = field(default_factory=list)
    _find: FaceFinder | None = None

    def add(self, pair: Pair) -> None:
        """Add the next pair; pairs outside of the stretches are ignored."""
        for stretch in stretches(self.count):
            if pair.index in stretch:
                self._pending.append(_small(pair))
                if pair.index == stretch[-1]:
                    self._measure()
                    self._pending = []
                return

    @property
    def description(self) -> str:
        """Description of what was measured; empty if nothing was."""
        parts = stretches(self.count)
        if not parts:
            return ""
        where = f"{len(parts)} stretches of {len(parts[0])} frames" if len(parts) > 1 else "the whole clip"
        return (
            f"Warping error, flicker and landmark jitter: {where}, pictures at most {_LONGER_PX} px long, "
            "motion measured on the reference where there is one, else on A."
        )

    def figures(self) -> list[Figure]:
        """The measured figures; one that could not be measured is left out."""
        found = []
        for key in ("warping", "flicker", "jitter"):
            values = {}
            for which in ("a", "b"):
                known = [value for value in self._sums.get((key, which), []) if not math.isnan(value)]
                if known:
                    values[which] = float(np.mean(known))
            if values:
                found.append(Figure(key, values, better=-1))
        return found

    def _measure(self) -> None:
        layers = {"a": [pair.a for pair in self._pending], "b": [pair.b for pair in self._pending]}
        reference = [pair.reference for pair in self._pending if pair.reference is not None]
        motion = quality.ClipMotion(reference or layers["a"])
        true_landmarks = self._landmarks(reference) if reference else None
        for which, frames in layers.items():
            found = {
                "warping": quality.warping_error(frames, motion),
                "flicker": quality.flicker(frames, motion),
            }
            landmarks = self._landmarks(frames)
            if landmarks is not None and (true_landmarks is not None or not reference):
                found["jitter"] = quality.landmark_jitter(landmarks, true_landmarks)
            for key, value in found.items():
                self._sums.setdefault((key, which), []).append(value)

    def _landmarks(self, frames: list[np.ndarray]) -> np.ndarray | None:
        """Landmarks f64[T,5,2] of the largest face; None if a frame shows no face or a different one."""
        if self._find is None:
            self._find = FaceFinder(Detect())
        landmarks: list[np.ndarray] = []
        for rgb in frames:
            hits = self._find.certain(as_frame(rgb))
            if not hits:
                return None
            hit = max(hits, key=lambda hit: hit.box_xyxy[3] - hit.box_xyxy[1])
            eyes = np.linalg.norm(hit.landmarks[1] - hit.landmarks[0])
            if landmarks and np.abs(landmarks[-1] - hit.landmarks).mean() > eyes:
                return None
            landmarks.append(hit.landmarks.astype(np.float64))
        return np.array(landmarks)


def _small(pair: Pair) -> Pair:
    height, width = pair.a.shape[:2]
    shrink = min(1.0, _LONGER_PX / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    reference = None if pair.reference is None else at_size(pair.reference, size)
    return Pair(pair.index, pair.frame, pair.time_s, at_size(pair.a, size), at_size(pair.b, size), reference)
