"""Grey pictures and videos made ready for a result in colour."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stream.media.images import Still, jpeg_segments, png_chunks
from stream.picture import pixel_formats
from stream.picture.frame import StreamInfo


def coloured_still(still: Still) -> Still:
    """A grey picture as an RGB one, without its profile, which holds for grey only; others as they are."""
    channels = still.pixels.shape[2]
    if still.mode not in ("L", "LA") and channels > 1:
        return still
    kept = still.kept.copy()
    if still.format == "JPEG":
        kept["extra"] = b"".join(
            segment for _, segment in jpeg_segments(kept["extra"]) if segment[4:16] != b"ICC_PROFILE\0"
        )
        kept["subsampling"] = 0
    elif still.format == "PNG":
        kept["chunks"] = b"".join(chunk for name, chunk in png_chunks(kept["chunks"]) if name != b"iCCP")
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
    pix_fmt = pixel_formats.in_colour(info.pix_fmt)
    if pix_fmt == info.pix_fmt:
        return info
    matrix = info.colour.matrix or 2  # 0 stands for RGB
    return replace(info, pix_fmt=pix_fmt, colour=replace(info.colour, matrix=matrix))
