"""How alike two pictures are."""

from __future__ import annotations

import math

import numpy as np


def psnr(one: np.ndarray, other: np.ndarray, mask: np.ndarray | None = None, peak: float = 255.0) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(peak^2 / mean squared error); inf where they are equal.

    Arrays of one shape; `mask` bool[h,w] keeps pixels.
    """
    gap = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    error = float(np.mean(np.square(gap if mask is None else gap[mask])))
    return 10 * math.log10(peak**2 / error) if error else math.inf


def ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Structural similarity (Wang et al., 2004) of u8[h,w,3] pictures, mean over channels; 1: equal.

    scikit-image's, with the Gaussian window (sigma 1.5) and the population covariance of the paper.
    """
    from skimage.metrics import structural_similarity

    return float(
        structural_similarity(
            one, other, channel_axis=-1, data_range=255, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )
    )  # fmt: skip
