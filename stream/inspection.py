"""What is in a file, for `gpen-stream probe`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av

from stream.container import main_stream, open_video
from stream.images import is_image, read_image
from stream.probe import probe


def describe(path: Path) -> dict[str, Any]:
    """Facts about a video or a picture as plain values. Raises SourceError."""
    return _describe_image(path) if is_image(path) else _describe_video(path)


def render(facts: dict[str, Any], indent: str = "") -> str:
    """The facts as indented text, one a line."""
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


def _describe_image(path: Path) -> dict[str, Any]:
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


def _describe_video(path: Path) -> dict[str, Any]:
    info = probe(path)
    width, height = info.view.upright_size
    facts: dict[str, Any] = {
        "file": str(path),
        "restored": {
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
        },
    }
    with open_video(path) as container:
        chosen = main_stream(container).index
        facts["container"] = container.format.name
        facts["duration_s"] = (
            round(container.duration / av.time_base, 3) if container.duration else info.duration_s
        )
        facts["bit_rate"] = container.bit_rate
        facts["chapters"] = len(container.chapters())
        facts["metadata"] = dict(container.metadata)
        facts["stream"] = [_describe_stream(stream, chosen) for stream in container.streams]
    return facts


def _describe_stream(stream, chosen: int) -> dict[str, Any]:
    codec = stream.codec_context
    facts = {
        "type": stream.type,
        "codec": codec.name if codec is not None else "none",
        "language": stream.language or "und",
        "what_happens": "restored" if stream.index == chosen else "copied",
    }
    if stream.type == "audio":
        facts["sound"] = f"{codec.sample_rate} Hz, {codec.layout.name}"
    if stream.type == "video" and codec is not None:
        facts["size"] = f"{codec.width}x{codec.height}"
    return facts
