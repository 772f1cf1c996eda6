"""Frames and faces made of arrays, and the portraits of the samples."""

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
    """RGB u8 [h,w,3] as a limited-range BT.709 frame."""
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
    picture = picture.reformat(format=pix_fmt, dst_colorspace=1)
    view = view or View(rgb.shape[1], rgb.shape[0])
    return Frame(index, Timestamp(index, Fraction(1, 25)), picture, view, Colour(1, 1, 1, False))


def face_at(x: float, y: float, size: float, track_id=0) -> Face:
    """A face whose FFHQ crop is the square of `size` px from (x, y)."""
    landmarks = (geometry.template("ffhq_512", 1) * size + (x, y)).astype(np.float32)
    box = np.array([x, y, x + size, y + size], np.float32)
    return Face(track_id, box, landmarks, 0.9, coasted=False, confidence=1.0)


def luma(work: FrameWork) -> np.ndarray:
    return pixel_formats.view(work.frame.picture, work.frame.layout, 0).astype(np.float32)


PORTRAITS = sorted(FACES.glob("*.jpg"))


def portrait(size: int, path: Path = PORTRAITS[0]) -> np.ndarray:
    image = cv2.imread(str(path))[..., ::-1]
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if size < 288 else cv2.INTER_CUBIC)
