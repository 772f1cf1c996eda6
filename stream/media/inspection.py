"""The contents of a file, as `gpen-stream probe` shows them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NotRequired, TypedDict

import av
from av.stream import Stream

from stream.media.container import open_video, video_stream
from stream.media.images import is_image, read_image
from stream.media.probe import probe


class ImageFacts(TypedDict):
    """Facts about a picture; the keys are those of `probe --json`."""

    file: str
    size: str
    upright: str
    pixel_format: str
    icc_profile_bytes: int
    exif_bytes: int


class RestoredFacts(TypedDict):
    """Facts about the video stream that would be restored."""

    codec: str
    size: str
    upright: str
    sample_aspect_ratio: str
    pixel_format: str
    matrix_transfer_primaries: list[int]
    full_range: bool
    chroma_location: str
    field_order: str
    frame_rate: str
    time_base: str
    frames: int
    start_pts: int
    mastering_display: bool
    content_light: bool


class StreamFacts(TypedDict):
    """Facts about one stream of a file."""

    type: str
    codec: str
    language: str
    what_happens: str
    sound: NotRequired[str]
    size: NotRequired[str]


class VideoFacts(TypedDict):
    """Facts about a video file."""

    file: str
    restored: RestoredFacts
    container: str
    duration_s: float
    bit_rate: int
    chapters: int
    metadata: dict[str, str]
    stream: list[StreamFacts]


def describe(path: Path) -> ImageFacts | VideoFacts:
    """Facts about a video or a picture. Raises SourceError."""
    return _describe_image(path) if is_image(path) else _describe_video(path)


def render(facts: Mapping[str, object], indent: str = "") -> str:
    """The facts as indented text, one in each line."""
    lines = []
    for key, value in facts.items():
        if isinstance(value, dict):
            lines.append(f"{indent}{key}:")
            lines.append(render(value, indent + "  "))
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for i, item in enumerate(value):
                lines.append(f"{indent}{key} {i}:")
                lines.append(render(item, indent + "  "))
        else:
            lines.append(f"{indent}{key}: {value}")
    return "\n".join(line for line in lines if line)


def _describe_image(path: Path) -> ImageFacts:
    still = read_image(path)
    frame = still.frame(0)
    width, height = frame.view.upright_size
    return {
        "file": str(path),
        "size": f"{frame.view.width}x{frame.view.height}",
        "upright": f"{width:g}x{height:g}",
        "pixel_format": frame.picture.format.name,
        "icc_profile_bytes": len(still.icc or b""),
        "exif_bytes": len(still.exif or b""),
    }


def _describe_video(path: Path) -> VideoFacts:
    info = probe(path)
    width, height = info.view.upright_size
    restored: RestoredFacts = {
        "codec": info.codec,
        "size": f"{info.view.width}x{info.view.height}",
        "upright": f"{width:g}x{height:g}",
        "sample_aspect_ratio": str(info.view.sar),
        "pixel_format": info.pix_fmt,
        "matrix_transfer_primaries": [info.colour.matrix, info.colour.transfer, info.colour.primaries],
        "full_range": info.colour.range_full,
        "chroma_location": info.chroma_location,
        "field_order": info.field_order,
        "frame_rate": str(info.rate),
        "time_base": str(info.time_base),
        "frames": info.frames,
        "start_pts": info.start_pts,
        "mastering_display": bool(info.mastering_display),
        "content_light": bool(info.content_light),
    }
    with open_video(path) as container:
        chosen = video_stream(container).index
        length = container.duration
        return {
            "file": str(path),
            "restored": restored,
            "container": container.format.name,
            "duration_s": round(length / av.time_base, 3) if length else info.duration_s,
            "bit_rate": container.bit_rate,
            "chapters": len(container.chapters()),
            "metadata": dict(container.metadata),
            "stream": [_describe_stream(stream, chosen) for stream in container.streams],
        }


def _describe_stream(stream: Stream, chosen: int) -> StreamFacts:
    codec = stream.codec_context
    facts: StreamFacts = {
        "type": stream.type,
        "codec": codec.name if codec is not None else "none",
        "language": stream.language or "und",
        "what_happens": "restored" if stream.index == chosen else "copied",
    }
    if isinstance(codec, av.AudioCodecContext):
        facts["sound"] = f"{codec.sample_rate} Hz, {codec.layout.name}"
    elif isinstance(codec, av.VideoCodecContext):
        facts["size"] = f"{codec.width}x{codec.height}"
    return facts
