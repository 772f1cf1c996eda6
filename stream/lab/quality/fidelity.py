"""PSNR and SSIM: how similar two pictures are."""

from __future__ import annotations

import numpy as np


def psnr(
    picture: np.ndarray, reference: np.ndarray, mask: np.ndarray | None = None, peak: float = 255.0
) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(peak^2 / mean squared error); inf for equal pictures.

    Both arrays have the same shape. With a `mask`, bool[h,w], only its pixels count.
    """
    difference = np.asarray(picture, np.float64) - np.asarray(reference, np.float64)
    error = np.mean(np.square(difference if mask is None else difference[mask]))
    return float(10 * np.log10(peak**2 / error)) if error else float("inf")


def ssim(picture: np.ndarray, reference: np.ndarray) -> float:
    """Structural similarity (Wang et al., 2004), -1..1, mean over the channels; 1 for equal pictures.

    Pictures are u8[h,w,3] or f32[h,w,3] with levels of 0..255, computed in f64 or f32. This is
    scikit-image's implementation with the Gaussian window (sigma 1.5 px) and the population covariance of
    the paper.
    """
    from skimage.metrics import structural_similarity

    return float(
        structural_similarity(
            picture, reference, channel_axis=-1, data_range=255, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )
    )  # fmt: skip
