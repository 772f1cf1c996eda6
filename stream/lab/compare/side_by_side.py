"""The comparison video: A and B in one picture, with A's time stamps, sound, subtitles and chapters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np

from stream.config import Encode
from stream.errors import SourceError
from stream.lab.compare.medium import Medium, at_size, upright_signal
from stream.lab.compare.pairs import pair_by_time, tolerance_of
from stream.media.encode import FileSink, OutputOptions
from stream.picture import pixel_formats
from stream.picture.colour import Colour, network_to_hdr
from stream.picture.face import FrameWork
from stream.picture.frame import Frame, StreamInfo, Timestamp, View

_CRF = 16
_LINE = 1 / 400
"""Width of the divider as a share of the picture's width; at least 2 px are drawn."""
_WHITE = np.full(3, 0.9, np.float32)
"""Colour of the divider in the networks' signal; in HDR it is diffuse white."""


def write(
    a: Medium, b: Medium, size: tuple[int, int], destination: Path, layout: str, overwrite: bool,
    on_frame: Callable[[int], None] = lambda count: None,
) -> list[str]:  # fmt: skip
    """Write A and B as one video; returns notes about what could not be kept, one line each.

    The layout `split` shows the left half of A and the right half of B with a white line between them;
    `side` shows A to the left of B. Every frame of A keeps its time. B's frame of that time stands beside
    it, or the one before if B has none. Sound, subtitles and chapters are copied from A. The video is
    H.264, 4:2:0, 8 bits; HDR stays HDR, in A's own codec. `on_frame` is called with the number of frames
    written.

    Raises EncodeError and then leaves no file.
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
    # If both have the same signal, it is written without conversion, so that HDR keeps its highlights.
    own = _signal_of(a.info) == _signal_of(b.info)
    white = network_to_hdr(_WHITE, info.colour) if own and info.colour.is_hdr else _WHITE
    missing = 0
    last_b: np.ndarray | None = None
    try:
        sink.open()
        for one, other in pair_by_time(a.pictures(), b.pictures(), tolerance_of(a, b)):
            if other is not None:
                last_b = at_size(upright_signal(other.frame, own), size)
            if one is None:
                continue
            missing += other is None
            left = at_size(upright_signal(one.frame, own), size)
            right = np.zeros_like(left) if last_b is None else last_b
            sink.process(FrameWork(_frame(one.frame, info, _joined(left, right, layout, white), own)))
            on_frame(sink.frames_out)
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
            f"{destination}: {missing} frames of A have no frame of B at their time; B's last frame is shown"
        )
    return notes


def _signal_of(info: StreamInfo) -> tuple[int, int]:
    """Transfer curve and primaries; all SDR signals count as equal, as they do for the networks."""
    colour = info.colour
    return (colour.transfer, colour.primaries) if colour.is_hdr else (0, 0)


def _canvas_info(info: StreamInfo, size: tuple[int, int], layout: str) -> StreamInfo:
    """Facts of A's stream, changed to upright pictures of the canvas' size, whose sides are even."""
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
    """Both pictures f32[H,W,3] on one canvas; `white`, f32[3], is the colour of the divider."""
    if layout == "side":
        return np.hstack([left, right])
    middle = left.shape[1] // 2
    joined = left.copy()
    joined[:, middle:] = right[:, middle:]
    half = max(1, round(left.shape[1] * _LINE / 2))
    joined[:, middle - half : middle + half] = white
    return joined


def _frame(one: Frame, info: StreamInfo, rgb: np.ndarray, own: bool) -> Frame:
    """The picture R'G'B' f32[h,w,3] in 0..1 as a frame of the canvas, at the time of A's frame.

    With `own` the picture is in the canvas' own signal, else in the networks' signal.
    """
    view = info.view
    pad = view.height - rgb.shape[0], view.width - rgb.shape[1]
    if any(pad):
        rgb = cv2.copyMakeBorder(rgb, 0, pad[0], 0, pad[1], cv2.BORDER_REPLICATE)
    picture = av.VideoFrame(view.width, view.height, info.pix_fmt)
    time = Timestamp(one.time.pts, one.time.time_base)
    colour = replace(info.colour, transfer=1) if own else info.colour  # SDR is written without conversion
    frame = Frame(one.index, time, picture, view, colour)
    layout = frame.layout
    for index in range(len(layout.components)):
        pixel_formats.view(picture, layout, index)[...] = 1 << (layout.depth - 1 + layout.shift)
    frame.blend((0, 0, view.width, view.height), rgb, np.ones(rgb.shape[:2], np.float32))
    return frame
