"""The video: A and B in one picture, A's time stamps and everything beside its pictures kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np

from stream.config import Encode
from stream.errors import SourceError
from stream.lab.compare.medium import Medium, at_size, signal
from stream.lab.compare.pairs import paired, slack
from stream.media.encode import FileSink, OutputOptions
from stream.picture import pixel_formats
from stream.picture.colour import Colour, network_to_hdr
from stream.picture.face import FrameWork
from stream.picture.frame import Frame, StreamInfo, Timestamp, View

_CRF = 16
_LINE = 1 / 400
"""Width of the divider, as a part of the picture's; at least 2 px."""
_WHITE = np.full(3, 0.9, np.float32)
"""Of the divider, as the networks see it: diffuse white in HDR."""


def write(
    a: Medium, b: Medium, size: tuple[int, int], destination: Path, layout: str, overwrite: bool,
    tick: Callable[[int], None] = lambda count: None,
) -> list[str]:  # fmt: skip
    """Write A and B as one video; what could not be kept, in words.

    `split`: the left half of A and the right half of B, a white line between. `side`: A left of B.
    Each frame of A is there at its own time, B's frame of that time beside it, or the one before
    where B has none. Sound, subtitles and chapters are A's, copied. H.264, 4:2:0, 8 bits; HDR stays
    HDR, in A's own codec. Raises EncodeError and leaves no file then.
    """
    assert a.info is not None and b.info is not None, "both are videos"
    info = _canvas_info(a.info, size, layout)
    encode = Encode() if info.colour.is_hdr else Encode(codec="libx264", crf=_CRF)
    options = OutputOptions(
        overwrite=overwrite,
        allow_loss=True,
        start_s=a.start_s or None,
        duration_s=a.duration_s,
        same_pictures=False,
    )
    sink = FileSink(info, destination, encode, options)
    # Of one signal, what is written is what was read: an HDR picture keeps its highlights.
    own = _signal_of(a.info) == _signal_of(b.info)
    white = network_to_hdr(_WHITE, info.colour) if own and info.colour.is_hdr else _WHITE
    missing = 0
    held: np.ndarray | None = None
    try:
        sink.open()
        for one, other in paired(a.pictures(), b.pictures(), slack(a, b)):
            if other is not None:
                held = at_size(signal(other.frame, own), size)
            if one is None:
                continue
            missing += other is None
            left = at_size(signal(one.frame, own), size)
            right = np.zeros_like(left) if held is None else held
            sink.process(FrameWork(_frame(one.frame, info, _joined(left, right, layout, white), own)))
            tick(sink.frames_out)
        if not sink.frames_out:
            raise SourceError(f"{a.path}: no frame in the part that is compared; see --start and --duration")
        sink.flush()
    except BaseException:
        sink.discard()
        raise
    sink.close()
    sink.finish(complete=True)
    notes = list(sink.notes)
    if missing:
        notes.append(
            f"{destination}: {missing} frames of A have none of B at their time; B's last one stands there"
        )
    return notes


def _signal_of(info: StreamInfo) -> tuple[int, int]:
    """Curve and primaries; all of SDR counts as one, as it does for the networks."""
    colour = info.colour
    return (colour.transfer, colour.primaries) if colour.is_hdr else (0, 0)


def _canvas_info(info: StreamInfo, size: tuple[int, int], layout: str) -> StreamInfo:
    """A's stream with pictures upright and of the canvas' size, which is even each way."""
    width, height = (side + side % 2 for side in (size[0] * (2 if layout == "side" else 1), size[1]))
    view, colour = View(width, height), info.colour
    if av.VideoFormat(info.pix_fmt, 16, 16).is_rgb:
        colour = Colour(1, colour.transfer, colour.primaries, range_full=True)
    else:
        colour = colour.enlarged((info.view.width, info.view.height), (width, height))
    pix_fmt = "yuv420p10le" if colour.is_hdr else "yuv420p"
    return replace(
        info, view=view, colour=colour, pix_fmt=pix_fmt, chroma_location="left",
        field_order="progressive", display_matrix=b"",
    )  # fmt: skip


def _joined(left: np.ndarray, right: np.ndarray, layout: str, white: np.ndarray) -> np.ndarray:
    """Both pictures f32[H,W,3] on one canvas; `white` f32[3] is the divider's colour."""
    if layout == "side":
        return np.hstack([left, right])
    middle = left.shape[1] // 2
    joined = left.copy()
    joined[:, middle:] = right[:, middle:]
    half = max(1, round(left.shape[1] * _LINE / 2))
    joined[:, middle - half : middle + half] = white
    return joined


def _frame(one: Frame, info: StreamInfo, rgb: np.ndarray, own: bool) -> Frame:
    """RGB f32[h,w,3] in 0..1 as a frame of the canvas, at the time of A's frame.

    `own`: in the canvas' own signal, else HDR as the networks see it.
    """
    view = info.view
    pad = view.height - rgb.shape[0], view.width - rgb.shape[1]
    if any(pad):
        rgb = cv2.copyMakeBorder(rgb, 0, pad[0], 0, pad[1], cv2.BORDER_REPLICATE)
    picture = av.VideoFrame(view.width, view.height, info.pix_fmt)
    time = Timestamp(one.time.pts, one.time.time_base)
    colour = replace(info.colour, transfer=1) if own else info.colour  # as SDR it is written as it is
    frame = Frame(one.index, time, picture, view, colour)
    layout = frame.layout
    for index in range(len(layout.components)):
        pixel_formats.view(picture, layout, index)[...] = 1 << (layout.depth - 1 + layout.shift)
    frame.blend((0, 0, view.width, view.height), rgb, np.ones(rgb.shape[:2], np.float32))
    return frame
