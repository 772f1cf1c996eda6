"""The source `test:`: a moving face as an old camera would show it, and the time along the lower edge."""

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
from stream.live.packets import AudioFormat
from stream.live.source import time_strip
from stream.live.source.connection import DecodedPicture, OpenSource

_FACE = Path(__file__).with_name("pattern.jpg")
"""A portrait from samples/faces, in the public domain."""
_ROUND_S = 12.0
"""Time that the face needs for one round."""
_PORTRAIT_SIDE = 90
"""Side, px, to which the portrait is reduced before it is enlarged again, so that a restoration shows."""
_NOISE_DEVIATION = 2.5
"""Standard deviation of the noise, levels of luma."""
_NOISE_PLANES = 7
"""Planes of noise that are shown in turn."""
_STRIP_HEIGHT = 16
"""px of the lower edge that the face leaves to the time strip."""


class PatternSource(OpenSource):
    """Pictures drawn in real time.

    The time strip holds `time.monotonic()` in ms, so that any client on this machine can measure a delay.
    """

    codec, transport = "rawvideo", ""
    audio: AudioFormat | None = None
    is_file = is_paced = False

    def __init__(self, source: SourceSettings, stopping: threading.Event) -> None:
        width, height = map(int, (source.size or "640x360").split("x"))
        width, height = max(160, width // 2 * 2), max(64, height // 2 * 2)
        self._rate = Fraction(source.rate or 25).limit_denominator(1001)
        self._stopping = stopping
        ramp = np.linspace(60, 150, width)[None, :] + np.linspace(0, 60, height)[:, None]
        self._scene = np.stack([ramp * 0.7, ramp * 0.9, ramp], axis=-1).astype(np.uint8)
        side = min(width, height - _STRIP_HEIGHT) * 3 // 4
        portrait = cv2.imread(str(_FACE))
        assert portrait is not None, f"{_FACE.name} is a part of this package"
        face = cv2.cvtColor(portrait, cv2.COLOR_BGR2RGB)
        face = cv2.resize(face, (min(_PORTRAIT_SIDE, side),) * 2, interpolation=cv2.INTER_AREA)
        face = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC)
        oval = _oval(side)
        self._face, self._background_share = (face * oval + 0.5).astype(np.float32), 1 - oval
        random = np.random.default_rng(1)
        self._noise = [_noise_plane(random, width, height) for _ in range(_NOISE_PLANES)]
        self._drawn = 0

    @property
    def rate(self) -> Fraction:
        """See `OpenSource.rate`."""
        return self._rate

    @property
    def sar(self) -> Fraction:
        """See `OpenSource.sar`."""
        return Fraction(1)

    def events(self) -> Iterator[DecodedPicture]:
        """A picture every 1 / rate s until `stopping` is set; a slow reader skips pictures."""
        began, index = time.monotonic(), 0
        while not self._stopping.wait(max(0.0, began + index / self._rate - time.monotonic())):
            now = time.monotonic()
            at_s = float(index / self._rate)
            yield DecodedPicture(self._picture(at_s, now), at_s, now)
            index = max(index + 1, int((time.monotonic() - began) * self._rate))

    def _picture(self, at_s: float, now_s: float) -> av.VideoFrame:
        rgb = self._scene.copy()
        height, width = rgb.shape[:2]
        side, angle = len(self._face), 2 * np.pi * at_s / _ROUND_S
        x = round((width - side) * (0.5 + 0.4 * np.cos(angle)))
        y = round((height - _STRIP_HEIGHT - side) * (0.5 + 0.4 * np.sin(2 * angle)))
        square = rgb[y : y + side, x : x + side]
        square[...] = cv2.multiply(square, self._background_share, dtype=cv2.CV_32F) + self._face
        planes = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420), np.uint8)
        luma = planes[:height]
        cv2.add(luma, self._noise[self._drawn % _NOISE_PLANES], luma, dtype=cv2.CV_8U)
        self._drawn += 1
        time_strip.burn(luma, int(now_s * 1000))
        picture = av.VideoFrame.from_ndarray(planes, "yuv420p")
        picture.color_range, picture.colorspace = 1, 6  # OpenCV converts to BT.601, limited range
        return picture


def _oval(side: int) -> np.ndarray:
    """Opacity of the portrait, f32[side,side,3] in 0..1: 1 in the middle, 0 along the edges."""
    x, y = np.meshgrid(*[(np.arange(side) + 0.5) / side] * 2)
    distance = np.hypot((x - 0.5) / 0.46, (y - 0.48) / 0.5)
    edge = np.clip((1 - distance) / 0.35, 0, 1)
    return np.repeat((edge * edge * (3 - 2 * edge))[..., None], 3, axis=2).astype(np.float32)


def _noise_plane(random: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Noise i16[height,width], slightly blurred, as a small sensor's is."""
    fine = cv2.GaussianBlur(random.standard_normal((height, width), np.float32), (3, 3), 0.6)
    levels: np.ndarray = np.rint(fine * (_NOISE_DEVIATION / fine.std()))
    return levels.astype(np.int16)
