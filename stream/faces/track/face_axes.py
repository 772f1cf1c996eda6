"""A face's own axes and size, from its landmarks: errors and corrections are measured in them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stream.faces.track.flow import EYES, MEAN_FACE
from stream.picture import geometry


def face_size(landmarks: np.ndarray) -> float:
    """Eye distance, px, of the mean face fitted to landmarks [5,2]: it does not shrink as a head turns."""
    return max(geometry.scale_of(geometry.similarity(MEAN_FACE, landmarks)) * EYES, 1e-3)


def axes_of(landmarks: np.ndarray) -> npt.NDArray[np.float64]:
    """The face's right and down as columns f64[2,2], each one eye distance long, upright px."""
    return geometry.similarity(MEAN_FACE, landmarks)[:, :2] * EYES


def relative_box(box_xyxy: np.ndarray, landmarks: np.ndarray) -> npt.NDArray[np.float64]:
    """Box corners f64[2,2] relative to the landmarks' centre, in eye distances."""
    corners = box_xyxy.reshape(2, 2).astype(np.float64)
    box: npt.NDArray[np.float64] = (corners - landmarks.mean(axis=0)) / face_size(landmarks)
    return box


def rms_length(offsets: np.ndarray) -> float:
    """Root mean square of the lengths of offsets [5,2]."""
    return float(np.sqrt((np.asarray(offsets, np.float64) ** 2).sum(axis=1).mean()))
