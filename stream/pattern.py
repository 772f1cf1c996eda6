"""`test:`: a picture with a face that moves, and the time burnt into its lower edge."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from stream import timestrip
from stream.config_live import Source
from stream.connection import Shot

_FACE = Path(__file__).with_name("pattern.jpg")
"""A portrait from samples/faces, in the public domain."""
_LAP_S = 12.0
"""How long the face takes for one round."""


class Pattern:
    """Pictures drawn in real time; to the capture it looks like a `Connection`.

    The strip holds `time.monotonic()` in ms, so that any client on this machine can read a delay.
    """

    codec, transport, audio = "rawvideo", "", None
    is_paced = False
    before_keyframe = corrupt_packets = 0

    def __init__(self, source: Source, stopping: threading.Event) -> None:
        width, height = map(int, (source.size or "640x360").split("x"))
        width, height = max(160, width // 2 * 2), max(64, height // 2 * 2)
        self.rate = Fraction(source.rate or 25).limit_denominator(1001)
        self.sar = Fraction(1)
        self.notes: list[str] = []
        self._stopping = stopping
        ramp = np.linspace(60, 150, width)[None, :] + np.linspace(0, 60, height)[:, None]
        self._scene = np.stack([ramp * 0.7, ramp * 0.9, ramp], axis=-1).astype(np.uint8)
        side = min(width, height - 16) * 3 // 4
        face = cv2.cvtColor(cv2.imread(str(_FACE)), cv2.COLOR_BGR2RGB)
        self._face = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)

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
        rgb[y : y + side, x : x + side] = self._face
        planes = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)
        timestrip.burn(planes[:height], int(now_s * 1000))
        picture = av.VideoFrame.from_ndarray(planes, "yuv420p")
        picture.color_range, picture.colorspace = 1, 6  # OpenCV's is BT.601, limited
        return picture
