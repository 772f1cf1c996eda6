"""What is compared: a video or a still picture, as upright RGB pictures with their times."""

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
from stream.media.decode import FileSource
from stream.media.images import is_image, read_image
from stream.media.probe import probe
from stream.picture.colour import Colour
from stream.picture.frame import Frame, StreamInfo, Timestamp, View

_SRGB = Colour(matrix=0, transfer=13, primaries=1, range_full=True)
_SAME_SHAPE = 0.02
"""Sides may differ by so much in proportion: encoders want even numbers of pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class TimedPicture:
    """One picture of a medium, as decoded."""

    index: int
    """Number of the frame among those read, from 0."""
    time_s: float
    """On the common clock, see `Medium`."""
    frame: Frame

    def rgb(self, size: tuple[int, int]) -> np.ndarray:
        """RGB u8[H,W,3], upright, in (width, height) `size`; HDR as the networks see it."""
        return at_size(upright(self.frame), size)


@dataclass(slots=True)
class Medium:
    """A file to compare; `pictures` reads it from front to back as often as it is called.

    The common clock counts seconds from A's first frame.
    """

    path: Path
    size: tuple[int, int]
    """Width and height, upright, pixels square."""
    info: StreamInfo | None = None
    """None for a still picture."""
    start_s: float = 0.0
    """Read from here on, on the common clock."""
    duration_s: float | None = None
    offset_s: float = 0.0
    """Where on the common clock the file begins."""
    notes: list[str] = field(default_factory=list)

    @property
    def is_video(self) -> bool:
        """Whether it has frames; a still picture has none."""
        return self.info is not None

    @property
    def rate(self) -> float:
        """Frames per second on average; 0 where unknown."""
        return 0.0 if self.info is None else float(self.info.rate)

    def pictures(self) -> Iterator[TimedPicture]:
        """Pictures in order. Raises SourceError."""
        if self.info is None:
            yield TimedPicture(0, 0.0, read_image(self.path).frame(0))
            return
        own_start_s = self.start_s - self.offset_s
        begins = own_start_s if own_start_s > 0 else None
        length = self.duration_s
        if length is not None and own_start_s < 0:
            length += own_start_s
            if length <= 0:
                return
        source = FileSource(self.info, begins, length)
        for frame in source.frames():
            since = float((frame.time.pts - self.info.start_pts) * frame.time.time_base)
            yield TimedPicture(frame.index, since + self.offset_s, frame)
        if source.truncated:
            self._note(f"{self.path}: ends early; compared as far as it goes")

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def open_medium(
    path: Path, start_s: float = 0.0, duration_s: float | None = None, offset_s: float = 0.0
) -> Medium:
    """Look into a file. Raises SourceError where it is neither a video nor a picture."""
    if is_image(path):
        return Medium(path, upright_size(read_image(path).frame(0).view))
    info = probe(path)
    medium = Medium(path, upright_size(info.view), info, start_s, duration_s, offset_s)
    if info.colour.is_hdr:
        medium.notes.append(f"{path}: is HDR; compared as its SDR rendering")
    return medium


def common_size(media: list[Medium]) -> tuple[int, int]:
    """The largest size among the media, which all are brought to; SourceError where shapes differ."""
    first = media[0]
    for other in media[1:]:
        if other.is_video != first.is_video:
            kinds = ["a video" if medium.is_video else "a picture" for medium in (first, other)]
            raise SourceError(
                f"{other.path}: is {kinds[1]}, but {first.path} is {kinds[0]}; compare like with like"
            )
        shapes = [medium.size[0] / medium.size[1] for medium in (first, other)]
        if abs(shapes[1] / shapes[0] - 1) > _SAME_SHAPE:
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


def signal(frame: Frame, own: bool = False) -> np.ndarray:
    """A frame as R'G'B' f32[H,W,3], upright, pixels square.

    In 0..1, HDR as the networks see it; with `own` in the picture's own signal.
    """
    view = frame.view
    rgb = frame.region((0, 0, view.width, view.height))
    rgb = rgb if own else frame.to_network(rgb)
    return at_size(np.ascontiguousarray(view.orient(rgb)), upright_size(view))


def upright(frame: Frame) -> np.ndarray:
    """A frame as RGB u8[H,W,3], upright, pixels square; see `signal`."""
    levels: npt.NDArray[np.float32] = np.clip(signal(frame), 0, 1) * 255
    return np.rint(levels).astype(np.uint8)


def at_size(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image [h,w,3] in (width, height) `size`: by Lanczos; areas are averaged where it shrinks."""
    if (image.shape[1], image.shape[0]) == tuple(size):
        return image
    shrinks = image.shape[1] > size[0]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4)


def as_frame(rgb: np.ndarray) -> Frame:
    """RGB u8[H,W,3] as a frame that a detector takes."""
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb))
    view = View(rgb.shape[1], rgb.shape[0])
    return Frame(0, Timestamp(0, Fraction(1, 25)), picture, view, _SRGB)
