"""Grey pictures and videos made ready for a result in colour."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stream import pixels
from stream.frame import StreamInfo
from stream.images import Still


def coloured_still(still: Still) -> Still:
    """A grey picture as an RGB one, without its profile, which holds for grey only; others as they are."""
    channels = still.pixels.shape[2]
    if still.mode not in ("L", "LA") and channels > 1:
        return still
    kept = dict(still.kept)
    if still.format == "JPEG":
        kept["extra"] = _without_profile(kept["extra"])
        kept["subsampling"] = 0
    elif still.format == "PNG":
        kept["chunks"] = _without_profile_chunk(kept["chunks"])
    return replace(
        still,
        pixels=np.repeat(still.pixels, 3, axis=2) if channels == 1 else still.pixels,
        mode={"L": "RGB", "LA": "RGBA"}.get(still.mode, still.mode),
        icc=None,
        kept=kept,
        note=f"{still.path}: is grey; the result is in colour",
    )


def coloured_stream(info: StreamInfo) -> StreamInfo:
    """A video as it will be once `FileSource` has given it colour; one that has it as it is."""
    pix_fmt = pixels.in_colour(info.pix_fmt)
    if pix_fmt == info.pix_fmt:
        return info
    matrix = info.colour.matrix or 2  # 0 stands for RGB
    return replace(info, pix_fmt=pix_fmt, colour=replace(info.colour, matrix=matrix))


def _without_profile(segments: bytes) -> bytes:
    """JPEG's segments without those of the colour profile."""
    kept, at = b"", 0
    while at + 4 <= len(segments):
        end = at + 2 + int.from_bytes(segments[at + 2 : at + 4], "big")
        if segments[at + 4 : at + 16] != b"ICC_PROFILE\0":
            kept += segments[at:end]
        at = end
    return kept


def _without_profile_chunk(chunks: bytes) -> bytes:
    """PNG's chunks without the colour profile."""
    kept, at = b"", 0
    while at + 12 <= len(chunks):
        end = at + 12 + int.from_bytes(chunks[at : at + 4], "big")
        if chunks[at + 4 : at + 8] != b"iCCP":
            kept += chunks[at:end]
        at = end
    return kept
