"""Classical filters that a restoration model is compared with. They need no weights."""

from __future__ import annotations

import cv2
import numpy as np

UNSHARP_AMOUNT, UNSHARP_SIGMA = 0.8, 1.5
"""Strength and Gaussian's px of unsharp masking. These values double the energy of detail, as someone who
sharpens by eye would."""
NLM_STRENGTH, NLM_PATCH, NLM_SEARCH = 3.0, 7, 21
"""Filter strength h in levels, for luma and colour; sides of patch and search window in px (OpenCV's
defaults)."""


def unsharp(picture: np.ndarray) -> np.ndarray:
    """The picture RGB u8[H,W,3] after unsharp masking."""
    values = picture.astype(np.float32)
    blurred = cv2.GaussianBlur(values, (0, 0), UNSHARP_SIGMA)
    return np.clip(np.rint(values + UNSHARP_AMOUNT * (values - blurred)), 0, 255).astype(np.uint8)


def non_local_means(picture: np.ndarray) -> np.ndarray:
    """The picture RGB u8[H,W,3] after OpenCV's non-local means for colour (Buades et al., 2005)."""
    # OpenCV expects BGR and computes in Lab.
    swapped = np.ascontiguousarray(picture[..., ::-1])
    cleaned = cv2.fastNlMeansDenoisingColored(
        swapped, None, NLM_STRENGTH, NLM_STRENGTH, NLM_PATCH, NLM_SEARCH
    )
    return np.ascontiguousarray(cleaned[..., ::-1])
