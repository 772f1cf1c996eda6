"""Conversion of a whole picture to upright RGB bytes, in integers."""

from __future__ import annotations

import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from stream.picture.frame import Frame

_KNOWN_MATRICES = (1, 5, 6, 9)


def upright_rgb(frame: Frame, reformatter: VideoReformatter) -> np.ndarray:
    """The picture as a viewer sees it: RGB u8[h,w,3], upright, with square pixels."""
    picture = reformatter.reformat(
        frame.picture,
        format="rgb24",
        src_colorspace=matrix_of(frame),
        src_color_range=2 if frame.colour.range_full else 1,
        dst_color_range=2,
        threads=1,
    )
    rgb = np.ascontiguousarray(frame.view.orient(picture.to_ndarray()))
    size = tuple(max(1, round(side)) for side in frame.view.upright_size)
    return rgb if size == rgb.shape[1::-1] else cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR)


def matrix_of(frame: Frame) -> int:
    """Matrix coefficients of the samples, by H.273; an unspecified one is chosen by size, as players do."""
    matrix = frame.colour.matrix
    if matrix in _KNOWN_MATRICES:
        return matrix
    return 1 if frame.colour.weights(frame.view.width, frame.view.height)[0] < 0.25 else 6
