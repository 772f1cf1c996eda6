"""Follow one face from its keyframe's patch by pyramidal Lucas-Kanade flow.

All work is done in a canonical patch of fixed size in which the face stands upright, so precision
is relative to the face and the cost does not depend on its size. The patch of the keyframe stays
the reference: errors do not add up from frame to frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from stream import geometry
from stream.frame import Frame, View

PATCH = 112
"""Side of the canonical patch, px."""
EYES = 34.0
"""Distance of the mean face's eyes in the patch, px."""
_WINDOW = (15, 15)
_STOP = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 12, 0.02)
_FAR = 2.5
"""A fitted shift beyond this, px of the patch, is measured a second time from the new place."""


def _mean_face() -> np.ndarray:
    mean = geometry.TEMPLATES["ffhq_512"]
    scaled = (mean - mean.mean(axis=0)) * (EYES / np.linalg.norm(mean[1] - mean[0]))
    return scaled + (PATCH / 2, PATCH * 0.52)


def _grid() -> np.ndarray:
    """Points f32[N,1,2] in the ellipse of the face, cv2 convention (pixel centres whole)."""
    step = 8.0
    axis = np.arange(step, PATCH - step / 2, step)
    x, y = np.meshgrid(axis, axis)
    inside = ((x - PATCH / 2) / (0.36 * PATCH)) ** 2 + ((y - 0.52 * PATCH) / (0.43 * PATCH)) ** 2 <= 1
    return np.stack([x[inside], y[inside]], axis=-1).astype(np.float32)[:, None]


MEAN_FACE = _mean_face()
"""Landmarks f64[5,2] of the mean face in the patch."""
_GRID = _grid()
_CORE = np.s_[28:92, 24:88]
"""Eyes, nose and mouth: where likeness is judged."""


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """Where a face is in one frame, by one run of the flow."""

    landmarks: np.ndarray
    """f64[5,2] upright px"""
    confidence: float
    """0..1: share of points that agree, times likeness to the keyframe."""


class Anchor:
    """A keyframe's patch of a face, with the points and landmarks to carry from it."""

    def __init__(self, frame: Frame, landmarks: np.ndarray) -> None:
        """Cut the patch out of `frame`; `landmarks` f64[5,2] upright px."""
        to_upright = geometry.similarity(MEAN_FACE, landmarks)
        self.patch = patch_at(frame, to_upright)
        self.marks = geometry.apply(geometry.invert(to_upright), landmarks)
        inside = _inside(frame.view, to_upright, _GRID[:, 0])
        self._points = _GRID[inside]
        offset = self.marks[:, None] - self._points[None, :, 0]
        self._near = np.exp(-(offset**2).sum(axis=-1) / (2 * (0.22 * EYES) ** 2))
        self._likeness = _normal(self.patch[_CORE])

    def follow(self, frame: Frame, guess: np.ndarray) -> Estimate:
        """The face in another frame, looked for round the landmarks `guess` f64[5,2]."""
        to_upright = geometry.similarity(self.marks, guess)
        for last in (False, False, True):
            patch = patch_at(frame, to_upright)
            move, moved, weights, share = self._measure(patch, frame.view, to_upright)
            if move is None:
                return Estimate(geometry.apply(to_upright, self.marks), 0.0)
            if last or np.abs(geometry.apply(move, MEAN_FACE) - MEAN_FACE).max() < _FAR:
                break
            to_upright = geometry.chain(to_upright, move)
        local = self._local(move, moved, weights)
        landmarks = geometry.apply(to_upright, geometry.apply(move, self.marks) + local)
        likeness = max(0.0, float((self._likeness * _normal(_core_moved(patch, move))).mean()))
        return Estimate(landmarks, float(np.clip(share * 1.25, 0, 1) * np.clip(likeness * 1.15, 0, 1)))

    def _measure(self, patch: np.ndarray, view: View, to_upright: np.ndarray):
        """Similarity of the reference's points to this patch's, the points, weights, inlier share."""
        start = self._points
        if len(start) < 8:
            return None, None, None, 0.0
        moved, found, _ = cv2.calcOpticalFlowPyrLK(
            self.patch, patch, start, None, winSize=_WINDOW, maxLevel=3, criteria=_STOP
        )
        back, found_back, _ = cv2.calcOpticalFlowPyrLK(
            patch, self.patch, moved, start.copy(), winSize=_WINDOW, maxLevel=1, criteria=_STOP,
            flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
        )  # fmt: skip
        start, moved = start[:, 0].astype(np.float64), moved[:, 0].astype(np.float64)
        error = np.linalg.norm(back[:, 0] - start, axis=1)
        good = (found[:, 0] & found_back[:, 0]).astype(bool) & (error < 1.0)
        good &= _inside(view, to_upright, moved)
        if good.sum() < 6:
            return None, None, None, 0.0
        base = 1.0 / (1.0 + (error / 0.2) ** 2)
        weights = base * good
        for sharp in (4.0, 2.0, 1.5, 1.5):
            move = geometry.similarity(start, moved, weights + 1e-9)
            residual = np.linalg.norm(moved - geometry.apply(move, start), axis=1)
            weights = base * good / (1.0 + (residual / sharp) ** 2) ** 2
        agree = good & (residual < 3.5)
        return move, moved, base * agree, float(agree.mean())

    def _local(self, move: np.ndarray, moved: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """What the face's own motion adds to the similarity at each landmark, f64[5,2] patch px."""
        start = self._points[:, 0].astype(np.float64)
        residual = moved - geometry.apply(move, start)
        near = self._near * weights
        return near @ residual / (near.sum(axis=1, keepdims=True) + 0.5)


def patch_at(frame: Frame, to_upright: np.ndarray) -> np.ndarray:
    """Luma u8[PATCH,PATCH] where `to_upright` maps the patch's px to the frame's upright ones.

    Read at once the patch's own resolution or more; beyond the picture its edge is repeated.
    """
    view = frame.view
    to_stored = geometry.chain(view.to_stored, to_upright)
    x0, y0, x1, y1 = geometry.cover(to_stored, PATCH, (view.width, view.height), margin=3, grid=2)
    if x1 - x0 < 2 or y1 - y0 < 2:
        return np.zeros((PATCH, PATCH), np.uint8)
    # The exact upright image of whole stored pixels: rounding inside `luma` then moves nothing.
    corners = geometry.apply(geometry.invert(view.to_stored), np.array([[x0, y0], [x1, y1]]))
    box = (*corners.min(axis=0), *corners.max(axis=0))
    step = geometry.scale_of(to_upright)
    image = frame.luma(box, min(1.0, 1.4 / step))
    ratio = np.array(image.shape[1::-1]) / (box[2] - box[0], box[3] - box[1])
    to_image = to_upright.copy()
    to_image[:, 2] -= box[:2]
    to_image *= ratio[:, None]
    to_image[:, 2] += to_image[:, :2] @ (0.5, 0.5) - 0.5
    mode = cv2.INTER_LINEAR if step > 1 else cv2.INTER_CUBIC
    return cv2.warpAffine(
        image, to_image, (PATCH, PATCH), flags=mode | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )


def _inside(view: View, to_upright: np.ndarray, points: np.ndarray) -> np.ndarray:
    """bool[N]: which points of a patch lie in the picture."""
    at = geometry.apply(to_upright, points)
    return ((at >= 0) & (at <= view.upright_size)).all(axis=1)


def _core_moved(patch: np.ndarray, move: np.ndarray) -> np.ndarray:
    """The patch's core taken back by the fitted move."""
    rows, columns = _CORE
    shifted = move.copy()
    shifted[:, 2] += move[:, :2] @ (columns.start, rows.start)
    size = columns.stop - columns.start, rows.stop - rows.start
    return cv2.warpAffine(
        patch, shifted, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )


def _normal(patch: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance; a flat patch stays near zero."""
    values = patch.astype(np.float32)
    return (values - values.mean()) / (values.std() + 2.0)
