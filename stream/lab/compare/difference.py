"""How far two pictures differ, pixel by pixel, and the colours that show it."""

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
"""The scale from no difference to full colour: rising in lightness throughout, so that it reads
without colour vision too. The page draws with the same numbers."""
_SPOT = 1 / 8
"""Side of the spot that differs most, as a part of the longer side."""


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """u8[H,W]: the largest difference of the three channels of RGB u8[H,W,3], in levels."""
    red, green, blue = cv2.split(cv2.absdiff(a, b))
    return cv2.max(cv2.max(red, green), blue)


def coded(levels: np.ndarray) -> np.ndarray:
    """u8 levels on a square-root scale, 255 sqrt(d / 255), so that lossy coding keeps the small ones."""
    return cv2.LUT(levels, np.rint(np.sqrt(np.arange(256) * 255.0)).astype(np.uint8))


def scale() -> np.ndarray:
    """The colours of 0..255, RGB u8[256,3]."""
    places = [place for place, _ in ANCHORS]
    channels = np.array([colour for _, colour in ANCHORS]).T
    at = np.linspace(0, 1, 256)
    return np.rint([np.interp(at, places, channel) for channel in channels]).T.astype(np.uint8)


def heat(levels: np.ndarray, gain: float) -> np.ndarray:
    """RGB u8[H,W,3]: levels u8[H,W], each times `gain`, in the colours of the scale."""
    return scale()[np.clip(levels * np.float32(gain), 0, 255).astype(np.uint8)]


def usual_gain(levels: np.ndarray) -> int:
    """A power of two, 1 to 32, at which all but the largest 0.2 % of differences stay within the scale."""
    top = max(1.0, float(np.percentile(levels, 99.8)))
    return int(2 ** np.clip(np.floor(np.log2(255 / top)), 0, 5))


def spot(levels: np.ndarray) -> tuple[int, int, int, int]:
    """x, y, width, height of the square in which two pictures differ most on average."""
    side = max(16, round(max(levels.shape) * _SPOT))
    side = min(side, *levels.shape)
    mean = cv2.boxFilter(levels.astype(np.float32), -1, (side, side), borderType=cv2.BORDER_REFLECT_101)
    y, x = np.unravel_index(int(mean.argmax()), mean.shape)
    left = int(np.clip(x - side // 2, 0, levels.shape[1] - side))
    top = int(np.clip(y - side // 2, 0, levels.shape[0] - side))
    return left, top, side, side
