"""Where the network's answer cannot be the face that it was given: occluders, and failures.

Restoring changes texture and edges; seen from afar, face and restored face are the same picture.
Where they are not, either something stood before the face and the network painted a face over it,
or the network failed. Pure functions in crop space; thresholds are parts of full scale.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

_SIDE = 64
"""Both pictures are compared at this side, px: what is finer is texture."""
_SCALES = ((2.0, 0.20, 0.35), (4.0, 0.10, 0.20))
"""Blur (sigma, px of 64), difference at which trust begins to fall, and at which it is gone.

Over 48 faces at ten kinds of damage, blurred, noisy, dark, bright and of a wrong colour cast, the
bundled network changes no pixel by more than 0.08 and 0.04 at these two blurs; the clean picture, which no
restorer can be better than, differs by 0.19 and 0.07 on heavy damage."""
_TONE = 0.08
"""A shift of the whole face's colour up to this is restoration."""
_REACH = 9
"""Px of 64 by which doubt spreads: a blurred difference halves at an occluder's own edge."""
_EXPLAINED = 0.2, 0.6
"""Part of the face's coarse structure that the answer must keep: below the first it failed."""
_FLAT = 0.02
"""Standard deviation below which a face has no structure that could be lost."""


def trust(image: np.ndarray, residual: np.ndarray) -> np.ndarray | None:
    """Weights f32[S,S] in 0..1 for a residual f32[S,S,3] on a crop f32[S,S,3] of 0..1, or None: all 1.

    Smooth; 0 where crop and crop + residual disagree grossly at low frequencies, and everywhere
    where what is left of the answer does not resemble the crop (a solid colour, say).
    """
    small = _shrunk(image)
    change = _shrunk(residual)
    inner = slice(_SIDE // 10, -(_SIDE // 10))  # the mask's own soft edge lies beyond
    tone = np.median(change[inner, inner].reshape(-1, 3), axis=0)
    change = change - np.clip(tone, -_TONE, _TONE)
    doubt = np.zeros((_SIDE, _SIDE), np.float32)
    for sigma, low, high in _SCALES:
        size = np.abs(_blurred(change, sigma)).max(axis=2)
        doubt = np.maximum(doubt, _smoothstep(size, low, high))
    if not doubt.any() and _structure(small, change, 1 - doubt) >= _EXPLAINED[1]:
        return None
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_REACH, _REACH))
    doubt = _blurred(cv2.dilate(doubt, disc), 1.5)
    weight = (1 - doubt) * _smoothstep(_structure(small, change, 1 - doubt), *_EXPLAINED)
    side = image.shape[0]
    large = cv2.resize(weight, (side, side), interpolation=cv2.INTER_LINEAR)
    np.clip(large, 0, 1, out=large)
    return large


def _structure(image: np.ndarray, change: np.ndarray, weight: np.ndarray) -> float:
    """Part of the coarse picture's weighted variance that the change leaves standing, up to 1.

    1 - <c^2> / (<(i - mean)^2> + flat^2), c and i blurred: a coefficient of determination. 0 where
    too little of the picture is trusted for a judgement.
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


def _shrunk(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)


def _blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)


def _smoothstep(value: np.ndarray | float, low: float, high: float) -> npt.NDArray[np.float32]:
    """0 up to `low`, 1 from `high` on; of the shape of `value`."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)
