"""Encodes live pictures as H.264 without delay, in the camera's process."""

from __future__ import annotations

from fractions import Fraction

import av
from av.codec.context import Flags
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from stream.config_live import LiveEncodingSettings
from stream.errors import EncodeError
from stream.live.packets import LIVE_TIME_BASE, Packet, VideoFormat
from stream.picture import pixel_formats
from stream.picture.frame import Frame, View
from stream.picture.upright import matrix_of

_BITS_PER_PIXEL = 0.12
"""Limits the bit rate where none is set: to 0.7 Mbit/s for 360p25, to 6.2 for 1080p25."""
_MIN_BIT_RATE = 500_000


class LiveEncoder:
    """x264 for one epoch. Each picture comes out at once as one packet: upright, 4:2:0, limited range."""

    def __init__(self, frame: Frame, rate: Fraction, live: LiveEncodingSettings, threads: int) -> None:
        self._rate = rate
        self._size, self._sar = _coded_size(frame)
        self._reformatter = VideoReformatter()
        self._context = context = av.CodecContext.create("libx264", "w")
        context.width, context.height = self._size
        context.pix_fmt = "yuv420p"
        context.sample_aspect_ratio = self._sar
        context.time_base, context.framerate = LIVE_TIME_BASE, self._rate
        context.thread_count = threads
        context.flags |= Flags.global_header
        self._matrix = matrix_of(frame)
        context.colorspace, context.color_range = self._matrix, 1
        context.color_trc, context.color_primaries = frame.colour.transfer, frame.colour.primaries
        max_rate = live.bit_rate * 1000 or self._default_bit_rate()
        context.options = {
            "tune": "zerolatency",
            "preset": live.preset,
            "crf": str(live.crf),
            "maxrate": str(max_rate),
            "bufsize": str(max_rate),
            "forced-idr": "1",
            "g": "100000",  # keyframes by time, not by count: rates vary
            "sc_threshold": "0",
        }
        try:
            context.open()
        except (av.FFmpegError, ValueError) as error:
            reason = (isinstance(error, av.FFmpegError) and error.strerror) or error
            raise EncodeError(
                f"libx264: cannot encode {self._size[0]}x{self._size[1]} with live.preset {live.preset} "
                f"({reason}); change it"
            ) from error

    @property
    def frame_duration(self) -> int:
        """Nominal duration of a frame, in LIVE_TIME_BASE."""
        return round(1 / (self._rate * LIVE_TIME_BASE))

    @property
    def format(self) -> VideoFormat:
        """The description that a muxer needs."""
        return VideoFormat("h264", *self._size, self._rate, self._context.extradata or b"")

    def encode(self, frame: Frame, pts: int, keyframe: bool) -> list[Packet]:
        """The picture's packets, normally one. `pts` must rise. The frame's own picture may be changed.

        Raises EncodeError.
        """
        picture = self._converted(frame)
        picture.pts, picture.time_base = pts, LIVE_TIME_BASE
        picture.pict_type = PictureType.I if keyframe else PictureType.NONE
        try:
            coded = self._context.encode(picture)
        except av.FFmpegError as error:
            raise EncodeError(f"libx264: {error.strerror}; start again with another live.preset") from error
        packets = []
        for part in coded:
            assert part.pts is not None and part.dts is not None, "x264 gives each packet the picture's time"
            duration, arrived_at_s = self.frame_duration, frame.arrived_at_s
            packets.append(
                Packet(True, bytes(part), part.pts, part.dts, duration, part.is_keyframe, arrived_at_s)
            )
        return packets

    def _default_bit_rate(self) -> int:
        width, height = self._size
        return max(_MIN_BIT_RATE, round(width * height * self._rate * _BITS_PER_PIXEL))

    def _converted(self, frame: Frame) -> av.VideoFrame:
        picture, full = frame.picture, frame.colour.range_full
        fits = picture.format.name == "yuv420p" and not full and not _turned(frame.view)
        if fits and (picture.width, picture.height) == self._size:
            return picture
        width, height = self._size if _is_upright(frame.view) else self._size[::-1]
        result = self._reformatter.reformat(
            picture,
            width=width,
            height=height,
            format="yuv420p",
            src_colorspace=matrix_of(frame),
            dst_colorspace=self._matrix,
            src_color_range=2 if full else 1,
            dst_color_range=1,
            threads=1,
        )
        return _upright(result, frame.view) if _turned(frame.view) else result


def _coded_size(frame: Frame) -> tuple[tuple[int, int], Fraction]:
    """Upright width and height, which are even as 4:2:0 needs it, and the pixels' aspect ratio."""
    view = frame.view
    sar = view.sar or Fraction(1)
    size = max(2, view.width & ~1), max(2, view.height & ~1)
    return (size, sar) if _is_upright(view) else (size[::-1], 1 / sar)


def _is_upright(view: View) -> bool:
    """Whether stored rows are rows of the upright picture, which may be mirrored or upside down."""
    return bool(view.turn[0][0])


def _turned(view: View) -> bool:
    return view.turn != ((1, 0), (0, 1))


def _upright(picture: av.VideoFrame, view: View) -> av.VideoFrame:
    """A yuv420p picture of even size, turned upright plane by plane."""
    layout = pixel_formats.layout_of("yuv420p")
    assert layout is not None, "yuv420p is handled in place"
    planes = [view.orient(pixel_formats.view(picture, layout, index)) for index in range(3)]
    height, width = planes[0].shape
    result = av.VideoFrame(width, height, "yuv420p")
    for index, plane in enumerate(planes):
        pixel_formats.view(result, layout, index)[...] = plane
    return result
