"""Assigns detections to tracks by place, size and appearance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from stream.faces.track.flow import MEAN_FACE, patch_at
from stream.picture import geometry
from stream.picture.frame import Frame

_REACH = 1.2
"""Distance, in face widths of two eye distances, beyond which a detection is another face."""
_IMPOSSIBLE = 1e3
"""Cost of a pair that cannot be the same face."""


class FaceToMatch(NamedTuple):
    """The properties by which a track and a detection are compared."""

    centre: np.ndarray
    """f64[2] of the landmarks, upright px."""
    size: float
    """Eye distance, px."""
    appearance: np.ndarray
    """f32[256], see `appearance_of`."""


def appearance_of(frame: Frame, landmarks: np.ndarray) -> np.ndarray:
    """Appearance f32[256] of an aligned face: 16x16 luma of mean 0 and length 1; never stored on disk."""
    patch = patch_at(frame, geometry.similarity(MEAN_FACE, landmarks))
    small = cv2.resize(patch, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    small -= small.mean()
    return small / (np.linalg.norm(small) + 1e-3)


def associate(
    tracks: Sequence[FaceToMatch], faces: Sequence[FaceToMatch], slack: Sequence[float]
) -> list[tuple[int, int]]:
    """Pairs of indices (track, face) with the least total cost.

    `slack`, one for each track, is how many more face widths it may have moved: 0 while the flow follows.
    """
    if not tracks or not faces:
        return []
    cost = np.array([[_cost(t, f, s) for f in faces] for t, s in zip(tracks, slack, strict=True)])
    rows, columns = _assignment(cost)
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if cost[r, c] < _IMPOSSIBLE]


def _assignment(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pairs with the least total cost [tracks,faces]."""
    if min(cost.shape) == 1:  # one face, as in most videos: scipy takes 0.3 s to load
        best = int(cost.argmin())
        return np.array([best // cost.shape[1]]), np.array([best % cost.shape[1]])
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(cost)


def _cost(track: FaceToMatch, face: FaceToMatch, slack: float) -> float:
    distance = np.linalg.norm(track.centre - face.centre) / (2 * max(track.size, face.size))
    change = abs(np.log(max(track.size, 1e-3) / max(face.size, 1e-3)))
    similarity = float(track.appearance @ face.appearance)
    if distance > _REACH + slack or change > 0.7:
        return _IMPOSSIBLE
    return float(distance / (1 + slack) + 0.5 * change + 0.8 * (1 - similarity))
