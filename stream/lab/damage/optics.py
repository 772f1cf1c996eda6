"""Blur and loss of resolution by a lens, camera shake and a small sensor.

Pictures are RGB f32[H,W,3] of 0..255. Every function returns a new picture.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

SHRINKING = ("area", "bilinear", "bicubic", "lanczos", "nearest")
"""Kernels by which a picture can be reduced."""
_FLAGS = {
    "area": cv2.INTER_AREA,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
    "nearest": cv2.INTER_NEAREST_EXACT,  # INTER_NEAREST shifts the picture by up to half a px
}
_OVERSAMPLING = 8
"""Kernels are drawn at this many times their size, then averaged."""


def gaussian(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur by a Gaussian of `sigma` px. Below 0.05 px the picture stays as it is."""
    if sigma < 0.05:
        return image.copy()
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)


def defocus(image: np.ndarray, radius: float) -> np.ndarray:
    """Blur by a disc of `radius` px, the circle of confusion of a lens."""
    return _filtered(image, disc_kernel(radius))


def motion(image: np.ndarray, length: float, angle: float) -> np.ndarray:
    """Blur along a line of `length` px at `angle` rad, as by motion while the shutter is open."""
    return _filtered(image, line_kernel(length, angle))


def disc_kernel(radius: float) -> npt.NDArray[np.float32]:
    """An anti-aliased disc as a kernel f32[k,k] with k odd and a sum of 1."""
    side = 2 * int(np.ceil(radius)) + 1
    axis = (np.arange(side * _OVERSAMPLING) + 0.5) / _OVERSAMPLING - side / 2
    inside = (axis[:, None] ** 2 + axis[None, :] ** 2 <= max(radius, 0.5) ** 2).astype(np.float32)
    return _averaged(inside, side)


def line_kernel(length: float, angle: float) -> npt.NDArray[np.float32]:
    """A line one px thick as a kernel f32[k,k] with k odd and a sum of 1."""
    side = 2 * int(np.ceil(length / 2 + 0.5)) + 1
    axis = (np.arange(side * _OVERSAMPLING) + 0.5) / _OVERSAMPLING - side / 2
    x, y = np.meshgrid(axis, axis)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    inside = (np.abs(along) <= max(length, 1) / 2) & (np.abs(across) <= 0.5)
    return _averaged(inside.astype(np.float32), side)


def shrunk(image: np.ndarray, size: tuple[int, int], kernel: str) -> np.ndarray:
    """Reduce to (width, height) `size` by one of the kernels in `SHRINKING`.

    OpenCV's bilinear, bicubic and Lanczos kernels alias when they reduce, as cheap scalers do.
    """
    return cv2.resize(image, size, interpolation=_FLAGS[kernel])


def enlarged(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge to (width, height) `size` by the bicubic kernel, as the pipeline enlarges a small face."""
    return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)


def _averaged(fine: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float32]:
    kernel: npt.NDArray[np.float32] = fine.reshape(side, _OVERSAMPLING, side, _OVERSAMPLING).mean(axis=(1, 3))
    kernel /= kernel.sum()
    return kernel


def _filtered(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101)
