"""Frames and faces made of arrays, portraits of the samples, and an engine whose result is known."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from conftest import SAMPLES

from stream.picture import geometry, pixel_formats
from stream.picture.colour import Colour
from stream.picture.face import Face, FrameWork
from stream.picture.frame import Frame, Timestamp, View

FACES = SAMPLES / "faces"


def frame(rgb: np.ndarray, index=0, pix_fmt="yuv444p", view=None) -> Frame:
    """A limited-range BT.709 frame of RGB u8[h,w,3]."""
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
    picture = picture.reformat(format=pix_fmt, dst_colorspace=1)
    view = view or View(rgb.shape[1], rgb.shape[0])
    return Frame(index, Timestamp(index, Fraction(1, 25)), picture, view, Colour(1, 1, 1, False))


def rgb_frame(rgb: np.ndarray, index=0, **view) -> Frame:
    """A frame that holds RGB u8[h,w,3] itself; `view` are fields of its `View`."""
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24")
    shown = View(rgb.shape[1], rgb.shape[0], **view)
    return Frame(index, Timestamp(index, Fraction(1, 25)), picture, shown, Colour(1, 1, 1, True))


def face_at(x: float, y: float, size: float, track_id=0) -> Face:
    """A face whose FFHQ crop is the square of `size` px with its first corner at (x, y)."""
    landmarks = (geometry.template("ffhq_512", 1) * size + (x, y)).astype(np.float32)
    box = np.array([x, y, x + size, y + size], np.float32)
    return Face(track_id, box, landmarks, 0.9, coasted=False, confidence=1.0)


def luma(work: FrameWork) -> np.ndarray:
    """A copy of the frame's luma, f32[h,w]."""
    return pixel_formats.view(work.frame.picture, work.frame.layout, 0).astype(np.float32)


PORTRAITS = sorted(FACES.glob("*.jpg"))


def portrait(size: int, path: Path = PORTRAITS[0]) -> np.ndarray:
    """A portrait of the samples, RGB u8[size,size,3]."""
    image = cv2.imread(str(path))[..., ::-1]
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if size < 288 else cv2.INTER_CUBIC)


class Brighter:
    """An engine that adds 0.1 to each crop and keeps what it was given.

    The crop number `failing`, counted from 0, comes out with a NaN.
    """

    def __init__(self, failing: int | None = None):
        self.seen: list[np.ndarray] = []
        self.batches: list[int] = []
        self._failing = failing

    def restore(self, crops: np.ndarray) -> np.ndarray:
        self.batches.append(len(crops))
        out = crops + np.float32(0.1)
        for i in range(len(crops)):
            if len(self.seen) == self._failing:
                out[i, 0, 0, 0] = np.nan
            self.seen.append(crops[i])
        return out

    def close(self): ...
