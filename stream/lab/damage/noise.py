"""Sensor noise and film grain. Pictures are RGB f32[H,W,3] of 0..255; results are not clipped."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_GRAIN_SIGMA = 0.8
"""Radius of a grain, px."""


def sensor(
    image: npt.NDArray[np.float32], level: float, colour: float, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Add signal-dependent noise whose standard deviation is `level` at mid grey.

    The variance grows linearly with the signal: shot noise plus read noise (Foi et al., "Practical
    Poissonian-Gaussian noise modeling", 2008). In black it is half of that at mid grey. `colour`, 0..1,
    is the share of the noise that differs between the channels; 0 gives pure luma noise.
    """
    variance = 0.5 + 0.5 * np.clip(image @ _LUMA, 0, 255) / 127.5
    common = rng.standard_normal(image.shape[:2], np.float32)[..., None]
    own = rng.standard_normal(image.shape, np.float32)
    mixed = np.float32(np.sqrt(1 - colour)) * common + np.float32(np.sqrt(colour)) * own
    noisy: npt.NDArray[np.float32] = image + np.float32(level) * np.sqrt(variance)[..., None] * mixed
    return noisy


def grain(image: npt.NDArray[np.float32], level: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Add film grain: soft luma noise of standard deviation `level`, strongest in the mid tones."""
    white = rng.standard_normal(image.shape[:2], np.float32)
    soft: np.ndarray = cv2.GaussianBlur(white, (0, 0), _GRAIN_SIGMA)
    soft = soft / max(float(soft.std()), 1e-6)
    light = np.clip(image @ _LUMA, 0, 255) / 255
    grains = np.float32(level) * soft * np.sqrt(np.clip(4 * light * (1 - light), 0.1, 1))
    grainy: npt.NDArray[np.float32] = image + grains[..., None]
    return grainy
