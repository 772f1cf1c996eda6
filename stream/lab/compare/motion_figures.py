"""Figures of video: short stretches of consecutive pairs, from all over the clip."""

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
"""Consecutive pairs in a stretch."""
_STRETCHES = 8
_LONGER_PX = 640
"""Larger pictures are made smaller for these figures: flow costs by the pixel."""


def stretches(count: int) -> list[range]:
    """Where the stretches lie among `count` pairs; short clips are covered whole, in one piece or more."""
    if count < 3:
        return []
    if count <= STRETCH:
        return [range(count)]
    pieces = min(_STRETCHES, count // STRETCH)
    firsts = [round(i * (count - STRETCH) / max(1, pieces - 1)) for i in range(pieces)]
    return [range(first, first + STRETCH) for first in firsts]


@dataclass(slots=True)
class MotionFigures:
    """Takes pairs in order, measures each stretch once it is whole, and averages."""

    count: int
    """Of all pairs; those that are measured are in `stretches(count)`."""
    _sums: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    _held: list[Pair] = field(default_factory=list)
    _find: FaceFinder | None = None

    def add(self, pair: Pair) -> None:
        """The next pair; those between the stretches are passed over."""
        for stretch in stretches(self.count):
            if pair.index in stretch:
                self._held.append(_small(pair))
                if pair.index == stretch[-1]:
                    self._measure()
                    self._held = []
                return

    @property
    def words(self) -> str:
        """What was measured, for the reader; empty: nothing."""
        parts = stretches(self.count)
        if not parts:
            return ""
        where = f"{len(parts)} stretches of {len(parts[0])} frames" if len(parts) > 1 else "the whole clip"
        return (
            f"Warping error, flicker and landmark jitter: {where}, pictures at most {_LONGER_PX} px long, "
            "motion measured on the reference where there is one, else on A."
        )

    def figures(self) -> list[Figure]:
        """Rows for the table; a figure that could not be measured is left out."""
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
        layers = {"a": [pair.a for pair in self._held], "b": [pair.b for pair in self._held]}
        reference = [pair.reference for pair in self._held if pair.reference is not None]
        motion = quality.ClipMotion(reference or layers["a"])
        true_marks = self._landmarks(reference) if reference else None
        for which, frames in layers.items():
            found = {
                "warping": quality.warping_error(frames, motion),
                "flicker": quality.flicker(frames, motion),
            }
            marks = self._landmarks(frames)
            if marks is not None and (true_marks is not None or not reference):
                found["jitter"] = quality.landmark_jitter(marks, true_marks)
            for key, value in found.items():
                self._sums.setdefault((key, which), []).append(value)

    def _landmarks(self, frames: list[np.ndarray]) -> np.ndarray | None:
        """f64[T,5,2] of the largest face; None where a frame shows none, or another one."""
        if self._find is None:
            self._find = FaceFinder(Detect())
        marks: list[np.ndarray] = []
        for rgb in frames:
            hits = self._find.certain(as_frame(rgb))
            if not hits:
                return None
            hit = max(hits, key=lambda hit: hit.box_xyxy[3] - hit.box_xyxy[1])
            eyes = np.linalg.norm(hit.landmarks[1] - hit.landmarks[0])
            if marks and np.abs(marks[-1] - hit.landmarks).mean() > eyes:
                return None
            marks.append(hit.landmarks.astype(np.float64))
        return np.array(marks)


def _small(pair: Pair) -> Pair:
    height, width = pair.a.shape[:2]
    shrink = min(1.0, _LONGER_PX / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    reference = None if pair.reference is None else at_size(pair.reference, size)
    return Pair(pair.index, pair.frame, pair.time_s, at_size(pair.a, size), at_size(pair.b, size), reference)
