"""Drawn rooms for the group clip: still backgrounds, a counter and a folder.

All sizes are in pixels of the frame; colours are r, g, b in 0..1.
"""

from __future__ import annotations

import cv2
import numpy as np
from cutout import Layer

SIZE = (960, 540)


def _texture(seed: int, shape: tuple[int, int]) -> np.ndarray:
    """Noise (h, w) of several grain sizes with a standard deviation of 1."""
    rng = np.random.default_rng(seed)
    total = np.zeros(shape, np.float32)
    for sigma in (1.5, 6.0, 24.0):
        layer = cv2.GaussianBlur(rng.standard_normal(shape).astype(np.float32), (0, 0), sigma)
        total += layer / layer.std()
    return total / total.std()


def _box(room: np.ndarray, x0: float, y0: float, x1: float, y1: float, colour: tuple) -> None:
    """Draw a rectangle whose left side is lit and whose lower side is dark."""
    box = (round(x0), round(y0)), (round(x1), round(y1))
    cv2.rectangle(room, *box, colour, -1)
    cv2.line(room, box[0], (box[0][0], box[1][1]), tuple(min(1.0, c * 1.3) for c in colour), 2)
    cv2.line(room, (box[0][0], box[1][1]), box[1], tuple(c * 0.6 for c in colour), 3)


def _shelves(room: np.ndarray, x0: int, y0: int, x1: int, rows: int, seed: int) -> None:
    """Draw a bookcase with random books."""
    rng = np.random.default_rng(seed)
    palette = [(0.45, 0.2, 0.16), (0.2, 0.28, 0.36), (0.5, 0.42, 0.28), (0.22, 0.33, 0.24),
               (0.58, 0.54, 0.48), (0.3, 0.2, 0.3)]  # fmt: skip
    _box(room, x0, y0, x1, y0 + rows * 84 + 8, (0.3, 0.21, 0.14))
    for row in range(rows):
        bottom, x = y0 + row * 84 + 78, x0 + 10.0
        cv2.rectangle(room, (x0 + 8, y0 + row * 84 + 8), (x1 - 8, bottom), (0.14, 0.1, 0.08), -1)
        while x < x1 - 30:
            width, height = rng.uniform(8, 20), rng.uniform(44, 64)
            shade = rng.uniform(0.7, 1.2)
            colour = tuple(c * shade for c in palette[rng.integers(len(palette))])
            if rng.uniform() > 0.12:
                _box(room, x, bottom - height, x + width, bottom, colour)
            x += width + 1


def _finish(room: np.ndarray, seed: int, blur_px: float, lamp_xy: tuple, warm: float) -> np.ndarray:
    """The room with texture, lamp light and the blur of a background out of focus."""
    height, width = room.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    far = np.hypot(x - lamp_xy[0], y - lamp_xy[1]) / width
    light = 0.72 + 0.5 * np.exp(-((far / 0.35) ** 2)) + 0.012 * _texture(seed, room.shape[:2])
    tint = np.array([1 + warm, 1.0, 1 - warm], np.float32)
    return np.clip(cv2.GaussianBlur(room * light[..., None] * tint, (0, 0), blur_px), 0, 1)


def _wall(height: int, width: int, foot: float, colour: tuple) -> np.ndarray:
    """A wall whose colour falls to the share `foot` towards the floor."""
    fall = np.linspace(1.0, foot, height, dtype=np.float32)[:, None, None]
    return np.repeat(fall * np.array(colour, np.float32), width, axis=1)


def library() -> np.ndarray:
    """A warm room with bookcases, a picture and a window, (540, 960, 3)."""
    height, width = SIZE[1], SIZE[0]
    room = _wall(height, width, 0.82, (0.68, 0.6, 0.48))
    _box(room, 0, 470, width, height, (0.34, 0.25, 0.18))
    _shelves(room, 20, 40, 330, 5, 3)
    _box(room, 400, 70, 560, 190, (0.42, 0.3, 0.16))
    _box(room, 410, 80, 550, 180, (0.42, 0.5, 0.52))
    cv2.ellipse(room, (470, 178), (58, 46), 0, 180, 360, (0.3, 0.4, 0.28), -1)
    _box(room, 640, 30, 900, 330, (0.74, 0.71, 0.66))
    for i in range(2):
        _box(room, 652 + i * 122, 42, 764 + i * 122, 318, (0.68, 0.75, 0.82))
    cv2.circle(room, (720, 260), 70, (0.5, 0.6, 0.46), -1)
    cv2.circle(room, (840, 280), 58, (0.44, 0.55, 0.4), -1)
    return _finish(room, 1, 5.0, (770, 170), 0.03)


def office() -> np.ndarray:
    """A cooler room, wider than the frame for a pan, (560, 1040, 3)."""
    height, width = SIZE[1] + 20, SIZE[0] + 80
    room = _wall(height, width, 0.84, (0.52, 0.57, 0.61))
    for x in range(60, width, 170):
        _box(room, x, 0, x + 6, height, (0.42, 0.46, 0.5))
    _box(room, 120, 90, 330, 250, (0.74, 0.75, 0.74))
    for i, colour in enumerate([(0.3, 0.45, 0.7), (0.75, 0.5, 0.25), (0.35, 0.6, 0.4)]):
        _box(room, 150 + 55 * i, 215 - 35 * (i + 1), 190 + 55 * i, 235, colour)
    _shelves(room, 800, 120, 1000, 4, 9)
    cv2.ellipse(room, (600, 400), (26, 60), 0, 0, 360, (0.35, 0.24, 0.18), -1)
    for i, angle in enumerate(range(200, 345, 18)):
        tip = 600 + 95 * np.cos(np.radians(angle)), 350 + 120 * np.sin(np.radians(angle))
        green = (0.16 + 0.02 * (i % 3), 0.34 + 0.05 * (i % 2), 0.18)
        cv2.line(room, (600, 360), (round(tip[0]), round(tip[1])), green, 16)
    return _finish(room, 2, 4.5, (260, 120), -0.02)


def counter(top_y: int, colour: tuple) -> Layer:
    """A counter across the frame, from `top_y` down, with a lit edge."""
    height, width = SIZE[1], SIZE[0] + 160
    rgb = np.zeros((height, width, 3), np.float32)
    rgb[top_y:] = np.linspace(1.0, 0.55, height - top_y, dtype=np.float32)[:, None, None] * colour
    rgb[top_y : top_y + 7] *= 1.6
    rgb *= 1 + 0.03 * _texture(5, (height, width))[..., None]
    alpha = np.zeros((height, width), np.float32)
    alpha[top_y:] = 1
    rgba = cv2.GaussianBlur(np.dstack([rgb * alpha[..., None], alpha]), (0, 0), 1.6)
    return Layer(rgba, (-80.0, 0.0))


def folder() -> Layer:
    """A cardboard folder with some shading, 240 x 300."""
    rgba = np.zeros((320, 260, 4), np.float32)
    rgba[10:310, 10:250, 3] = 1
    shade = np.linspace(1.05, 0.85, 320, dtype=np.float32)[:, None, None]
    rgba[..., :3] = shade * np.array([0.42, 0.2, 0.16], np.float32)
    rgba[..., :3] *= 1 + 0.03 * _texture(8, (320, 260))[..., None]
    rgba[60:110, 60:200, :3] = (0.8, 0.78, 0.72)
    rgba[78:81, 75:180, :3] = rgba[92:95, 75:150, :3] = 0.3
    rgba[..., :3] *= rgba[..., 3:]
    return Layer(cv2.GaussianBlur(rgba, (0, 0), 1.2))
