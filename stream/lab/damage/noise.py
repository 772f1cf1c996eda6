"""Noise of sensors and of film. Pictures are f32[H,W,3] RGB of 0..255; the result is not clipped."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_GRAIN_SIGMA = 0.8
"""A grain's radius, px."""


def sensor(
    image: npt.NDArray[np.float32], level: float, colour: float, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Signal-dependent noise of standard deviation `level` at mid grey.

    Variance grows linearly with the signal, shot noise on read noise (Foi et al., "Practical
    Poissonian-Gaussian noise modeling", 2008); half of it is there in black. `colour` 0..1: how far
    the channels differ; 0 is noise of luma alone.
    """
    variance = 0.5 + 0.5 * np.clip(image @ _LUMA, 0, 255) / 127.5
    common = rng.standard_normal(image.shape[:2], np.float32)[..., None]
    own = rng.standard_normal(image.shape, np.float32)
    mixed = np.float32(np.sqrt(1 - colour)) * common + np.float32(np.sqrt(colour)) * own
    noisy: npt.NDArray[np.float32] = image + np.float32(level) * np.sqrt(variance)[..., None] * mixed
    return noisy


def grain(image: npt.NDArray[np.float32], level: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Film grain: soft-edged noise of luma, of standard deviation `level`, strongest in mid tones."""
    white = rng.standard_normal(image.shape[:2], np.float32)
    rough: np.ndarray = cv2.GaussianBlur(white, (0, 0), _GRAIN_SIGMA)
    rough = rough / max(float(rough.std()), 1e-6)
    light = np.clip(image @ _LUMA, 0, 255) / 255
    grains = np.float32(level) * rough * np.sqrt(np.clip(4 * light * (1 - light), 0.1, 1))
    grainy: npt.NDArray[np.float32] = image + grains[..., None]
    return grainy
