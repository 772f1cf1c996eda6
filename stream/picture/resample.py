"""Lanczos enlargement of planes by whole factors, samples staying where they lie in the picture."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

_LOBES = 4


def enlarge(
    plane: np.ndarray, factor: int, centres: tuple[float, float], size: tuple[int, int], top: int
) -> np.ndarray:
    """A plane [h,w] of u8 or u16 values in 0..top, `factor` times as large, as (width, height) `size`.

    `centres` (x, y) say where in its own cell a sample lies: 0.5 in the middle, as luma; 0.25 at the
    place of the first of the two luma samples that a chroma sample stands for, 0.75 of the second.
    Lanczos with 4 lobes, edges repeated. In the middle: `cv2.resize`.
    """
    if centres == (0.5, 0.5):
        whole = plane.shape[1] * factor, plane.shape[0] * factor
        large: np.ndarray = cv2.resize(plane, whole, interpolation=cv2.INTER_LANCZOS4)[: size[1], : size[0]]
        return large if top == np.iinfo(plane.dtype).max else np.minimum(large, plane.dtype.type(top))
    result = plane.astype(np.float32)
    for axis in (1, 0):
        result = _stretched(result, factor, centres[1 - axis], axis, size[1 - axis])
    return np.clip(np.rint(result), 0, top).astype(plane.dtype)


def _stretched(
    image: npt.NDArray[np.float32], factor: int, centre: float, axis: int, count: int
) -> npt.NDArray[np.float32]:
    """f32[h,w] with `count` samples along an axis: sample j lies at (j + centre) / factor - centre."""
    shape = (image.shape[0], count) if axis else (count, image.shape[1])
    result, one = np.empty(shape, np.float32), np.ones(1, np.float32)
    for phase in range(factor):
        taps = _taps((phase + centre) / factor - centre)
        across, down = (taps, one) if axis else (one, taps)
        part = cv2.sepFilter2D(image, cv2.CV_32F, across, down, borderType=cv2.BORDER_REPLICATE)
        if axis:
            target = result[:, phase::factor]
            target[...] = part[:, : target.shape[1]]
        else:
            target = result[phase::factor]
            target[...] = part[: target.shape[0]]
    return result


def _taps(at: float) -> npt.NDArray[np.float32]:
    """Kernel f32[2 L + 3] round sample 0 that gives the value at a place in -1..1; its sum is 1.

    sinc(x) sinc(x / L) within L samples (Duchon, 1979; Turkowski, 1990).
    """
    x = at - np.arange(-_LOBES - 1, _LOBES + 2)
    taps: npt.NDArray[np.float64] = np.where(np.abs(x) < _LOBES, np.sinc(x) * np.sinc(x / _LOBES), 0)
    taps /= taps.sum()
    return taps.astype(np.float32)
