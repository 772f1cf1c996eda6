"""Measures of one picture against its clean reference; docs/quality.md explains each figure.

Pictures are RGB u8[H,W,3], both of one size, both sides at least 64 px. No measure is a training loss of
`stream.lab.train`. piq computes the perceptual indices; it is loaded, with torch, at the first call that
needs it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from stream.lab.quality import fidelity

if TYPE_CHECKING:  # loaded at the first call that needs it
    from torch import Tensor, nn

BETTER = {
    "psnr": +1,
    "ssim": +1,
    "gmsd": -1,
    "haarpsi": +1,
    "vif": +1,
    "lpips": -1,
    "sharpness": +1,
    "overshoot": -1,
    "landmarks": -1,
    "identity": -1,
}
"""+1 if larger values of a figure are better, -1 if smaller ones are. Sharpness is best at 1."""
SHARPNESS_SIGMA = 1.5
"""Px of the Gaussian blur that separates detail: it halves the amplitude at 0.125 periods a px."""

_SMALLEST = 64
"""Least side of a picture, px."""
_LUMA = np.array([[0.299, 0.587, 0.114]], np.float32)
_LPIPS_BACKBONE = "alexnet-owt-7be5be79.pth"
"""AlexNet's file in torch's hub folder; the package `lpips` contains only the layers above it."""
_EDGE_SIGMA = 1.0
"""Px of the Gaussian blur before edges are detected."""
_EDGE_HEIGHT = 32.0
"""Least number of levels that a strong edge of the reference spans."""
_REACH = 5
"""Px on either side of an edge in which its plateau and the overshoot are searched."""
_CELL = 32
"""Side in px of the squares; the edges in one square are averaged into one mean edge."""
_BINS = 2
"""Bins for each px of distance from the edge."""
_FEWEST = 8
"""Least number of edge pixels for a mean edge, and least number of pixels in a bin that counts."""


def psnr(picture: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal-to-noise ratio over all channels, dB, for a peak of 255; inf for equal pictures."""
    _check(picture, reference)
    return fidelity.psnr(picture, reference)


def ssim(picture: np.ndarray, reference: np.ndarray) -> float:
    """Structural similarity (Wang et al., 2004), -1..1, the mean over RGB; 1 for equal pictures."""
    _check(picture, reference)
    return fidelity.ssim(picture.astype(np.float32), reference.astype(np.float32))


def indices(picture: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Perceptual indices computed by piq. They correlate with human ratings, and no training loss uses them.

    `gmsd`: gradient magnitude similarity deviation (Xue et al., 2014), 0 for equal pictures.
    `haarpsi`: Haar wavelet-based perceptual similarity index (Reisenhofer et al., 2018), up to 1.
    `vif`: visual information fidelity, pixel domain (Sheikh and Bovik, 2006), 1 for equal pictures;
    contrast enhancement can raise it above 1.
    `lpips`: learned perceptual distance (Zhang et al., 2018) on AlexNet, if `lpips_present`.
    """
    import piq
    import torch

    _check(picture, reference)
    x, y = _tensor(picture), _tensor(reference)
    with torch.inference_mode():
        found = {
            "gmsd": float(piq.gmsd(x, y)),
            "haarpsi": float(piq.haarpsi(x, y)),
            "vif": float(piq.vif_p(x, y)),
        }
        if lpips_present():
            found["lpips"] = float(_lpips()(x * 2 - 1, y * 2 - 1))
    return found


def lpips_present() -> bool:
    """Whether the package `lpips` is installed and AlexNet's weights are in torch's hub folder.

    The weights are never downloaded here.
    """
    if find_spec("lpips") is None:
        return False
    import torch

    return (Path(torch.hub.get_dir()) / "checkpoints" / _LPIPS_BACKBONE).is_file()


def sharpness(picture: np.ndarray, reference: np.ndarray) -> float:
    """Energy of fine detail divided by the reference's; 1 is as sharp as the clean picture.

    The energy is the variance of luma minus its Gaussian blur of SHARPNESS_SIGMA. The figure does not
    distinguish detail from noise, so it must be read beside the others.
    """
    _check(picture, reference)
    return float(np.var(_detail(picture)) / max(np.var(_detail(reference)), 1e-6))


def overshoot(picture: np.ndarray, reference: np.ndarray) -> float:
    """Excess of the picture's edges over the reference's, as a share of their height (0.05 is 5 %).

    The edges are those of the reference (Canny, 1986, on luma smoothed by 1 px) that span at least 32
    levels within 5 px on either side. In each square of 32 px, and in both pictures, the edges are
    averaged like the edge spread function of ISO 12233: the luma of all px near an edge is sorted by the
    distance from it along the gradient into bins of half a px, without interpolation. The overshoot is
    the excess of the picture's mean edge over the maximum of the reference's on the bright side, plus the
    excess below its minimum on the dark side. Half of that sum is divided by the height of the
    reference's mean edge. Squares are weighted by their number of edge pixels.

    Averaging suppresses noise: a standard deviation of 4 levels counts as 0.3 % on a face. Blur of any
    width gives 0. An ideal step after unsharp masking with amount a and sigma s gives
    a (1 - Phi(1 / 2s)), where Phi is the distribution function of the normal distribution. The result is
    0 if the reference has no strong edge.
    """
    _check(picture, reference)
    at, across, offset = _edges(reference)
    picture_luma, reference_luma = _luma(picture), _luma(reference)
    steps = np.arange(-_REACH, _REACH + 1)
    places = np.rint(at[:, None] + steps[None, :, None] * across[:, None]).astype(np.intp)
    values = reference_luma[places[..., 1], places[..., 0]]
    strong = values[:, _REACH:].max(axis=1) - values[:, : _REACH + 1].min(axis=1) >= _EDGE_HEIGHT
    at, across, offset, places = (each[strong] for each in (at, across, offset, places))
    if not len(at):
        return 0.0
    distance = np.einsum("nkc,nc->nk", places - at[:, None], across) - offset[:, None]
    columns = -(-reference.shape[1] // _CELL)
    _, cell, edges = np.unique(
        at[:, 1] // _CELL * columns + at[:, 0] // _CELL, return_inverse=True, return_counts=True
    )
    bins = np.clip(np.floor(distance * _BINS), -_REACH * _BINS, _REACH * _BINS - 1).astype(np.intp)
    where = cell[:, None] * (2 * _REACH * _BINS) + bins + _REACH * _BINS
    (low, high), (bottom, top) = (
        _mean_edge(luma[places[..., 1], places[..., 0]], where, len(edges))
        for luma in (picture_luma, reference_luma)
    )
    height = top - bottom
    kept = (edges >= _FEWEST) & (height >= _EDGE_HEIGHT / 2)
    if not kept.any():
        return 0.0
    excess = np.maximum(high - top, 0) + np.maximum(bottom - low, 0)
    return float(np.average(excess[kept] / (2 * height[kept]), weights=edges[kept]))


def figures(picture: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """All measures of this module by name, see BETTER."""
    return {
        "psnr": psnr(picture, reference),
        "ssim": ssim(picture, reference),
        **indices(picture, reference),
        "sharpness": sharpness(picture, reference),
        "overshoot": overshoot(picture, reference),
    }


def _check(picture: np.ndarray, reference: np.ndarray) -> None:
    for each in (picture, reference):
        if each.dtype != np.uint8 or each.ndim != 3 or each.shape[2] != 3 or min(each.shape[:2]) < _SMALLEST:
            raise ValueError(f"expected RGB u8[H,W,3] from {_SMALLEST} px, got {each.dtype}{each.shape}")
    if picture.shape != reference.shape:
        raise ValueError(f"expected one size, got {picture.shape = }, {reference.shape = }")


def _tensor(picture: np.ndarray) -> Tensor:
    """The picture as f32[1,3,H,W] in 0..1."""
    import torch

    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255


@cache
def _lpips() -> Callable[[Tensor, Tensor], Tensor]:
    """The LPIPS network. Its inputs are RGB f32[1,3,H,W] in -1..1."""
    import lpips

    with warnings.catch_warnings():  # it uses a deprecated argument of torchvision
        warnings.simplefilter("ignore", UserWarning)
        net: nn.Module = lpips.LPIPS(net="alex", verbose=False)
        return net.eval()


def _luma(picture: np.ndarray) -> np.ndarray:
    """Luma by BT.601 as f32[H,W], levels of 0..255."""
    return cv2.transform(picture.astype(np.float32), _LUMA)


def _detail(picture: np.ndarray) -> np.ndarray:
    luma = _luma(picture)
    return luma - cv2.GaussianBlur(luma, (0, 0), SHARPNESS_SIGMA)


def _edges(reference: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The edge pixels of the reference.

    Three arrays: x and y of each pixel, i64[N,2]; the unit vector across the edge from dark to bright,
    f32[N,2]; and the distance of the edge from the pixel's centre along that vector, f32[N] px.
    """
    smooth = cv2.GaussianBlur(_luma(reference), (0, 0), _EDGE_SIGMA)
    slopes = [cv2.Sobel(smooth, cv2.CV_32F, *axis) / 8 for axis in ((1, 0), (0, 1))]
    # A step of height h, smoothed by 1 px and by Sobel's own [1,2,1], rises by 0.3 h a px.
    least = 0.1 * _EDGE_HEIGHT
    sixteenths = [np.clip(slope * 16, -32768, 32767).astype(np.int16) for slope in slopes]
    found = cv2.Canny(sixteenths[0], sixteenths[1], 16 * least, 32 * least, L2gradient=True) > 0
    margin = _REACH + 1
    found[:margin] = found[-margin:] = False
    found[:, :margin] = found[:, -margin:] = False
    rows, columns = np.nonzero(found)
    at = np.stack([columns, rows], axis=-1)
    across = np.stack([slope[rows, columns] for slope in slopes], axis=-1)
    across /= np.linalg.norm(across, axis=-1, keepdims=True)
    if not len(at):
        return at, across, np.zeros(0, np.float32)
    # The steepest point between px is the vertex of a parabola through three values of the slope.
    steps = np.array([-1, 0, 1], np.float32)
    places = (at[:, None] + steps[None, :, None] * across[:, None]).astype(np.float32)
    steep = cv2.remap(cv2.magnitude(*slopes), places[..., 0], places[..., 1], cv2.INTER_LINEAR)
    before, centre, after = steep.T
    curvature = np.maximum(2 * centre - before - after, 1e-3)
    return at, across, np.clip((after - before) / (2 * curvature), -1, 1)


def _mean_edge(values: np.ndarray, bins: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Minimum on the dark side and maximum on the bright side of each cell's mean edge, f64[cells] each.

    `bins` holds the number of each value's bin, counted through all cells.
    """
    size = cells * 2 * _REACH * _BINS
    counts = np.bincount(bins.ravel(), minlength=size).reshape(cells, -1)
    sums = np.bincount(bins.ravel(), values.ravel(), minlength=size).reshape(cells, -1)
    enough = counts >= _FEWEST
    means = sums / np.maximum(counts, 1)
    middle = _REACH * _BINS
    low = np.where(enough, means, np.inf)[:, :middle].min(axis=1)
    high = np.where(enough, means, -np.inf)[:, middle:].max(axis=1)
    return np.where(np.isfinite(low), low, 0), np.where(np.isfinite(high), high, 0)
