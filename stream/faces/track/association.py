"""Which detection belongs to which track."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from stream.faces.track.flow import MEAN_FACE, patch_at
from stream.picture import geometry
from stream.picture.frame import Frame

_REACH = 1.2
"""Distance, in face sizes, beyond which a detection is another face."""
_HOPELESS = 1e3

Known = tuple[np.ndarray, float, np.ndarray]
"""A face to compare: centre f64[2] px, size (eye distance, px), look f32[256]."""


def look_of(frame: Frame, landmarks: np.ndarray) -> np.ndarray:
    """Appearance f32[256] of an aligned face: 16x16 luma, zero mean, unit length. Memory only."""
    patch = patch_at(frame, geometry.similarity(MEAN_FACE, landmarks))
    small = cv2.resize(patch, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    small -= small.mean()
    return small / (np.linalg.norm(small) + 1e-3)


def associate(
    tracks: Sequence[Known], faces: Sequence[Known], slack: Sequence[float]
) -> list[tuple[int, int]]:
    """Pairs (track, face) of least total cost.

    `slack` says how many more face sizes a track may have strayed: 0 for one that the flow holds.
    """
    if not tracks or not faces:
        return []
    cost = np.array([[_cost(t, f, s) for f in faces] for t, s in zip(tracks, slack, strict=True)])
    rows, columns = _least(cost)
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if cost[r, c] < _HOPELESS]


def _least(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the assignment of least total cost."""
    if min(cost.shape) == 1:  # one face, as in most videos: scipy takes 0.3 s to load
        best = int(cost.argmin())
        return np.array([best // cost.shape[1]]), np.array([best % cost.shape[1]])
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(cost)


def _cost(track: Known, face: Known, slack: float) -> float:
    (centre, size, look), (other, other_size, other_look) = track, face
    distance = np.linalg.norm(centre - other) / (2 * max(size, other_size))
    change = abs(np.log(max(size, 1e-3) / max(other_size, 1e-3)))
    likeness = float(look @ other_look)
    if distance > _REACH + slack or change > 0.7:
        return _HOPELESS
    return float(distance / (1 + slack) + 0.5 * change + 0.8 * (1 - likeness))
