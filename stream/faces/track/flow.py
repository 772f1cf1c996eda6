"""Follows one face from a reference patch by pyramidal Lucas-Kanade flow.

The flow is computed in a canonical patch of fixed size in which the face is upright. So its precision is
relative to the face, and its cost does not depend on the face's size. The keyframe's patch stays the
reference: errors do not add up from frame to frame.
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
_TERMINATION = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 8, 0.03)
_LARGE_SHIFT = 2.5
"""After a fitted shift of this size, px of the patch, the flow is measured again from the new place."""


def _mean_face() -> np.ndarray:
    mean = geometry.TEMPLATES["ffhq_512"]
    scaled = (mean - mean.mean(axis=0)) * (EYES / np.linalg.norm(mean[1] - mean[0]))
    placed: np.ndarray = scaled + np.array([PATCH / 2, PATCH * 0.52])
    return placed


def _grid() -> np.ndarray:
    """Points f32[N,1,2] in the face's ellipse, in OpenCV's convention (pixel centres are integers)."""
    step = 11.0
    axis = np.arange(step, PATCH - step / 2, step)
    x, y = np.meshgrid(axis, axis)
    inside = ((x - PATCH / 2) / (0.36 * PATCH)) ** 2 + ((y - 0.52 * PATCH) / (0.43 * PATCH)) ** 2 <= 1
    return np.stack([x[inside], y[inside]], axis=-1).astype(np.float32)[:, None]


MEAN_FACE = _mean_face()
"""Landmarks f64[5,2] of the mean face in the patch."""
_GRID = _grid()
_LANDMARK_SIGMA = 0.26
"""Standard deviation of the window round a landmark in which its own motion is measured, eye distances."""
_CONTRAST_WINDOW = (33, 33)
_CORE = np.s_[28:92, 24:88]
"""Rows and columns of the patch with eyes, nose and mouth, where similarity is measured."""


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """The position of a face in one frame, by the flow from one reference patch."""

    landmarks: np.ndarray
    """f64[5,2] upright px"""
    confidence: float
    """0..1: share of points that agree, times similarity to the keyframe."""


class ReferencePatch:
    """A face's patch in a keyframe, with the points and the landmarks that are followed from it."""

    def __init__(self, frame: Frame, landmarks: np.ndarray) -> None:
        """Cut the patch from `frame`; `landmarks` f64[5,2] upright px."""
        to_upright = geometry.similarity(MEAN_FACE, landmarks)
        self._patch = normalised_contrast(patch_at(frame, to_upright))
        self._landmarks = geometry.apply(geometry.invert(to_upright), landmarks)
        self._points = _GRID[_inside(frame.view, to_upright, _GRID[:, 0] + 0.5)]
        start = self._points[:, 0] + 0.5
        self._point_terms, self._landmark_terms = _motion_terms(start), _motion_terms(self._landmarks)
        offset = self._landmarks[:, None] - start[None]
        self._nearness = np.exp(-(offset**2).sum(axis=-1) / (2 * (_LANDMARK_SIGMA * EYES) ** 2))
        """f64[5,N]: weight of each point for each landmark's own motion."""
        self._core = _standardised(self._patch[_CORE])

    def shift(self, offsets: np.ndarray) -> None:
        """Move the landmarks that are followed by offsets f64[5,2], px of the patch."""
        self._landmarks = self._landmarks + offsets

    def follow(self, frame: Frame, guess: np.ndarray) -> Estimate:
        """Find the face in another frame, near the landmarks `guess` f64[5,2] upright px."""
        landmarks, confidence = guess, 0.0
        for last in (False, False, True):
            to_upright = geometry.similarity(self._landmarks, landmarks)
            patch = normalised_contrast(patch_at(frame, to_upright))
            measured = self._measure(patch, frame.view, to_upright)
            if measured is None:
                return Estimate(guess, 0.0)
            shift, motion, confidence = measured
            landmarks = geometry.apply(to_upright, self._landmarks + shift)
            if last or np.abs(shift).max() < _LARGE_SHIFT:
                break
        similarity = max(0.0, float((self._core * _standardised(_warped_core(patch, motion))).mean()))
        return Estimate(landmarks, confidence * float(np.clip(similarity * 1.15, 0, 1)))

    def _measure(
        self, patch: np.ndarray, view: View, to_upright: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, float] | None:
        """Measure the motion from the reference patch to another one.

        Returns the shift of the landmarks f64[5,2] in px of the patch, the affine part of the motion
        f64[2,3], and the share of points that agree with it. None where too few points can be followed.
        """
        start = self._points
        if len(start) < 8:
            return None
        moved, found, _ = cv2.calcOpticalFlowPyrLK(  # type: ignore[call-overload]  # stubs forbid None
            self._patch, patch, start, None, winSize=_WINDOW, maxLevel=3, criteria=_TERMINATION
        )
        back, found_back, _ = cv2.calcOpticalFlowPyrLK(
            patch, self._patch, moved, start.copy(), winSize=_WINDOW, maxLevel=0, criteria=_TERMINATION,
            flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
        )  # fmt: skip
        miss = (back - start)[:, 0]
        squared_miss = np.einsum("ij,ij->i", miss, miss)
        good = (found[:, 0] & found_back[:, 0]).astype(bool) & (squared_miss < 1.0)
        good &= _inside(view, to_upright, moved[:, 0] + 0.5)
        if good.sum() < 8:
            return None
        flow = (moved - start)[:, 0].astype(np.float64)
        base = good / (1.0 + squared_miss / 0.2**2)
        weights = base
        for scale in (4.0, 2.0, 1.5, 1.5):
            model = _solve(self._point_terms, flow, weights)
            residual = flow - self._point_terms @ model
            squared = np.einsum("ij,ij->i", residual, residual)
            weights = base / (1.0 + squared / scale**2) ** 2
        agree = good & (squared < 3.5**2)
        near = self._nearness * base * agree
        local = near @ residual / (near.sum(axis=1, keepdims=True) + 0.5)
        affine = np.eye(2, 3) + _affine_of(model)
        return self._landmark_terms @ model + local, affine, min(1.0, 1.25 * float(agree.mean()))


def _motion_terms(points: np.ndarray) -> np.ndarray:
    """Terms of a face's motion at points [N,2] of the patch, f64[N,4]: shift, two slopes, depth.

    They describe an affine motion, and the parallax of a turning head by the mean face's depth, which is
    that of an ellipsoid with a nose.
    """
    x, y = ((points - (PATCH / 2, PATCH * 0.52)) / EYES).T
    skull = np.sqrt(np.maximum(1 - (x / 1.25) ** 2 - (y / 1.7) ** 2, 0.05))
    nose = np.exp(-(x**2 + (y - 0.12) ** 2) / (2 * 0.25**2))
    return np.stack([np.ones_like(x), x, y, skull + 0.35 * nose - 0.8], axis=-1)


_PRIOR = np.diag([1e-6, 1e-6, 1e-6, 0.1])
"""Regularisation of the four terms: that of depth is held a little towards 0."""


def _solve(terms: np.ndarray, flow: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Coefficients f64[4,2] of the terms f64[N,4] for a flow f64[N,2], by weighted least squares."""
    weighted = terms * weights[:, None]
    normal = weighted.T @ terms + _PRIOR
    return np.linalg.solve(normal, weighted.T @ flow)


def _affine_of(model: np.ndarray) -> np.ndarray:
    """The affine part of the coefficients f64[4,2] as an offset f64[2,3], px of the patch."""
    linear = model[1:3].T / EYES
    return np.hstack([linear, (model[0] - linear @ (PATCH / 2, PATCH * 0.52))[:, None]])


def normalised_contrast(patch: np.ndarray) -> np.ndarray:
    """The patch u8 with the same local mean and contrast everywhere, so that light does not disturb flow."""
    values = patch.astype(np.float32)
    mean = cv2.blur(values, _CONTRAST_WINDOW)
    deviation = cv2.sqrt(np.maximum(cv2.blur(values * values, _CONTRAST_WINDOW) - mean * mean, 0))
    return cv2.convertScaleAbs((values - mean) / (deviation + 6.0), alpha=45, beta=128)


def patch_at(frame: Frame, to_upright: np.ndarray) -> np.ndarray:
    """Luma u8[PATCH,PATCH] of a patch whose px map to the frame's upright px by `to_upright` f64[2,3].

    The frame is read at about the patch's own resolution. Its edge is repeated beyond the picture.
    """
    view = frame.view
    to_stored = geometry.chain(view.to_stored, to_upright)
    step = geometry.scale_of(to_upright)
    shrink = max(1, round(step))  # OpenCV averages fastest by an integer factor
    x0, y0, x1, y1 = geometry.cover(to_stored, PATCH, (view.width, view.height), margin=3, grid=shrink)
    if x1 - x0 < 2 or y1 - y0 < 2:
        return np.zeros((PATCH, PATCH), np.uint8)
    # The box covers whole stored pixels, so that rounding inside `luma` moves nothing.
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
    """bool[N]: which points [N,2] of a patch lie in the picture."""
    at = geometry.apply(to_upright, points)
    return np.asarray(((at >= 0) & (at <= view.upright_size)).all(axis=1))


def _warped_core(patch: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """The core of a patch, warped back to the reference by an affine motion f64[2,3]."""
    rows, columns = _CORE
    shifted = motion.copy()
    shifted[:, 2] += motion[:, :2] @ (columns.start + 0.5, rows.start + 0.5) - 0.5
    size = columns.stop - columns.start, rows.stop - rows.start
    return cv2.warpAffine(
        patch, shifted, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )


def _standardised(patch: np.ndarray) -> np.ndarray:
    """The patch f32 with mean 0 and variance 1; a flat one stays near 0."""
    values = patch.astype(np.float32)
    standardised: np.ndarray = (values - values.mean()) / (values.std() + 2.0)
    return standardised
