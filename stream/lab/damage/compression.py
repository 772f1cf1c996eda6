"""Compression by JPEG and by real video codecs through PyAV. Pictures are RGB u8[H,W,3]."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

import av
import cv2
import numpy as np

from stream.picture.jpeg import encode_jpeg

CODECS = ("h264", "h265", "mpeg2")
_FRAME_RATE = 25
_BLOCK, _LEAST_SIDE = 32, 64
"""Sides are multiples of the block and at least the least side, px."""
_ENCODERS = {"h264": "libx264", "h265": "libx265", "mpeg2": "mpeg2video"}
_DECODERS = {"h264": "h264", "h265": "hevc", "mpeg2": "mpeg2video"}


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """The picture after JPEG compression with `quality` 1..100 and 4:2:0 chroma."""
    data = np.frombuffer(encode_jpeg(image, int(quality)), np.uint8)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None  # OpenCV reads what it has just written
    return np.ascontiguousarray(decoded[..., ::-1])


def video(frames: Sequence[np.ndarray], codec: str, rate: int) -> list[np.ndarray]:
    """The frames of a clip after compression by one of `CODECS`, with 4:2:0 chroma and one thread.

    `rate` is the quantiser: the CRF of x264 and x265 (0..51) or the scale of MPEG-2 (1..31). The first
    frame is a keyframe; the others are predicted, some of them as B-frames. Frames are extended to a
    multiple of 32 px, at least 64, by mirroring them beyond the right and lower border: FFmpeg's scaler
    writes past the end of narrower rows, and x265 writes past its memory for smaller pictures.
    """
    rows, columns = frames[0].shape[:2]
    below, beside = (max(_LEAST_SIDE - side, -side % _BLOCK) for side in (rows, columns))
    height, width = rows + below, columns + beside
    encoder = _context(_ENCODERS[codec], "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, _FRAME_RATE), Fraction(_FRAME_RATE)
    encoder.thread_count = 1
    encoder.options = _options(codec, rate)
    if codec == "mpeg2":
        encoder.max_b_frames = 2
        encoder.gop_size = 12
    # The keyframe carries the headers, so the decoder needs no extradata.
    decoder = _context(_DECODERS[codec], "r")
    decoder.thread_count = 1
    packets = []
    for i, picture in enumerate(frames):
        extended = cv2.copyMakeBorder(picture, 0, below, 0, beside, cv2.BORDER_REFLECT)
        frame = av.VideoFrame.from_ndarray(np.asarray(extended, np.uint8)).reformat(format="yuv420p")
        frame.pts, frame.time_base = i, encoder.time_base
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoded = [frame for packet in packets for frame in decoder.decode(packet)]
    decoded += decoder.decode(None)
    assert len(decoded) == len(frames), f"{codec}: {len(frames)} in, {len(decoded)} out"
    return [frame.to_ndarray(format="rgb24")[:rows, :columns] for frame in decoded]


def _context(name: str, mode: Literal["r", "w"]) -> av.VideoCodecContext:
    context = av.CodecContext.create(name, mode)
    assert isinstance(context, av.VideoCodecContext), name
    return context


def _options(codec: str, rate: int) -> dict[str, str]:
    if codec == "h264":
        # With mbtree x264 is not reproducible, even with one thread: half of these small clips differed.
        return {"preset": "veryfast", "crf": str(rate), "x264-params": "no-mbtree=1:log-level=error"}
    if codec == "h265":
        quiet = "log-level=error:pools=none:frame-threads=1:rc-lookahead=4:bframes=2"
        return {"preset": "ultrafast", "crf": str(rate), "x265-params": quiet}
    return {"qmin": str(rate), "qmax": str(rate)}
