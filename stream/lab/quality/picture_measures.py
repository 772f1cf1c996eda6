"""Figures of one picture against its clean reference; docs/quality.md says what each means.

Pictures are RGB u8[H,W,3], both of one size, 64 px or more each way. Nothing here is a loss of
`stream.lab.train`. The perceptual indices are computed by piq, which is loaded, with torch, at the first
call that needs it.
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
"""Which way each figure gets better; that of `sharpness` holds up to 1, the clean picture's own."""
SHARPNESS_SIGMA = 1.5
"""Px, of the Gaussian blur above which energy counts as detail: half the amplitude at 0.125 periods a px."""

_SMALLEST = 64
_LUMA = np.array([[0.299, 0.587, 0.114]], np.float32)
_LPIPS_BACKBONE = "alexnet-owt-7be5be79.pth"
"""The file of AlexNet in torch's hub folder; the `lpips` package holds only the layers above it."""
_EDGE_SIGMA = 1.0
_EDGE_HEIGHT = 32.0
"""Levels that a strong edge of the reference spans at least."""
_REACH = 5
"""Px on either side of an edge where its plateau, and what goes beyond it, is looked for."""
_CELL = 32
"""Px; edges in one such square make one mean edge."""
_BINS = 2
"""To a px of distance from the edge."""
_FEWEST = 8
"""Edge pixels that a mean edge is made of at least, and pixels that a bin must hold to count."""


def psnr(picture: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal-to-noise ratio over all channels, dB, for a peak of 255; inf for equal pictures."""
    _check(picture, reference)
    return fidelity.psnr(picture, reference)


def ssim(picture: np.ndarray, reference: np.ndarray) -> float:
    """Structural similarity (Wang et al., 2004), -1..1, the mean over RGB; 1 for equal pictures."""
    _check(picture, reference)
    return fidelity.ssim(picture.astype(np.float32), reference.astype(np.float32))


def indices(picture: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Perceptual indices by piq: they correlate with what people say, and no loss uses them.

    `gmsd`: gradient magnitude similarity deviation (Xue et al., 2014), 0 for equal pictures.
    `haarpsi`: Haar wavelet-based perceptual similarity index (Reisenhofer et al., 2018), up to 1.
    `vif`: visual information fidelity, pixel domain (Sheikh and Bovik, 2006), 1 for equal pictures;
    contrast enhancement can bring it above 1.
    `lpips`: learned perceptual distance (Zhang et al., 2018) on AlexNet, where `lpips_present`.
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
    """Whether LPIPS is installed (package `lpips`) and AlexNet's weights lie in torch's hub folder.

    They are never downloaded here.
    """
    if find_spec("lpips") is None:
        return False
    import torch

    return (Path(torch.hub.get_dir()) / "checkpoints" / _LPIPS_BACKBONE).is_file()


def sharpness(picture: np.ndarray, reference: np.ndarray) -> float:
    """Energy above a stated frequency, over the reference's: 1 is as sharp as the clean picture.

    Energy is the variance of luma minus its Gaussian blur of SHARPNESS_SIGMA. It tells detail from
    blur, not detail from noise: read it beside the other figures.
    """
    _check(picture, reference)
    return float(np.var(_detail(picture)) / max(np.var(_detail(reference)), 1e-6))


def overshoot(picture: np.ndarray, reference: np.ndarray) -> float:
    """How far the picture's edges go beyond the reference's, as a share of their height; 0.05: 5 %.

    Looked at are edges of the reference (Canny, 1986, on luma smoothed by 1 px) that span 32 levels
    or more within 5 px on either side. In each square of 32 px, and in both pictures, the mean edge is
    made as ISO 12233 makes its edge spread function: luma of all px near an edge, by their distance
    from it along the gradient, in bins of half a px, without interpolation. What the picture's mean
    edge has above the maximum of the reference's on the bright side, and below its minimum on the dark
    side, is halved and set against the height of the latter; squares count by their edge pixels.

    Averaging first keeps noise out (a standard deviation of 4 levels passes for 0.3 % on a face). Blur
    of any width gives 0; an ideal step under unsharp masking by amount a and sigma s gives
    a (1 - Phi(1 / 2s)), Phi being the normal distribution's. 0 where the reference has no strong edge.
    """
    _check(picture, reference)
    at, across, beyond = _edges(reference)
    ours, theirs = _luma(picture), _luma(reference)
    steps = np.arange(-_REACH, _REACH + 1)
    places = np.rint(at[:, None] + steps[None, :, None] * across[:, None]).astype(np.intp)
    values = theirs[places[..., 1], places[..., 0]]
    strong = values[:, _REACH:].max(axis=1) - values[:, : _REACH + 1].min(axis=1) >= _EDGE_HEIGHT
    at, across, beyond, places = (each[strong] for each in (at, across, beyond, places))
    if not len(at):
        return 0.0
    distance = np.einsum("nkc,nc->nk", places - at[:, None], across) - beyond[:, None]
    columns = -(-reference.shape[1] // _CELL)
    _, cell, edges = np.unique(
        at[:, 1] // _CELL * columns + at[:, 0] // _CELL, return_inverse=True, return_counts=True
    )
    bins = np.clip(np.floor(distance * _BINS), -_REACH * _BINS, _REACH * _BINS - 1).astype(np.intp)
    where = cell[:, None] * (2 * _REACH * _BINS) + bins + _REACH * _BINS
    (low, high), (bottom, top) = (
        _mean_edge(luma[places[..., 1], places[..., 0]], where, len(edges)) for luma in (ours, theirs)
    )
    height = top - bottom
    kept = (edges >= _FEWEST) & (height >= _EDGE_HEIGHT / 2)
    if not kept.any():
        return 0.0
    excess = np.maximum(high - top, 0) + np.maximum(bottom - low, 0)
    return float(np.average(excess[kept] / (2 * height[kept]), weights=edges[kept]))


def figures(picture: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """All of the above by name, see BETTER."""
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
    """f32[1,3,H,W] in 0..1"""
    import torch

    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255


@cache
def _lpips() -> Callable[[Tensor, Tensor], Tensor]:
    """Takes RGB f32[1,3,H,W] of -1..1."""
    import lpips

    with warnings.catch_warnings():  # it asks torchvision in the old way
        warnings.simplefilter("ignore", UserWarning)
        net: nn.Module = lpips.LPIPS(net="alex", verbose=False)
        return net.eval()


def _luma(picture: np.ndarray) -> np.ndarray:
    """f32[H,W], levels of 0..255 (BT.601)"""
    return cv2.transform(picture.astype(np.float32), _LUMA)


def _detail(picture: np.ndarray) -> np.ndarray:
    luma = _luma(picture)
    return luma - cv2.GaussianBlur(luma, (0, 0), SHARPNESS_SIGMA)


def _edges(reference: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edge pixels i64[N,2] as x, y; the way from dark to bright across each, f32[N,2]; and how far that
    way the edge itself lies from the pixel's middle, f32[N] px.
    """
    smooth = cv2.GaussianBlur(_luma(reference), (0, 0), _EDGE_SIGMA)
    slopes = [cv2.Sobel(smooth, cv2.CV_32F, *way) / 8 for way in ((1, 0), (0, 1))]
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
    # Where the slope is steepest between px: the top of a parabola through three of its values.
    steps = np.array([-1, 0, 1], np.float32)
    places = (at[:, None] + steps[None, :, None] * across[:, None]).astype(np.float32)
    steep = cv2.remap(cv2.magnitude(*slopes), places[..., 0], places[..., 1], cv2.INTER_LINEAR)
    before, here, after = steep.T
    bend = np.maximum(2 * here - before - after, 1e-3)
    return at, across, np.clip((after - before) / (2 * bend), -1, 1)


def _mean_edge(values: np.ndarray, where: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Minimum on the dark and maximum on the bright side of each cell's mean edge, f64[cells] each."""
    size = cells * 2 * _REACH * _BINS
    counts = np.bincount(where.ravel(), minlength=size).reshape(cells, -1)
    sums = np.bincount(where.ravel(), values.ravel(), minlength=size).reshape(cells, -1)
    enough = counts >= _FEWEST
    means = sums / np.maximum(counts, 1)
    middle = _REACH * _BINS
    low = np.where(enough, means, np.inf)[:, :middle].min(axis=1)
    high = np.where(enough, means, -np.inf)[:, middle:].max(axis=1)
    return np.where(np.isfinite(low), low, 0), np.where(np.isfinite(high), high, 0)
