"""The difference of two pictures at each pixel, and the colours that show it."""

from __future__ import annotations

import cv2
import numpy as np

ANCHORS: tuple[tuple[float, tuple[int, int, int]], ...] = (
    (0, (8, 9, 24)),
    (0.25, (72, 24, 128)),
    (0.5, (190, 44, 98)),
    (0.75, (246, 134, 34)),
    (1, (255, 250, 190)),
)
"""Positions 0..1 on the colour scale and their RGB colours. Lightness rises throughout, so that the scale
can be read without colour vision. The page's script uses the same values."""
_SPOT_SIDE = 1 / 8
"""Side of `spot` as a share of the picture's longer side."""


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The largest absolute difference of the three channels of RGB u8[H,W,3], as levels u8[H,W]."""
    red, green, blue = cv2.split(cv2.absdiff(a, b))
    return cv2.max(cv2.max(red, green), blue)


def companded(levels: np.ndarray) -> np.ndarray:
    """The u8 levels on a square-root scale, 255 sqrt(d / 255), so that JPEG preserves small differences."""
    return cv2.LUT(levels, np.rint(np.sqrt(np.arange(256) * 255.0)).astype(np.uint8))


def colour_scale() -> np.ndarray:
    """The colours of the levels 0..255, RGB u8[256,3]."""
    positions = [position for position, _ in ANCHORS]
    channels = np.array([colour for _, colour in ANCHORS]).T
    at = np.linspace(0, 1, 256)
    return np.rint([np.interp(at, positions, channel) for channel in channels]).T.astype(np.uint8)


def heat(levels: np.ndarray, gain: float) -> np.ndarray:
    """A heat map RGB u8[H,W,3]: the levels u8[H,W], multiplied by `gain`, in the colours of the scale."""
    return colour_scale()[np.clip(levels * np.float32(gain), 0, 255).astype(np.uint8)]


def suitable_gain(levels: np.ndarray) -> int:
    """A power of two, 1 to 32, with which 99.8 % of the differences stay within the scale."""
    top = max(1.0, float(np.percentile(levels, 99.8)))
    return int(2 ** np.clip(np.floor(np.log2(255 / top)), 0, 5))


def spot(levels: np.ndarray) -> tuple[int, int, int, int]:
    """x, y, width and height of the square with the largest mean difference."""
    side = max(16, round(max(levels.shape) * _SPOT_SIDE))
    side = min(side, *levels.shape)
    mean = cv2.boxFilter(levels.astype(np.float32), -1, (side, side), borderType=cv2.BORDER_REFLECT_101)
    y, x = np.unravel_index(int(mean.argmax()), mean.shape)
    left = int(np.clip(x - side // 2, 0, levels.shape[1] - side))
    top = int(np.clip(y - side // 2, 0, levels.shape[0] - side))
    return left, top, side, side
