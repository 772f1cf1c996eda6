"""The inputs of a comparison: videos or still pictures, read as upright RGB pictures with their times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

from stream.errors import SourceError
from stream.media.container import window_pts
from stream.media.decode import FileSource
from stream.media.images import is_image, read_image
from stream.media.probe import probe
from stream.picture.colour import Colour
from stream.picture.frame import Frame, StreamInfo, Timestamp, View

_SRGB = Colour(matrix=0, transfer=13, primaries=1, range_full=True)
_SHAPE_TOLERANCE = 0.02
"""Largest relative difference of two aspect ratios that count as equal. Encoders round sides to even
numbers of pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class TimedPicture:
    """One decoded picture of a medium."""

    index: int
    """Number of the frame among those that are read, from 0."""
    time_s: float
    """Time in seconds on the common clock, see `Medium`."""
    frame: Frame

    def rgb(self, size: tuple[int, int]) -> np.ndarray:
        """The upright picture, RGB u8[H,W,3] in (width, height) `size`. HDR is converted to SDR."""
        return at_size(upright(self.frame), size)


@dataclass(slots=True)
class Medium:
    """A file to compare. Each call of `pictures` reads it again from the start.

    The common clock counts seconds from the first frame of A.
    """

    path: Path
    size: tuple[int, int]
    """Width and height of the upright picture with square pixels."""
    info: StreamInfo | None = None
    """Facts about the video; None for a still picture."""
    start_s: float = 0.0
    """Time on the common clock at which reading starts."""
    duration_s: float | None = None
    """Length of the part that is read; None: up to the end."""
    offset_s: float = 0.0
    """Time on the common clock at which the file begins."""
    notes: list[str] = field(default_factory=list)
    """Remarks for the user, one line each."""

    @property
    def is_video(self) -> bool:
        """Whether the medium is a video."""
        return self.info is not None

    @property
    def rate(self) -> float:
        """Average number of frames per second; 0 for a still picture."""
        return 0.0 if self.info is None else float(self.info.rate)

    def pictures(self) -> Iterator[TimedPicture]:
        """The pictures in order. Raises SourceError."""
        if self.info is None:
            yield TimedPicture(0, 0.0, read_image(self.path).frame(0))
            return
        own_start_s = self.start_s - self.offset_s
        begin_s = own_start_s if own_start_s > 0 else None
        length = self.duration_s
        if length is not None and own_start_s < 0:
            length += own_start_s
            if length <= 0:
                return
        source = FileSource(self.info, window_pts(self.info, begin_s, length))
        for frame in source.frames():
            since_start_s = float((frame.time.pts - self.info.start_pts) * frame.time.time_base)
            yield TimedPicture(frame.index, since_start_s + self.offset_s, frame)
        if source.truncated:
            self._note(f"{self.path}: ends early; compared as far as it goes")

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def open_medium(
    path: Path, start_s: float = 0.0, duration_s: float | None = None, offset_s: float = 0.0
) -> Medium:
    """Open a file for comparison. Raises SourceError if it is neither a video nor a picture."""
    if is_image(path):
        return Medium(path, upright_size(read_image(path).frame(0).view))
    info = probe(path)
    medium = Medium(path, upright_size(info.view), info, start_s, duration_s, offset_s)
    if info.colour.is_hdr:
        medium.notes.append(f"{path}: is HDR; compared as its SDR rendering")
    return medium


def common_size(media: list[Medium]) -> tuple[int, int]:
    """The largest size among the media, to which all pictures are scaled.

    Adds a note to each medium that is enlarged. Raises SourceError if the aspect ratios differ, or if only
    some of the media are videos.
    """
    first = media[0]
    for other in media[1:]:
        if other.is_video != first.is_video:
            kinds = ["a video" if medium.is_video else "a picture" for medium in (first, other)]
            raise SourceError(
                f"{other.path}: is {kinds[1]}, but {first.path} is {kinds[0]}; compare like with like"
            )
        shapes = [medium.size[0] / medium.size[1] for medium in (first, other)]
        if abs(shapes[1] / shapes[0] - 1) > _SHAPE_TOLERANCE:
            sizes = ["{}x{}".format(*medium.size) for medium in (other, first)]
            raise SourceError(
                f"{other.path}: {sizes[0]} has another shape than {first.path}, {sizes[1]}; crop one first"
            )
    size = max((medium.size for medium in media), key=lambda size: size[0] * size[1])
    for medium in media:
        if medium.size != size:
            width, height = medium.size
            medium.notes.append(
                f"{medium.path}: {width}x{height}, enlarged to {size[0]}x{size[1]} by Lanczos"
            )
    return size


def upright_size(view: View) -> tuple[int, int]:
    """Width and height of the upright picture in whole px."""
    width, height = view.upright_size
    return max(1, round(width)), max(1, round(height))


def upright_signal(frame: Frame, own: bool = False) -> np.ndarray:
    """A frame as R'G'B' f32[H,W,3] in 0..1, upright and with square pixels.

    HDR is converted to SDR as for the networks; with `own`, values stay in the frame's own signal.
    """
    view = frame.view
    rgb = frame.region((0, 0, view.width, view.height))
    if not own:
        rgb = frame.to_network(rgb)
    return at_size(np.ascontiguousarray(view.orient(rgb)), upright_size(view))


def upright(frame: Frame) -> np.ndarray:
    """A frame as RGB u8[H,W,3], upright and with square pixels; see `upright_signal`."""
    levels: npt.NDArray[np.float32] = np.clip(upright_signal(frame), 0, 1) * 255
    return np.rint(levels).astype(np.uint8)


def at_size(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image `[h,w]` or `[h,w,3]` scaled to (width, height) `size`.

    Enlarging uses Lanczos' kernel; reducing averages areas.
    """
    if (image.shape[1], image.shape[0]) == tuple(size):
        return image
    shrinks = image.shape[1] > size[0]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4)


def as_frame(rgb: np.ndarray) -> Frame:
    """The picture RGB u8[H,W,3] as a frame for a detector."""
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb))
    view = View(rgb.shape[1], rgb.shape[0])
    return Frame(0, Timestamp(0, Fraction(1, 25)), picture, view, _SRGB)
