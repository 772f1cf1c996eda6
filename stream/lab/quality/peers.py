"""The honest peers that cost nothing: what a model must beat to be worth its weights."""

from __future__ import annotations

import cv2
import numpy as np

UNSHARP_AMOUNT, UNSHARP_SIGMA = 0.8, 1.5
"""Share of what a Gaussian blur of so many px takes that is added once more: doubles the detail's
energy, as anyone sharpening by eye would."""
NLM_STRENGTH, NLM_PATCH, NLM_SEARCH = 3.0, 7, 21
"""Filter strength h, in levels, for luma and colour alike; sides of patch and window, px (OpenCV's own)."""


def unsharp(picture: np.ndarray) -> np.ndarray:
    """Unsharp masking of RGB u8[H,W,3]."""
    values = picture.astype(np.float32)
    blurred = cv2.GaussianBlur(values, (0, 0), UNSHARP_SIGMA)
    return np.clip(np.rint(values + UNSHARP_AMOUNT * (values - blurred)), 0, 255).astype(np.uint8)


def non_local_means(picture: np.ndarray) -> np.ndarray:
    """Non-local means (Buades et al., 2005) of RGB u8[H,W,3], as OpenCV computes it for colour."""
    # It works in Lab and takes its input for BGR.
    swapped = np.ascontiguousarray(picture[..., ::-1])
    cleaned = cv2.fastNlMeansDenoisingColored(
        swapped, None, NLM_STRENGTH, NLM_STRENGTH, NLM_PATCH, NLM_SEARCH
    )
    return np.ascontiguousarray(cleaned[..., ::-1])
