"""Figures of one picture against its clean reference; docs/quality.md says what each means.

Pictures are RGB u8[H,W,3], both of one size, 64 px or more each way. Nothing here is a loss of
`stream.train`. The perceptual indices are computed by piq, which is loaded, with torch, at the first
call that needs it.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

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
INDICES = ("gmsd", "haarpsi", "vif", "lpips")
"""The perceptual ones; the last only where `lpips_present`."""
SHARPNESS_SIGMA = 1.5
"""Px, of the Gaussian blur above which energy counts as detail: half the amplitude at 0.125 periods a px."""

_SMALLEST = 64
_LUMA = np.float32([[0.299, 0.587, 0.114]])
_LPIPS_BACKBONE = "alexnet-owt-7be5be79.pth"
"""The file of AlexNet in torch's hub folder; the `lpips` package holds only the layers above it."""
_EDGE_SIGMA = 1.0
_EDGE_HEIGHT = 32.0
"""Levels that a strong edge of the reference spans at least."""
_REACH = 5
"""Px on either side of an edge where its plateau, and what goes beyond it, is looked for."""
_CELL = 32
"""Px; edges in one such square make one mean edge."""
_FEWEST = 6
"""Edge pixels that a mean edge is made of at least."""


def psnr(picture: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal-to-noise ratio over all channels, dB, peak 255; inf where both are equal."""
    _check(picture, reference)
    error = np.mean((picture.astype(np.float64) - reference) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def ssim(picture: np.ndarray, reference: np.ndarray) -> float:
    """Structural similarity (Wang et al., 2004), -1..1, mean over RGB, with the paper's own window.

    scikit-image's, Gaussian weights of sigma 1.5 px.
    """
    from skimage.metrics import structural_similarity

    _check(picture, reference)
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(reference, picture, channel_axis=2, data_range=255, **window))


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
    or more within 5 px on either side. Luma across them, sampled along the gradient from dark to
    bright, is averaged over all such edges in a square of 32 px, in both pictures. What the
    picture's mean edge has above the maximum of the reference's on the bright side, and below its
    minimum on the dark side, is halved and set against the height of the latter; squares are averaged
    with the number of their edge pixels. Averaging first keeps noise out. Blur of any width gives 0;
    an ideal step under unsharp masking by amount a and sigma s gives a (1 - Phi(1 / 2s)), Phi being the
    normal distribution's. 0 where the reference has no strong edge.
    """
    _check(picture, reference)
    at, across = _edges(reference)
    if not len(at):
        return 0.0
    ours, theirs = (_profiles(_luma(each), at, across) for each in (picture, reference))
    strong = _top(theirs) - _bottom(theirs) >= _EDGE_HEIGHT
    columns = -(-reference.shape[1] // _CELL)
    cell = (at[strong, 1] // _CELL) * columns + at[strong, 0] // _CELL
    _, cell, counts = np.unique(cell, return_inverse=True, return_counts=True)
    ours, theirs = (_mean_by(cell, counts, each[strong]) for each in (ours, theirs))
    kept = counts >= _FEWEST
    if not kept.any():
        return 0.0
    height = _top(theirs) - _bottom(theirs)
    beyond = np.maximum(_top(ours) - _top(theirs), 0) + np.maximum(_bottom(theirs) - _bottom(ours), 0)
    share = beyond / (2 * np.maximum(height, 1))
    return float(np.average(share[kept], weights=counts[kept]))


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


def _tensor(picture: np.ndarray):
    """f32[1,3,H,W] in 0..1"""
    import torch

    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255


@cache
def _lpips():
    import lpips

    return lpips.LPIPS(net="alex", verbose=False).eval()


def _luma(picture: np.ndarray) -> np.ndarray:
    """f32[H,W], levels of 0..255 (BT.601)"""
    return cv2.transform(picture.astype(np.float32), _LUMA)


def _detail(picture: np.ndarray) -> np.ndarray:
    luma = _luma(picture)
    return luma - cv2.GaussianBlur(luma, (0, 0), SHARPNESS_SIGMA)


def _edges(reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edge pixels i64[N,2] as x, y, and the way from dark to bright across each, f32[N,2]."""
    smooth = cv2.GaussianBlur(_luma(reference), (0, 0), _EDGE_SIGMA)
    slopes = [cv2.Sobel(smooth, cv2.CV_32F, *way) / 8 for way in ((1, 0), (0, 1))]
    # A step of height h, smoothed by s px and by Sobel's own [1,2,1], rises by about 0.3 h a px.
    least = 0.1 * _EDGE_HEIGHT
    sixteenths = [np.clip(slope * 16, -32768, 32767).astype(np.int16) for slope in slopes]
    found = cv2.Canny(*sixteenths, 16 * least, 32 * least, L2gradient=True) > 0
    margin = _REACH + 1
    found[:margin] = found[-margin:] = False
    found[:, :margin] = found[:, -margin:] = False
    rows, columns = np.nonzero(found)
    across = np.stack([slope[rows, columns] for slope in slopes], axis=-1)
    across /= np.linalg.norm(across, axis=-1, keepdims=True)
    return np.stack([columns, rows], axis=-1), across


def _profiles(luma: np.ndarray, at: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Luma across each edge, f32[N,2*_REACH+1], dark side first; bilinear, so nothing is added."""
    steps = np.arange(-_REACH, _REACH + 1, dtype=np.float32)
    places = (at[:, None] + steps[None, :, None] * across[:, None]).astype(np.float32)
    return cv2.remap(luma, places[..., 0], places[..., 1], cv2.INTER_LINEAR)


def _mean_by(cell: np.ndarray, counts: np.ndarray, profiles: np.ndarray) -> np.ndarray:
    sums = np.zeros((len(counts), profiles.shape[1]))
    np.add.at(sums, cell, profiles)
    return sums / counts[:, None]


def _top(profiles: np.ndarray) -> np.ndarray:
    return profiles[:, _REACH:].max(axis=1)


def _bottom(profiles: np.ndarray) -> np.ndarray:
    return profiles[:, : _REACH + 1].min(axis=1)
