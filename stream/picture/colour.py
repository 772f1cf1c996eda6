"""Colour arithmetic on float arrays: Y'CbCr and R'G'B', HDR signals and the network's range.

The formulas come from ITU-R BT.601, BT.709 and BT.2020 (matrices), H.273 (code points), BT.2100 (PQ and
HLG curves), CIE 15 (L*a*b*) and IEC 61966-2-1 (sRGB).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

_LUMA_WEIGHTS = {
    1: (0.2126, 0.0722),  # BT.709
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.470BG
    6: (0.299, 0.114),  # SMPTE 170M
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020 non-constant luminance
    10: (0.2627, 0.0593),  # BT.2020 constant luminance, treated as non-constant
}
"""(Kr, Kb) by H.273's matrix coefficients."""
PQ, HLG = 16, 18
"""H.273's transfer characteristics of the two HDR curves."""


@dataclass(frozen=True, slots=True)
class Colour:
    """How samples encode colour, by the code points of H.273, which FFmpeg uses too."""

    matrix: int
    """Matrix coefficients; 2 is unspecified."""
    transfer: int
    """Transfer characteristics; 16 is PQ, 18 is HLG."""
    primaries: int
    range_full: bool
    """True: 0..max; False: limited range, 16..235 for luma in 8 bits."""

    @property
    def is_hdr(self) -> bool:
        """True for PQ and HLG signals."""
        return self.transfer in (PQ, HLG)

    def weights(self, width: int, height: int) -> tuple[float, float, float]:
        """(Kr, Kg, Kb). The size decides an unspecified matrix, as in players: BT.709 for HD, else BT.601."""
        matrix = self.matrix
        if matrix not in _LUMA_WEIGHTS:
            matrix = 1 if width >= 1280 or height > 576 else 6
        kr, kb = _LUMA_WEIGHTS[matrix]
        return kr, 1.0 - kr - kb, kb

    def enlarged(self, old: tuple[int, int], new: tuple[int, int]) -> Colour:
        """The colour of a picture that is enlarged from (width, height) `old` to `new`.

        Players choose an unspecified matrix by the size. Where the enlargement would change their choice
        from SD to HD, the result states the matrix of the samples.
        """
        if self.matrix != 2 or self.weights(*old) == self.weights(*new):
            return self
        return replace(self, matrix=6)


def yuv_to_rgb_matrix(weights: tuple[float, float, float]) -> np.ndarray:
    """Matrix f64[3,3] from Y' in 0..1 and Cb, Cr in -0.5..0.5 to R'G'B' in 0..1."""
    return np.linalg.inv(_yuv_matrix(weights))


def rgb_to_yuv(rgb: np.ndarray, weights: tuple[float, float, float]) -> Sequence[np.ndarray]:
    """Y', Cb, Cr f32[H,W] from R'G'B' f32[H,W,3]. It is linear, so it also maps differences."""
    return cv2.split(cv2.transform(rgb, _yuv_matrix(weights)))


@cache
def _yuv_matrix(weights: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    kr, kg, kb = weights
    luma = np.array([kr, kg, kb])
    return np.array([luma, ([0, 0, 1] - luma) / (2 - 2 * kb), ([1, 0, 0] - luma) / (2 - 2 * kr)])


_RGB_TO_XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], np.float32
)
"""IEC 61966-2-1: linear light of BT.709 primaries to CIE XYZ, white D65."""
_RGB_TO_XYZ_OVER_WHITE = _RGB_TO_XYZ / _RGB_TO_XYZ.sum(axis=1, keepdims=True)
_XYZ_OVER_WHITE_TO_RGB = np.linalg.inv(_RGB_TO_XYZ_OVER_WHITE.astype(np.float64)).astype(np.float32)
_LAB_KNEE = 6 / 29


def with_lightness(rgb: np.ndarray, of: np.ndarray) -> npt.NDArray[np.float32]:
    """Combine the L* of `of` with the a* and b* of `rgb`; all are sRGB f32[H,W,3] in 0..1.

    CIE 15: L* = 116 fY - 16, a* = 500 (fX - fY), b* = 200 (fY - fZ). Each f is the cube root of X, Y or Z
    over that of white, and linear below (6/29)^3. A colour outside sRGB moves in linear light straight
    towards the grey of the same Y until it lies inside; its L* stays the same.
    """
    light = _to_linear(of) @ _RGB_TO_XYZ_OVER_WHITE[1]
    given = _lab_curve(_to_linear(rgb) @ _RGB_TO_XYZ_OVER_WHITE.T)
    shift = _lab_curve(light) - given[..., 1]
    xyz = _lab_curve_back(given + shift[..., None])
    xyz[..., 1] = light
    from_grey = xyz @ _XYZ_OVER_WHITE_TO_RGB.T - light[..., None]
    room = np.where(from_grey > 0, 1 - light[..., None], light[..., None])
    share = (room / np.maximum(np.abs(from_grey), 1e-9)).min(axis=2, keepdims=True)
    return _from_linear(np.clip(light[..., None] + np.minimum(share, 1) * from_grey, 0, 1))


def _to_linear(srgb: np.ndarray) -> npt.NDArray[np.float32]:
    srgb = np.clip(srgb, 0, 1)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _from_linear(light: np.ndarray) -> npt.NDArray[np.float32]:
    curve = 1.055 * light ** (1 / 2.4) - 0.055
    return np.where(light <= 0.0031308, light * 12.92, curve).astype(np.float32)


def _lab_curve(t: np.ndarray) -> npt.NDArray[np.float32]:
    return np.where(t > _LAB_KNEE**3, np.cbrt(t), t / (3 * _LAB_KNEE**2) + 4 / 29).astype(np.float32)


def _lab_curve_back(f: np.ndarray) -> npt.NDArray[np.float32]:
    return np.where(f > _LAB_KNEE, f**3, 3 * _LAB_KNEE**2 * (f - 4 / 29)).astype(np.float32)


# The network was trained on SDR pictures. An invertible curve brings an HDR signal into that range:
# signal -> linear light L relative to diffuse white (203 cd/m2, BT.2408) -> BT.709 primaries ->
# t = k L / (1 + L) -> t ** (1 / 2.4). With k = 1.6 diffuse white becomes 0.91. Skin has about a third of
# the light of diffuse white and becomes about 0.67, as in SDR video.
_KNEE = 1.6
_WHITE_NITS = 203.0
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
_HLG_A, _HLG_B, _HLG_C = 0.17883277, 0.28466892, 0.55991073
_HLG_WHITE = (np.exp((0.75 - _HLG_C) / _HLG_A) + _HLG_B) / 12  # scene light of signal 0.75
_2020_TO_709 = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]]
)
_709_TO_2020 = np.linalg.inv(_2020_TO_709)


def hdr_to_network(signal: np.ndarray, colour: Colour) -> npt.NDArray[np.float32]:
    """Convert PQ or HLG R'G'B' f32[...,3] in 0..1 to SDR-like R'G'B' f32[...,3] for the network."""
    x = np.clip(signal.astype(np.float64), 0, 1)
    if colour.transfer == PQ:
        p = x ** (1 / _M2)
        light = (np.maximum(p - _C1, 0) / (_C2 - _C3 * p)) ** (1 / _M1) * 10000 / _WHITE_NITS
    else:
        light = np.where(x <= 0.5, x * x / 3, (np.exp((x - _HLG_C) / _HLG_A) + _HLG_B) / 12)
        light = light / _HLG_WHITE
    if colour.primaries == 9:
        light = light @ _2020_TO_709.T
    size = np.abs(light)
    value: npt.NDArray[np.float64] = np.sign(light) * (_KNEE * size / (1 + size)) ** (1 / 2.4)
    return value.astype(np.float32)


def network_to_hdr(value: np.ndarray, colour: Colour) -> npt.NDArray[np.float32]:
    """The exact inverse of `hdr_to_network`; values above 0.995 of the curve's end are clipped to it."""
    v = value.astype(np.float64)
    t = np.minimum(np.abs(v) ** 2.4 / _KNEE, 0.995)
    light = np.sign(v) * t / (1 - t)
    if colour.primaries == 9:
        light = light @ _709_TO_2020.T
    light = np.maximum(light, 0)
    signal: npt.NDArray[np.float64]
    if colour.transfer == PQ:
        p = np.minimum(light * _WHITE_NITS / 10000, 1) ** _M1
        signal = ((_C1 + _C2 * p) / (1 + _C3 * p)) ** _M2
    else:
        e = light * _HLG_WHITE
        high = _HLG_A * np.log(np.maximum(12 * e - _HLG_B, 1e-9)) + _HLG_C
        signal = np.where(e <= 1 / 12, np.sqrt(3 * e), high)
    return np.clip(signal, 0, 1).astype(np.float32)
