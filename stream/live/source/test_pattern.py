"""`test:`: a face that moves, as an old camera would show it, and the time burnt into the lower edge."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from stream.config_live import SourceSettings
from stream.live.source import time_strip
from stream.live.source.connection import Shot

_FACE = Path(__file__).with_name("pattern.jpg")
"""A portrait from samples/faces, in the public domain."""
_LAP_S = 12.0
"""How long the face takes for one round."""
_DETAIL = 90
"""What is left of the portrait's sharpness, px of its side: enough to see what a restoration does."""
_NOISE = 2.5
"""Standard deviation, levels of luma."""
_NOISES = 7
"""Planes of noise that are shown in turn."""


class PatternSource:
    """Pictures drawn in real time; to the capture it looks like a `Connection`.

    The strip holds `time.monotonic()` in ms, so that any client on this machine can read a delay.
    """

    codec, transport, audio = "rawvideo", "", None
    is_paced = False
    before_keyframe = corrupt_packets = 0

    def __init__(self, source: SourceSettings, stopping: threading.Event) -> None:
        width, height = map(int, (source.size or "640x360").split("x"))
        width, height = max(160, width // 2 * 2), max(64, height // 2 * 2)
        self.rate = Fraction(source.rate or 25).limit_denominator(1001)
        self.sar = Fraction(1)
        self.notes: list[str] = []
        self._stopping = stopping
        ramp = np.linspace(60, 150, width)[None, :] + np.linspace(0, 60, height)[:, None]
        self._scene = np.stack([ramp * 0.7, ramp * 0.9, ramp], axis=-1).astype(np.uint8)
        side = min(width, height - 16) * 3 // 4
        portrait = cv2.imread(str(_FACE))
        assert portrait is not None, f"{_FACE.name} is a part of this package"
        face = cv2.cvtColor(portrait, cv2.COLOR_BGR2RGB)
        face = cv2.resize(face, (min(_DETAIL, side),) * 2, interpolation=cv2.INTER_AREA)
        face = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC)
        oval = _oval(side)
        self._face, self._behind = (face * oval + 0.5).astype(np.float32), 1 - oval
        chance = np.random.default_rng(1)
        self._noises = [_noise(chance, width, height) for _ in range(_NOISES)]
        self._drawn = 0

    def events(self) -> Iterator[Shot]:
        """A picture each 1 / rate s until it is stopped; those that nobody took in time are left out."""
        began, index = time.monotonic(), 0
        while not self._stopping.wait(max(0.0, began + index / self.rate - time.monotonic())):
            now = time.monotonic()
            at_s = float(index / self.rate)
            yield Shot(self._picture(at_s, now), at_s, now)
            index = max(index + 1, int((time.monotonic() - began) * self.rate))

    def close(self) -> None:
        """Nothing is held."""

    def _picture(self, at_s: float, now_s: float) -> av.VideoFrame:
        rgb = self._scene.copy()
        height, width = rgb.shape[:2]
        side, angle = len(self._face), 2 * np.pi * at_s / _LAP_S
        x = round((width - side) * (0.5 + 0.4 * np.cos(angle)))
        y = round((height - 16 - side) * (0.5 + 0.4 * np.sin(2 * angle)))
        place = rgb[y : y + side, x : x + side]
        place[...] = cv2.multiply(place, self._behind, dtype=cv2.CV_32F) + self._face
        planes = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420), np.uint8)
        luma = planes[:height]
        cv2.add(luma, self._noises[self._drawn % _NOISES], luma, dtype=cv2.CV_8U)
        self._drawn += 1
        time_strip.burn(luma, int(now_s * 1000))
        picture = av.VideoFrame.from_ndarray(planes, "yuv420p")
        picture.color_range, picture.colorspace = 1, 6  # OpenCV's is BT.601, limited
        return picture


def _oval(side: int) -> np.ndarray:
    """How much of the portrait is seen, f32[side,side,3]: all in its middle, nothing along its edges."""
    x, y = np.meshgrid(*[(np.arange(side) + 0.5) / side] * 2)
    distance = np.hypot((x - 0.5) / 0.46, (y - 0.48) / 0.5)
    seen = np.clip((1 - distance) / 0.35, 0, 1)
    return np.repeat((seen * seen * (3 - 2 * seen))[..., None], 3, axis=2).astype(np.float32)


def _noise(chance: np.random.Generator, width: int, height: int) -> np.ndarray:
    """i16[height,width], a little coarse, as a small sensor's is."""
    fine = cv2.GaussianBlur(chance.standard_normal((height, width), np.float32), (3, 3), 0.6)
    levels: np.ndarray = np.rint(fine * (_NOISE / fine.std()))
    return levels.astype(np.int16)
