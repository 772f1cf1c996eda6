"""Enlarges planes by whole factors and halves them; samples keep their positions in the picture."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

_LOBES = 4
_BETWEEN, _CENTRED = np.array([0, 0.5, 0.5], np.float32), np.array([0.25, 0.5, 0.25], np.float32)
_HALVING = {0.0: (_CENTRED, 0), 0.5: (_BETWEEN, 0), 1.0: (_CENTRED, 1)}
"""Filter, and index of the first sample that is kept, by the position of the kept samples."""
_UNCHANGED = np.array([0, 1, 0], np.float32), 0


def enlarge(
    plane: np.ndarray, factor: int, centres: tuple[float, float], size: tuple[int, int], top: int
) -> np.ndarray:
    """Enlarge a plane [h,w] of u8 or u16 values in 0..top `factor` times, to (width, height) `size`.

    `centres` (x, y) say where a sample lies in its own cell. Luma lies in the middle, at 0.5. A chroma
    sample lies at 0.25 where it coincides with the first of its two luma samples, at 0.75 with the
    second. The filter is Lanczos with 4 lobes; edges are repeated. Samples in the middle of their cells
    are enlarged by `cv2.resize`.
    """
    if centres == (0.5, 0.5):
        whole = plane.shape[1] * factor, plane.shape[0] * factor
        large: np.ndarray = cv2.resize(plane, whole, interpolation=cv2.INTER_LANCZOS4)[: size[1], : size[0]]
        return large if top == np.iinfo(plane.dtype).max else np.minimum(large, plane.dtype.type(top))
    result = plane.astype(np.float32)
    for axis in (1, 0):
        result = _enlarged_along(result, factor, centres[1 - axis], axis, size[1 - axis])
    return np.clip(np.rint(result), 0, top).astype(plane.dtype)


def _enlarged_along(
    image: npt.NDArray[np.float32], factor: int, centre: float, axis: int, count: int
) -> npt.NDArray[np.float32]:
    """Enlarge f32[h,w] to `count` samples along an axis.

    Sample j of the result lies at (j + centre) / factor - centre of the image's samples.
    """
    shape = (image.shape[0], count) if axis else (count, image.shape[1])
    result, one = np.empty(shape, np.float32), np.ones(1, np.float32)
    for phase in range(factor):
        kernel = _kernel((phase + centre) / factor - centre)
        across, down = (kernel, one) if axis else (one, kernel)
        part = cv2.sepFilter2D(image, cv2.CV_32F, across, down, borderType=cv2.BORDER_REPLICATE)
        if axis:
            target = result[:, phase::factor]
            target[...] = part[:, : target.shape[1]]
        else:
            target = result[phase::factor]
            target[...] = part[: target.shape[0]]
    return result


def _kernel(at: float) -> npt.NDArray[np.float32]:
    """Filter f32[2 L + 3] round sample 0 that gives the value at position `at` in -1..1; its sum is 1.

    With L lobes the filter is sinc(x) sinc(x / L) for |x| < L (Duchon, 1979; Turkowski, 1990).
    """
    x = at - np.arange(-_LOBES - 1, _LOBES + 2)
    kernel: npt.NDArray[np.float64] = np.where(np.abs(x) < _LOBES, np.sinc(x) * np.sinc(x / _LOBES), 0)
    kernel /= kernel.sum()
    return kernel.astype(np.float32)


def halve(image: np.ndarray, axes: tuple[bool, bool], site: tuple[float, float]) -> npt.NDArray[np.float32]:
    """Halve f32[h,w] along x, along y or along both, as `axes` say.

    `site` (x, y) is the position of a kept sample: on the first of two samples (0), between them (0.5) or
    on the second (1). Odd sides are extended by their last sample.
    """
    odd = image.shape[0] % 2 if axes[1] else 0, image.shape[1] % 2 if axes[0] else 0
    if any(odd):
        image = np.pad(image, [(0, odd[0]), (0, odd[1])], mode="edge")
    (x, left), (y, top) = (_HALVING[at] if half else _UNCHANGED for half, at in zip(axes, site, strict=True))
    # The image is mirrored at its edges: beyond an edge a sample equals its counterpart inside.
    image = cv2.sepFilter2D(image, -1, x, y, borderType=cv2.BORDER_REFLECT_101)
    return np.ascontiguousarray(image[top :: 1 + axes[1], left :: 1 + axes[0]])
