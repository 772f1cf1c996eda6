"""The time strip: a time is read back as it was drawn, after a codec too, and never guessed."""

from fractions import Fraction

import av
import numpy as np
import pytest

from stream.live.source import time_strip


def noisy(shape, seed=0):
    return np.random.default_rng(seed).integers(16, 235, shape, dtype=np.uint8)


@pytest.mark.parametrize("shape", [(360, 640), (120, 160), (1080, 1920), (481, 853), (16, 160)])
def test_a_time_comes_back_at_any_size_and_only_the_strip_is_touched(shape):
    luma = noisy(shape)
    before = luma.copy()
    time_strip.burn(luma, 3_123_456_789)
    assert time_strip.read(luma) == 3_123_456_789
    assert (luma[:-16] == before[:-16]).all()


def test_times_beyond_32_bits_wrap():
    luma = noisy((360, 640))
    time_strip.burn(luma, (1 << 32) + 5)
    assert time_strip.read(luma) == 5


def test_a_picture_without_a_strip_and_one_with_a_wrong_cell_give_none():
    luma = noisy((360, 640))
    assert time_strip.read(luma) is None
    time_strip.burn(luma, 77)
    luma[-16:, :16] = 251 - luma[-16:, :16]
    assert time_strip.read(luma) is None


def test_too_small_a_picture_is_refused():
    with pytest.raises(ValueError, match="160x16"):
        time_strip.burn(noisy((100, 150)), 1)


@pytest.mark.parametrize(("codec", "options"), [("libx264", {"crf": "40"}), ("mjpeg", {})])
def test_every_time_survives_a_codec_at_low_quality(codec, options):
    context = av.CodecContext.create(codec, "w")
    context.width, context.height = 640, 360
    context.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    context.time_base, context.options = Fraction(1, 25), options
    if codec == "mjpeg":
        context.qmin = context.qmax = 31
    reader = av.CodecContext.create("h264" if codec == "libx264" else codec, "r")
    wanted, got = [], []
    for i in range(20):
        planes = np.vstack([noisy((360, 640), i), np.full((180, 640), 128, np.uint8)])
        time_strip.burn(planes[:360], 1_000_000 + 40 * i)
        wanted.append(1_000_000 + 40 * i)
        frame = av.VideoFrame.from_ndarray(planes, "yuv420p").reformat(format=context.pix_fmt)
        frame.pts, frame.time_base = i, Fraction(1, 25)
        for packet in context.encode(frame):
            got += [time_strip.read(p.to_ndarray()[:360]) for p in reader.decode(packet)]
    for packet in context.encode(None):
        got += [time_strip.read(p.to_ndarray()[:360]) for p in reader.decode(packet)]
    got += [time_strip.read(p.to_ndarray()[:360]) for p in reader.decode(None)]
    assert got == wanted
