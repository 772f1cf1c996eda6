"""Follow one face from its keyframe's patch by pyramidal Lucas-Kanade flow.

All work is done in a canonical patch of fixed size in which the face stands upright, so precision
is relative to the face and the cost does not depend on its size. The patch of the keyframe stays
the reference: errors do not add up from frame to frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from stream.picture import geometry
from stream.picture.frame import Frame, View

PATCH = 112
"""Side of the canonical patch, px."""
EYES = 34.0
"""Distance of the mean face's eyes in the patch, px."""
_WINDOW = (15, 15)
_STOP = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 8, 0.03)
_FAR = 2.5
"""A fitted shift beyond this, px of the patch, is measured a second time from the new place."""


def _mean_face() -> np.ndarray:
    mean = geometry.TEMPLATES["ffhq_512"]
    scaled = (mean - mean.mean(axis=0)) * (EYES / np.linalg.norm(mean[1] - mean[0]))
    placed: np.ndarray = scaled + np.array([PATCH / 2, PATCH * 0.52])
    return placed


def _grid() -> np.ndarray:
    """Points f32[N,1,2] in the ellipse of the face, cv2 convention (pixel centres whole)."""
    step = 11.0
    axis = np.arange(step, PATCH - step / 2, step)
    x, y = np.meshgrid(axis, axis)
    inside = ((x - PATCH / 2) / (0.36 * PATCH)) ** 2 + ((y - 0.52 * PATCH) / (0.43 * PATCH)) ** 2 <= 1
    return np.stack([x[inside], y[inside]], axis=-1).astype(np.float32)[:, None]


MEAN_FACE = _mean_face()
"""Landmarks f64[5,2] of the mean face in the patch."""
GRID = _grid()
LOCAL = 0.26
"""Reach of a landmark's own motion, in eye distances."""
_LIGHT = (33, 33)
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
        self._even = even_light(self.patch)
        self.marks = geometry.apply(geometry.invert(to_upright), landmarks)
        self._points = GRID[_inside(frame.view, to_upright, GRID[:, 0] + 0.5)]
        start = self._points[:, 0] + 0.5
        self._terms, self._mark_terms = _terms(start), _terms(self.marks)
        offset = self.marks[:, None] - start[None]
        self._near = np.exp(-(offset**2).sum(axis=-1) / (2 * (LOCAL * EYES) ** 2))
        self._likeness = _normal(self._even[_CORE])

    def follow(self, frame: Frame, guess: np.ndarray) -> Estimate:
        """The face in another frame, looked for round the landmarks `guess` f64[5,2]."""
        landmarks, confidence = guess, 0.0
        for last in (False, False, True):
            to_upright = geometry.similarity(self.marks, landmarks)
            patch = even_light(patch_at(frame, to_upright))
            moved = self._measure(patch, frame.view, to_upright)
            if moved is None:
                return Estimate(guess, 0.0)
            shift, move, confidence = moved
            landmarks = geometry.apply(to_upright, self.marks + shift)
            if last or np.abs(shift).max() < _FAR:
                break
        likeness = max(0.0, float((self._likeness * _normal(_core_moved(patch, move))).mean()))
        return Estimate(landmarks, confidence * float(np.clip(likeness * 1.15, 0, 1)))

    def _measure(
        self, patch: np.ndarray, view: View, to_upright: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, float] | None:
        """Shift of the landmarks f64[5,2] patch px, affine part of the motion, share that agrees.

        None where too few points can be followed.
        """
        start = self._points
        if len(start) < 8:
            return None
        moved, found, _ = cv2.calcOpticalFlowPyrLK(  # type: ignore[call-overload]  # stubs forbid None
            self._even, patch, start, None, winSize=_WINDOW, maxLevel=3, criteria=_STOP
        )
        back, found_back, _ = cv2.calcOpticalFlowPyrLK(
            patch, self._even, moved, start.copy(), winSize=_WINDOW, maxLevel=0, criteria=_STOP,
            flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
        )  # fmt: skip
        miss = (back - start)[:, 0]
        missed_by = np.einsum("ij,ij->i", miss, miss)  # px^2
        good = (found[:, 0] & found_back[:, 0]).astype(bool) & (missed_by < 1.0)
        good &= _inside(view, to_upright, moved[:, 0] + 0.5)
        if good.sum() < 8:
            return None
        flow = (moved - start)[:, 0].astype(np.float64)
        base = good / (1.0 + missed_by / 0.2**2)
        weights = base
        for sharp in (4.0, 2.0, 1.5, 1.5):
            model = _solve(self._terms, flow, weights)
            rest = flow - self._terms @ model
            squared = np.einsum("ij,ij->i", rest, rest)
            weights = base / (1.0 + squared / sharp**2) ** 2
        agree = good & (squared < 3.5**2)
        near = self._near * base * agree
        local = near @ rest / (near.sum(axis=1, keepdims=True) + 0.5)
        affine = np.eye(2, 3) + _affine_of(model)
        return self._mark_terms @ model + local, affine, min(1.0, 1.25 * float(agree.mean()))


def _terms(points: np.ndarray) -> np.ndarray:
    """What a face's flow is made of, f64[N,4] at patch points: shift, two slopes, depth.

    An affine motion and the parallax of a turning head, by the mean face's depth: an ellipsoid
    with a nose.
    """
    x, y = ((points - (PATCH / 2, PATCH * 0.52)) / EYES).T
    skull = np.sqrt(np.maximum(1 - (x / 1.25) ** 2 - (y / 1.7) ** 2, 0.05))
    nose = np.exp(-(x**2 + (y - 0.12) ** 2) / (2 * 0.25**2))
    return np.stack([np.ones_like(x), x, y, skull + 0.35 * nose - 0.8], axis=-1)


_PRIOR = np.diag([1e-6, 1e-6, 1e-6, 0.1])


def _solve(terms: np.ndarray, flow: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted least squares f64[4,2], the depth term held a little towards none."""
    weighted = terms * weights[:, None]
    normal = weighted.T @ terms + _PRIOR
    return np.linalg.solve(normal, weighted.T @ flow)


def _affine_of(model: np.ndarray) -> np.ndarray:
    """The affine part of a model as an offset f64[2,3] in patch px."""
    linear = model[1:3].T / EYES
    return np.hstack([linear, (model[0] - linear @ (PATCH / 2, PATCH * 0.52))[:, None]])


def even_light(patch: np.ndarray) -> np.ndarray:
    """The patch u8 with local brightness and contrast made even, so that flow survives light."""
    values = patch.astype(np.float32)
    mean = cv2.blur(values, _LIGHT)
    spread = cv2.sqrt(np.maximum(cv2.blur(values * values, _LIGHT) - mean * mean, 0))
    return cv2.convertScaleAbs((values - mean) / (spread + 6.0), alpha=45, beta=128)


def patch_at(frame: Frame, to_upright: np.ndarray) -> np.ndarray:
    """Luma u8[PATCH,PATCH] where `to_upright` maps the patch's px to the frame's upright ones.

    Read at about the patch's own resolution; beyond the picture its edge is repeated.
    """
    view = frame.view
    to_stored = geometry.chain(view.to_stored, to_upright)
    step = geometry.scale_of(to_upright)
    shrink = max(1, round(step))  # whole numbers average fastest
    x0, y0, x1, y1 = geometry.cover(to_stored, PATCH, (view.width, view.height), margin=3, grid=shrink)
    if x1 - x0 < 2 or y1 - y0 < 2:
        return np.zeros((PATCH, PATCH), np.uint8)
    # The exact upright image of whole stored pixels: rounding inside `luma` then moves nothing.
    corners = geometry.apply(view.to_upright, np.array([[x0, y0], [x1, y1]]))
    box = (*corners.min(axis=0), *corners.max(axis=0))
    image = frame.luma(box, 1 / shrink)
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
    return np.asarray(((at >= 0) & (at <= view.upright_size)).all(axis=1))


def _core_moved(patch: np.ndarray, move: np.ndarray) -> np.ndarray:
    """The patch's core taken back by the fitted move."""
    rows, columns = _CORE
    shifted = move.copy()
    shifted[:, 2] += move[:, :2] @ (columns.start + 0.5, rows.start + 0.5) - 0.5
    size = columns.stop - columns.start, rows.stop - rows.start
    return cv2.warpAffine(
        patch, shifted, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )


def _normal(patch: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance; a flat patch stays near zero."""
    values = patch.astype(np.float32)
    normal: np.ndarray = (values - values.mean()) / (values.std() + 2.0)
    return normal
