"""Facts about a video file, from its container and its first picture."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideDataType

from stream.errors import SourceError
from stream.media.container import Damage, decoded_pictures, open_video, video_stream
from stream.picture.colour import Colour
from stream.picture.frame import StreamInfo, View

CHROMA_LOCATIONS = ("left", "center", "topleft", "top", "bottomleft", "bottom")
"""FFmpeg's names in the order of H.264's and HEVC's chroma_sample_loc_type."""
_FIELD_ORDERS = {2: "tt", 3: "bb", 4: "tb", 5: "bt"}


def probe(path: str | Path) -> StreamInfo:
    """Facts about the main video stream, its first picture decoded. Raises SourceError."""
    path = Path(path)
    with open_video(path) as container:
        stream = video_stream(container)
        location = _chroma_location(path, stream.index, stream.codec_context.name)
        picture = next(decoded_pictures(container, stream, Damage()), None)
        if picture is None:
            raise SourceError(f"{path}: not one picture of its video can be decoded; is it whole?")
        return _describe(path, container, stream, picture, location)


def _describe(
    path: Path, container: InputContainer, stream: av.VideoStream, picture: av.VideoFrame, location: str
) -> StreamInfo:
    codec, unit = stream.codec_context, stream.time_base
    assert unit is not None, "FFmpeg gives every stream a time base"
    side = side_data(picture)
    matrix = side.get(SideDataType.DISPLAYMATRIX, b"")
    sar = stream.sample_aspect_ratio or codec.sample_aspect_ratio or Fraction(1)
    name = picture.format.name
    seconds = float(stream.duration * unit) if stream.duration else 0.0
    if not seconds and container.duration:
        seconds = container.duration / av.time_base
    return StreamInfo(
        path=str(path),
        codec=codec.name,
        pix_fmt=name,
        view=View(picture.width, picture.height, sar, turn_of(matrix)),
        colour=colour_of(picture),
        time_base=unit,
        rate=stream.average_rate or stream.base_rate or Fraction(0),
        frames=stream.frames,
        start_pts=stream.start_time or 0,
        duration_s=seconds,
        bit_rate=codec.bit_rate or container.bit_rate or 0,
        chroma_location=location,
        field_order=_FIELD_ORDERS.get(int(codec.field_order), "progressive"),
        mastering_display=side.get(SideDataType.MASTERING_DISPLAY_METADATA, b""),
        content_light=side.get(SideDataType.CONTENT_LIGHT_LEVEL, b""),
        display_matrix=matrix,
    )


def side_data(picture: av.VideoFrame) -> dict[SideDataType, bytes]:
    """A picture's side data by kind, each as the bytes of FFmpeg's structure."""
    items: Iterable[SideData] = picture.side_data  # type: ignore[assignment]  # PyAV's stub names a TypedDict
    return {item.type: bytes(item) for item in items}


def colour_of(picture: av.VideoFrame) -> Colour:
    """A picture's colour tags. Where it names no range, the pixel format decides."""
    name = picture.format.name
    full = picture.color_range == 2 or name.startswith("yuvj")
    if picture.color_range == 0 and (picture.format.is_rgb or name.startswith("gray")):
        full = True
    return Colour(picture.colorspace, picture.color_trc, picture.color_primaries, full)


def turn_of(matrix: bytes) -> tuple[tuple[int, int], tuple[int, int]]:
    """The linear part of a display matrix (see `View.turn`), if it only turns by quarters and mirrors.

    Else, and without a matrix, the identity.
    """
    if len(matrix) < 36:
        return (1, 0), (0, 1)
    a, b, _, c, d = struct.unpack("=5i", matrix[:20])
    turn = (_sign(a), _sign(c)), (_sign(b), _sign(d))
    determinant = turn[0][0] * turn[1][1] - turn[0][1] * turn[1][0]
    whole = abs(turn[0][0]) + abs(turn[0][1]) == 1
    return turn if whole and abs(determinant) == 1 else ((1, 0), (0, 1))


def _sign(fixed: int) -> int:
    return round(fixed / 65536) if abs(fixed) < 2 * 65536 else 0


def _chroma_location(path: Path, index: int, codec: str) -> str:
    """Chroma sample location from the bitstream's header, which PyAV does not give.

    FFmpeg's `trace_headers` filter logs the parameter sets of the first packet.
    """
    if codec in ("mjpeg", "mpeg1video"):
        return "center"
    if codec not in ("h264", "hevc", "libdav1d", "av1"):
        return "unspecified"
    level = av.logging.get_level()
    try:
        with av.open(str(path.absolute()), options={"protocol_whitelist": "file"}) as container:
            stream = container.streams[index]
            av.logging.set_level(av.logging.INFO)  # not before: opening would print warnings
            with av.logging.Capture() as lines:
                trace = av.bitstream.BitStreamFilterContext("trace_headers", in_stream=stream)
                trace.filter(next(container.demux(stream)))
    except (av.FFmpegError, StopIteration):
        return "unspecified"  # the header is damaged; decoding will report it
    finally:
        av.logging.set_level(level)
    text = "\n".join(line[2] for line in lines)
    if found := re.search(r"chroma_sample_loc_type_top_field\s+\S+ = (\d)", text):
        return CHROMA_LOCATIONS[min(int(found[1]), 5)]
    if found := re.search(r"chroma_sample_position\s+\S+ = (\d)", text):
        return {"1": "left", "2": "topleft"}.get(found[1], "unspecified")
    return "unspecified"
