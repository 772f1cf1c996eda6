"""Finds where a restoration cannot be the face in the crop: occluders, and failures of the network.

Restoration changes texture and edges. At low resolution a face and its restoration are the same picture.
Where they differ, either something was in front of the face and the network painted a face over it, or
the network failed. Pure functions in crop space; thresholds are parts of full scale.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

_SIDE = 64
"""Side at which crop and restoration are compared, px: finer differences are texture."""
_SCALES = ((2.0, 0.20, 0.35), (4.0, 0.10, 0.20))
"""Blur (sigma, px of 64), the difference at which agreement begins to fall, and that at which it is 0.

Over 48 faces at ten kinds of damage, blurred, noisy, dark, bright and of a wrong colour cast, the
bundled network changes no pixel by more than 0.08 and 0.04 at these two blurs; the clean picture, the best
that a restorer can give, differs by 0.19 and 0.07 on heavy damage."""
_TINT = 0.08
"""A shift of the whole face's colour counts as restoration up to this size."""
_REACH = 9
"""Diameter by which disagreement is dilated, px of 64: at an occluder's edge a blurred difference halves."""
_KEPT = 0.2, 0.6
"""Part of the face's coarse structure that a restoration keeps. At the first or below, the network failed;
from the second on, its result counts wholly."""
_FLAT = 0.02
"""Standard deviation below which a face has no structure that could be lost."""


def agreement(image: np.ndarray, residual: np.ndarray) -> np.ndarray | None:
    """Weights f32[S,S] in 0..1 for a residual f32[S,S,3] on a crop f32[S,S,3] in 0..1; None: all are 1.

    The weights are smooth. They are 0 where crop and crop + residual differ grossly at low frequencies,
    and 0 everywhere if the rest of the restoration does not resemble the crop, such as a solid colour.
    """
    small = _downscaled(image)
    change = _downscaled(residual)
    inner = slice(_SIDE // 10, -(_SIDE // 10))  # the rest lies under the mask's soft edge
    tint = np.median(change[inner, inner].reshape(-1, 3), axis=0)
    change = change - np.clip(tint, -_TINT, _TINT)
    disagreement = np.zeros((_SIDE, _SIDE), np.float32)
    for sigma, low, high in _SCALES:
        difference = np.abs(_blurred(change, sigma)).max(axis=2)
        disagreement = np.maximum(disagreement, _smoothstep(difference, low, high))
    if not disagreement.any() and _kept_structure(small, change, 1 - disagreement) >= _KEPT[1]:
        return None
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_REACH, _REACH))
    disagreement = _blurred(cv2.dilate(disagreement, disc), 1.5)
    weight = (1 - disagreement) * _smoothstep(_kept_structure(small, change, 1 - disagreement), *_KEPT)
    side = image.shape[0]
    large = cv2.resize(weight, (side, side), interpolation=cv2.INTER_LINEAR)
    np.clip(large, 0, 1, out=large)
    return large


def _kept_structure(image: np.ndarray, change: np.ndarray, weight: np.ndarray) -> float:
    """Part of the picture's coarse weighted variance that a change keeps, at most 1.

    It is 1 - <c^2> / (<(i - mean)^2> + 3 flat^2) for the blurred picture i and change c, a coefficient of
    determination. It is 0 where the weights are too small for a judgement.
    """
    weight = weight[..., None]
    total = float(weight.sum())
    if total < 0.3 * _SIDE * _SIDE:
        return 0.0
    image, change = _blurred(image, 2.0), _blurred(change, 2.0)
    mean = (image * weight).sum(axis=(0, 1)) / total
    spread = float((((image - mean) ** 2) * weight).sum()) / total
    lost = float((change * change * weight).sum()) / total
    return 1 - lost / (spread + 3 * _FLAT * _FLAT)


def _downscaled(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)


def _blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)


def _smoothstep(value: np.ndarray | float, low: float, high: float) -> npt.NDArray[np.float32]:
    """0 up to `low`, 1 from `high` on; of the shape of `value`."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)
