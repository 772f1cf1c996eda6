"""The JPEG encoder of the project: previews, snapshots, MJPEG streams, pages and damage all use it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from stream.errors import EncodeError


def encode_jpeg(pixels: np.ndarray, quality: int, options: Sequence[int] = ()) -> bytes:
    """A JPEG file of RGB u8[h,w,3] or grey u8[h,w].

    `quality` is libjpeg's, 0..100. `options` are further pairs of an OpenCV `IMWRITE_JPEG_*` flag and its
    value; without any, chroma is 4:2:0. Raises EncodeError for a picture that JPEG cannot hold.
    """
    image = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality, *options])
    if not done:
        raise EncodeError(
            f"JPEG: cannot encode {pixels.shape[1]}x{pixels.shape[0]} pixels; use a smaller picture"
        )
    return data.tobytes()
