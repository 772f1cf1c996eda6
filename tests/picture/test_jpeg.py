"""The JPEG encoder that every preview, snapshot, page and stream uses."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from stream.errors import EncodeError
from stream.picture.jpeg import encode_jpeg


def test_channels_are_rgb_and_a_grey_picture_has_one():
    red = np.zeros((16, 24, 3), np.uint8)
    red[..., 0] = 255

    decoded = cv2.imdecode(np.frombuffer(encode_jpeg(red, 95), np.uint8), cv2.IMREAD_UNCHANGED)
    grey = cv2.imdecode(np.frombuffer(encode_jpeg(red[..., 0], 95), np.uint8), cv2.IMREAD_UNCHANGED)

    assert decoded is not None and decoded.shape == (16, 24, 3)
    assert decoded[8, 8, 2] > 245 and decoded[8, 8, :2].max() < 10, "OpenCV decodes to BGR"
    assert grey is not None and grey.shape == (16, 24) and grey.min() > 250


def test_options_reach_the_encoder():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    full_chroma = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)

    assert len(encode_jpeg(noise, 80, full_chroma)) > 1.2 * len(encode_jpeg(noise, 80))
    assert len(encode_jpeg(noise, 90)) > len(encode_jpeg(noise, 60))


def test_a_picture_beyond_jpegs_limit_is_refused_in_one_line():
    with pytest.raises(EncodeError, match=r"^JPEG: cannot encode 8x70000 pixels; use a smaller picture$"):
        encode_jpeg(np.zeros((70000, 8, 3), np.uint8), 80)
