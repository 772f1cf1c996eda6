"""What a lens, a shaking hand and a small sensor do: blur and loss of resolution.

Pictures are f32[H,W,3] RGB of 0..255; every function returns a new one.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

SHRINKING = ("area", "bilinear", "bicubic", "lanczos", "nearest")
"""How a picture may have been made smaller."""
_FLAGS = {
    "area": cv2.INTER_AREA,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
    "nearest": cv2.INTER_NEAREST_EXACT,  # the plain one moves the picture by up to half a px
}
_FINE = 8
"""Kernels are drawn so many times as large, then averaged."""


def gaussian(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur by a Gaussian of `sigma` px; below 0.05 px there is nothing to do."""
    if sigma < 0.05:
        return image.copy()
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)


def defocus(image: np.ndarray, radius: float) -> np.ndarray:
    """Blur by a disc of `radius` px, a lens's circle of confusion."""
    return _filtered(image, disc_kernel(radius))


def motion(image: np.ndarray, length: float, angle: float) -> np.ndarray:
    """Blur along a line of `length` px at `angle` rad: movement while the shutter is open."""
    return _filtered(image, line_kernel(length, angle))


def disc_kernel(radius: float) -> npt.NDArray[np.float32]:
    """f32[k,k], k odd, summing to 1: a disc whose edge is anti-aliased."""
    side = 2 * int(np.ceil(radius)) + 1
    axis = (np.arange(side * _FINE) + 0.5) / _FINE - side / 2
    inside = (axis[:, None] ** 2 + axis[None, :] ** 2 <= max(radius, 0.5) ** 2).astype(np.float32)
    return _averaged(inside, side)


def line_kernel(length: float, angle: float) -> npt.NDArray[np.float32]:
    """f32[k,k], k odd, summing to 1: a line one px thick."""
    side = 2 * int(np.ceil(length / 2 + 0.5)) + 1
    axis = (np.arange(side * _FINE) + 0.5) / _FINE - side / 2
    x, y = np.meshgrid(axis, axis)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    inside = (np.abs(along) <= max(length, 1) / 2) & (np.abs(across) <= 0.5)
    return _averaged(inside.astype(np.float32), side)


def shrunk(image: np.ndarray, size: tuple[int, int], kernel: str) -> np.ndarray:
    """Down to (width, height) `size` by one of `SHRINKING`.

    OpenCV's bilinear, bicubic and Lanczos alias when they shrink, as cheap scalers do.
    """
    return cv2.resize(image, size, interpolation=_FLAGS[kernel])


def enlarged(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Up to (width, height) `size`, bicubic: how the pipeline cuts out a small face."""
    return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)


def _averaged(fine: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float32]:
    kernel: npt.NDArray[np.float32] = fine.reshape(side, _FINE, side, _FINE).mean(axis=(1, 3))
    kernel /= kernel.sum()
    return kernel


def _filtered(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101)
