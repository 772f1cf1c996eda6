"""Videos with a known difference: real pictures, and the same with two changed patches."""

from fractions import Fraction
from itertools import islice

import av
import cv2
import numpy as np

LEFT, RIGHT = (60, 320, 96, 96), (500, 320, 96, 96)
"""x, y, width and height of the patches that differ in B, px."""
CHANGE = 48
"""Levels by which B is darker in the patches, in each channel."""
COUNT = 12
UNIT = Fraction(1, 1000)


def pictures(path, count=COUNT):
    """The first frames of a video, RGB u8[H,W,3], made bright enough that `changed` does not clip.

    The level of a grey square in the corner encodes the frame's number, see `number_in`.
    """
    with av.open(str(path)) as container:
        found = [frame.to_ndarray(format="rgb24") for frame in islice(container.decode(video=0), count)]
    found = [np.clip(rgb, CHANGE, 255) for rgb in found]
    for n, rgb in enumerate(found):
        rgb[:64, :64] = 60 + 12 * n
    return found


def number_in(level):
    """The frame's number, read from the level of its square."""
    return round((float(level) - 60) / 12)


def changed(rgb, amount=CHANGE):
    """The picture with both patches darker by `amount`."""
    other = rgb.copy()
    for x, y, width, height in (LEFT, RIGHT):
        other[y : y + height, x : x + width] -= np.uint8(amount)
    return other


def film(path, frames, times_ms=None, sound_of=None):
    """Write a lossless video (RGB H.264) with frames at `times_ms`, by default 40 ms apart.

    The sound is copied from the video `sound_of`.
    """
    times_ms = times_ms or [40 * n for n in range(len(frames))]
    with av.open(str(path), "w", container_options={"video_track_timescale": "1000"}) as output:
        stream = output.add_stream("libx264rgb", rate=25, options={"crf": "0", "preset": "ultrafast"})
        stream.pix_fmt = "rgb24"
        stream.codec_context.time_base = stream.time_base = UNIT
        stream.height, stream.width = frames[0].shape[:2]
        source = None if sound_of is None else av.open(str(sound_of))
        sound = source and output.add_stream_from_template(source.streams.audio[0])
        output.start_encoding()
        for rgb, time in zip(frames, times_ms, strict=True):
            picture = av.VideoFrame.from_ndarray(rgb)
            picture.pts, picture.time_base = time, UNIT
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
        if source is not None:
            for packet in source.demux(source.streams.audio[0]):
                if packet.size and packet.pts * packet.time_base * 1000 < times_ms[-1] + 40:
                    packet.stream = sound
                    output.mux(packet)
            source.close()
    return path


def read(path):
    """The times in s and the RGB pictures of a video."""
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def sound_packets(path):
    """The times and bytes of the packets of a video's first sound."""
    with av.open(str(path)) as container:
        packets = container.demux(container.streams.audio[0])
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in packets if packet.size]


def apart(one, other):
    """PSNR of two pictures, dB."""
    return cv2.PSNR(np.ascontiguousarray(one), np.ascontiguousarray(other))
