"""Evaluation: faces are damaged, contenders restore them, and every result is measured."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np

from stream.lab.damage import LEVELS, damage
from stream.lab.quality import picture_measures
from stream.lab.quality.bootstrap import Difference, paired_bootstrap
from stream.lab.quality.evaluation_report import EvaluationFigures, FigureDifference
from stream.lab.quality.face_meters import IdentityMeter, LandmarkMeter
from stream.lab.quality.portraits import Portrait
from stream.pipeline.processes import in_threads

INPUT = "input"
"""Name of the row for the damaged picture itself."""
LARGEST_PSNR = 99.0
"""PSNR of equal pictures in dB, so that a mean exists."""

Restorer = Callable[[np.ndarray], np.ndarray]
"""A function from a damaged to a restored picture, both RGB u8[256,256,3]. One thread calls it."""


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """The figures of all contenders."""

    names: tuple[str, ...]
    """Names of the faces."""
    seed: int
    values: dict[str, dict[str, dict[str, np.ndarray]]]
    """f64[N], one value for each face, by level, row and figure (see `picture_measures.BETTER`). It is NaN
    if the figure needs a face and none was found."""

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the levels, from the least damage to the most."""
        return tuple(self.values)

    @property
    def rows(self) -> tuple[str, ...]:
        """The input first, then the contenders in their order."""
        return tuple(next(iter(self.values.values())))

    @property
    def figures(self) -> tuple[str, ...]:
        """The measured figures, in the order of `picture_measures.BETTER`."""
        measured = next(iter(next(iter(self.values.values())).values()))
        return tuple(name for name in picture_measures.BETTER if name in measured)

    def average(self, level: str, row: str, figure: str) -> float:
        """The mean over the faces that have the figure; for sharpness it is the median."""
        values = self.values[level][row][figure]
        values = values[np.isfinite(values)]
        return float(_average_of(figure)(values)) if len(values) else float("nan")

    def difference(self, level: str, row: str, other: str, figure: str) -> Difference:
        """One row's average minus another's, over the faces that have both, with its bootstrap interval."""
        at_level = self.values[level]
        first, second = at_level[row][figure], at_level[other][figure]
        return paired_bootstrap(first, second, self.seed, _average_of(figure))

    def as_dict(self, pairs: Sequence[tuple[str, str]]) -> EvaluationFigures:
        """The evaluation for JSON, with differences for the given `pairs` of rows."""
        middles = {
            level: {row: {figure: _rounded(self.average(level, row, figure)) for figure in self.figures}
                    for row in self.rows}
            for level in self.levels
        }  # fmt: skip
        differences = [
            self._figure_difference(level, row, other, figure)
            for level in self.levels
            for row, other in pairs
            for figure in self.figures
        ]
        missing = {
            level: {row: int(np.isnan(self.values[level][row]["landmarks"]).sum()) for row in self.rows}
            for level in self.levels
        }
        by_face = {
            level: {row: {figure: [_rounded(value) for value in self.values[level][row][figure]]
                          for figure in self.figures} for row in self.rows}
            for level in self.levels
        }  # fmt: skip
        return {
            "seed": self.seed, "faces": list(self.names), "levels": list(self.levels),
            "rows": list(self.rows), "figures": list(self.figures),
            "middles": middles, "missing": missing, "differences": differences, "by_face": by_face,
        }  # fmt: skip

    def _figure_difference(self, level: str, row: str, other: str, figure: str) -> FigureDifference:
        found = self.difference(level, row, other, figure)
        return {
            "level": level, "row": row, "against": other, "figure": figure,
            "difference": _rounded(found.value), "low": _rounded(found.low), "high": _rounded(found.high),
            "pairs": found.pairs, "verdict": found.verdict(picture_measures.BETTER[figure]),
        }  # fmt: skip


def _average_of(figure: str) -> Callable[..., np.ndarray]:
    # A few references are blurred themselves; their ratios would dominate a mean.
    return np.median if figure == "sharpness" else np.mean


def damaged(portrait: Portrait, level: str, seed: int = 0) -> np.ndarray:
    """The face damaged at a level, RGB u8[256,256,3].

    The result depends on the seed, the face's name and the level only, not on the other faces.
    """
    name_hash = zlib.crc32(portrait.name.encode())
    return damage(portrait.picture, level, np.random.default_rng([seed, name_hash, LEVELS.index(level)]))


def evaluate(
    contenders: Mapping[str, Restorer],
    portraits: Sequence[Portrait],
    levels: Sequence[str] = LEVELS,
    *,
    seed: int = 0,
    identity: bool = False,
    threads: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
) -> Evaluation:
    """Evaluate contenders on faces at levels of damage; the damaged input is a row of its own.

    `identity` adds the identity distance, for which the extra of that name must be installed. Contenders
    are called one after another in this thread; `threads` threads measure the results. `progress` is
    called with the level, the number of its faces that are done, and the number of all faces.
    """
    measure = _FaceMeasurement(identity)
    values = {}
    for level in levels:
        rows: dict[str, list[dict[str, float]]] = {row: [] for row in (INPUT, *contenders)}
        step = 4 * threads
        for start in range(0, len(portraits), step):
            batch = portraits[start : start + step]
            if progress is not None:
                progress(level, start, len(portraits))
            jobs = []
            for portrait in batch:
                bad = damaged(portrait, level, seed)
                results = {INPUT: bad} | {row: make(bad) for row, make in contenders.items()}
                jobs.append((portrait.picture, results))
            with _libraries_single_threaded():
                measured = in_threads(measure, jobs, min(threads, len(jobs)))
            for found in measured:
                for row, figures in found.items():
                    rows[row].append(figures)
        values[level] = {
            row: {figure: np.array([face[figure] for face in faces]) for figure in faces[0]}
            for row, faces in rows.items()
        }
    return Evaluation(tuple(portrait.name for portrait in portraits), seed, values)


@contextmanager
def _libraries_single_threaded() -> Iterator[None]:
    """Limit torch and OpenCV to one thread a call, since our own threads use all cores already."""
    import torch

    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


class _FaceMeasurement:
    """Measures all results for one face. Each thread that calls it uses its own detectors."""

    def __init__(self, identity: bool) -> None:
        self._identity = identity
        self._pool: list[tuple[LandmarkMeter, IdentityMeter | None]] = []
        self._lock = threading.Lock()

    def __call__(self, job: tuple[np.ndarray, dict[str, np.ndarray]]) -> dict[str, dict[str, float]]:
        with self._lock:
            landmarks, identity = self._pool.pop() if self._pool else self._new()
        clean, results = job
        found: dict[int, dict[str, float]] = {}
        for picture in results.values():
            if id(picture) in found:  # a contender that restored nothing returns the input itself
                continue
            figures = picture_measures.figures(picture, clean)
            figures["psnr"] = min(figures["psnr"], LARGEST_PSNR)
            figures["landmarks"] = _number(landmarks.distance(picture, clean))
            if identity is not None:
                figures["identity"] = _number(identity.distance(picture, clean))
            found[id(picture)] = figures
        with self._lock:
            self._pool.append((landmarks, identity))
        return {row: found[id(picture)] for row, picture in results.items()}

    def _new(self) -> tuple[LandmarkMeter, IdentityMeter | None]:
        landmarks = LandmarkMeter()
        return landmarks, IdentityMeter(landmarks) if self._identity else None


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _rounded(value: float) -> float | None:
    """The value with six digits; None for NaN, which JSON lacks."""
    return float(f"{value:.6g}") if np.isfinite(value) else None
