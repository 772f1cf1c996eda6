"""One picture in the stages. It keeps the decoder's planes; only regions are converted.

There are two coordinate systems, both continuous: pixel i covers [i, i + 1), its centre lies at i + 0.5.
*Stored* coordinates are those of the decoder's picture. *Upright* coordinates are those of the picture
that a viewer sees: not rotated, not mirrored, with square pixels. Boxes are (x0, y0, x1, y1). Affines are
f64[2,3] and map (x, y, 1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import TypeVar

import av
import cv2
import numpy as np
import numpy.typing as npt

from stream.picture import colour, pixel_formats
from stream.picture.colour import Colour
from stream.picture.resample import halve

_IDENTITY = ((1, 0), (0, 1))
Box = tuple[int, int, int, int]
Sample = TypeVar("Sample", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A presentation time: `pts` in units of `time_base` seconds."""

    pts: int
    time_base: Fraction

    @property
    def seconds(self) -> float:
        """The time in seconds, for display and comparison only; arithmetic uses the integers."""
        return float(self.pts * self.time_base)


@dataclass(frozen=True, slots=True)
class View:
    """How the stored picture is rotated and stretched into the upright one."""

    width: int
    """Width of the stored picture, px; `height` is its height."""
    height: int
    sar: Fraction = Fraction(1)
    """Sample aspect ratio: width of a pixel over its height; 0 counts as 1."""
    turn: tuple[tuple[int, int], tuple[int, int]] = _IDENTITY
    """Linear part of the display matrix, of -1, 0 and 1; it acts on (x, y)."""

    @property
    def stretch(self) -> tuple[float, float]:
        """Factors of x and y that make pixels square; never below 1, so that no detail is lost."""
        sar = float(self.sar) if self.sar else 1.0
        return (sar, 1.0) if sar >= 1 else (1.0, 1.0 / sar)

    @property
    def upright_size(self) -> tuple[float, float]:
        """Width and height of the upright picture, px."""
        w, h = self.width * self.stretch[0], self.height * self.stretch[1]
        return (w, h) if self.turn[0][0] else (h, w)

    @property
    def to_stored(self) -> npt.NDArray[np.float64]:
        """Affine f64[2,3] from upright to stored coordinates; read-only."""
        return _affines(self)[0]

    @property
    def to_upright(self) -> npt.NDArray[np.float64]:
        """Affine f64[2,3] from stored to upright coordinates; read-only."""
        return _affines(self)[1]

    def enlarged(self, factor: int) -> View:
        """The view of the picture enlarged `factor` times in width and height."""
        return replace(self, width=self.width * factor, height=self.height * factor)

    def orient(self, image: npt.NDArray[Sample]) -> npt.NDArray[Sample]:
        """Turn an array [h,w,...] from stored to upright orientation; the result is a numpy view."""
        (a, b), (c, d) = self.turn
        if not a:
            image = image.swapaxes(0, 1)
        if a + b < 0:
            image = image[:, ::-1]
        if c + d < 0:
            image = image[::-1]
        return image


@lru_cache(maxsize=64)  # needed several times for each face in each frame
def _affines(view: View) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The affines from upright to stored coordinates and from stored to upright ones."""
    linear = np.array(view.turn, np.float64) @ np.diag(view.stretch)
    corners = linear @ np.array([[0, view.width, 0, view.width], [0, 0, view.height, view.height]])
    origin, inverse = corners.min(axis=1)[:, None], np.linalg.inv(linear)
    pair = np.hstack([inverse, inverse @ origin]), np.hstack([linear, -origin])
    for affine in pair:
        affine.setflags(write=False)
    return pair


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """Facts about a file's video stream, known before its first frame."""

    path: str
    codec: str
    """FFmpeg's decoder name, such as "h264"."""
    pix_fmt: str
    """Format of the stored pictures; that of frames may differ, see `pixel_formats.in_handled_format`."""
    view: View
    colour: Colour
    time_base: Fraction
    rate: Fraction
    """Average frames a second; 0 where unknown. For display and rate control only."""
    frames: int
    """Number of frames that the container states; 0 where unknown."""
    start_pts: int
    duration_s: float
    """0 where unknown."""
    bit_rate: int
    """Bits a second of the stream, else of the file; 0 where both are unknown."""
    chroma_location: str = "unspecified"
    """A key of `pixel_formats.CHROMA_SITES`, or "unspecified"."""
    field_order: str = "progressive"
    """FFmpeg's name: progressive, tt, bb, tb or bt."""
    mastering_display: bytes = b""
    """FFmpeg's AVMasteringDisplayMetadata of the first frame; empty where there is none."""
    content_light: bytes = b""
    """FFmpeg's AVContentLightMetadata of the first frame; empty where there is none."""
    display_matrix: bytes = b""
    """The 3x3 display matrix (9 native int32); empty where there is none."""

    def enlarged(self, factor: int) -> StreamInfo:
        """The stream with pictures enlarged `factor` times in width and height, at the same bits a pixel."""
        old, view, colour = self.view, self.view.enlarged(factor), self.colour
        if not av.VideoFormat(self.pix_fmt, 16, 16).is_rgb:
            colour = colour.enlarged((old.width, old.height), (view.width, view.height))
        return replace(self, view=view, colour=colour, bit_rate=self.bit_rate * factor * factor)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A decoded picture with its time and its properties. One stage at a time owns it."""

    index: int
    """Number of the frame in display order, from 0."""
    time: Timestamp
    picture: av.VideoFrame
    view: View
    colour: Colour
    chroma_site: tuple[float, float] = (0.0, 0.5)
    """Position (x, y) of a chroma sample, in luma px from its first luma sample; 0 is co-sited."""
    arrived_at_s: float = 0.0
    """`time.monotonic()` when the last packet of the picture arrived; live sources only."""
    epoch: int = 0
    """Live sources: rises by one where size, colour, rate, sound or connection change; 0 for files."""

    @property
    def layout(self) -> pixel_formats.Layout:
        """The picture's pixel layout. Every source gives pictures in a handled format."""
        return pixel_formats.handled_layout(self.picture.format.name)

    def thumbnail(self, max_side: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
        """A small upright picture for detection, and the affine from it to upright coordinates.

        The picture is RGB f32[h,w,3] in 0..1. Its longer side is at most `max_side` px; it is never
        enlarged. The affine is f64[2,3].
        """
        width, height = self.view.upright_size
        scale = min(1.0, max_side / max(width, height))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        stored = size if self.view.turn[0][0] else size[::-1]
        parts = [
            cv2.resize(np.ascontiguousarray(self._component(i)), stored, interpolation=cv2.INTER_AREA)
            for i in range(len(self.layout.components))
        ]
        rgb = self.view.orient(self._signal(parts))
        back = np.array([[width / size[0], 0, 0], [0, height / size[1], 0]])
        return np.clip(rgb, 0, 1, out=np.empty(rgb.shape, np.float32)), back

    def luma(self, box: Box, scale: float) -> npt.NDArray[np.uint8]:
        """Luma u8[h,w] of an upright box, scaled by `scale`. Only the box is read.

        The box must lie inside the upright picture. RGB formats give green instead of luma.
        """
        x0, y0, x1, y1 = self._stored_box(box)
        layout = self.layout
        part = self._component(1 if layout.kind == "rgb" else 0)[y0:y1, x0:x1]
        size = max(1, round((box[2] - box[0]) * scale)), max(1, round((box[3] - box[1]) * scale))
        small: np.ndarray = cv2.resize(
            np.ascontiguousarray(part),
            size if self.view.turn[0][0] else size[::-1],
            interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
        )
        if layout.dtype.itemsize > 1:
            small = (small >> (layout.shift + layout.depth - 8)).astype(np.uint8)
        return np.ascontiguousarray(self.view.orient(small))

    def tiny_luma(self) -> npt.NDArray[np.float32]:
        """Upright luma f32[h,w] in 0..255 of 32 px along the longer side, to compare whole pictures.

        It reads only every few pixels, which costs 0.1 ms at 1920x1080.
        """
        layout = self.layout
        part = self._component(1 if layout.kind == "rgb" else 0)
        step = max(1, max(part.shape) // 256)
        part = np.ascontiguousarray(part[::step, ::step])
        scale = 32 / max(part.shape)
        size = max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale))
        tiny = cv2.resize(part, size, interpolation=cv2.INTER_AREA).astype(np.float32)
        return self.view.orient(tiny) / np.float32(1 << (layout.shift + layout.depth - 8))

    def region(self, box: Box, shrink: int = 1) -> npt.NDArray[np.float32]:
        """R'G'B' f32[h,w,3] of a stored box, nominally in 0..1, in the picture's own transfer curve.

        Blocks of `shrink` x `shrink` px are averaged first. The box starts on the chroma grid.
        """
        x0, y0, x1, y1 = box
        size = -(-(x1 - x0) // shrink), -(-(y1 - y0) // shrink)
        parts = []
        for i, part in enumerate(self.layout.components):
            dx, dy = 1 << part.log2_w, 1 << part.log2_h
            block = self._component(i)[y0 // dy : -(-y1 // dy), x0 // dx : -(-x1 // dx)]
            fx, fy = max(1, shrink // dx), max(1, shrink // dy)
            small = -(-block.shape[1] // fx), -(-block.shape[0] // fy)
            block = np.ascontiguousarray(block)
            if (fx, fy) != (1, 1):
                pad = small[1] * fy - block.shape[0], small[0] * fx - block.shape[1]
                block = np.pad(block, ((0, pad[0]), (0, pad[1])), mode="edge")
                block = cv2.resize(block, small, interpolation=cv2.INTER_AREA)
            if (dx, dy) != (1, 1):
                block = self._upsample(block, size, shrink, (dx, dy), (fx, fy))
            parts.append(block)
        return self._signal(parts)

    def writable(self) -> Frame:
        """Make sure that no codec refers to the planes; returns the frame itself. Call it before `add`."""
        self.picture.make_writable()
        return self

    def add(self, box: Box, residual: np.ndarray) -> None:
        """Add a signed R'G'B' residual f32[h,w,3], in the network's range, to a stored box, in place.

        The sum is rounded to the picture's own depth; where the residual is 0, no bit changes. For PQ
        and HLG the residual is added to the signal that the network saw, and the sum is converted back.
        The box starts on the chroma grid and lies inside the picture.
        """
        layout = self.layout
        if self.colour.is_hdr:
            signal = self.region(box)
            seen = colour.hdr_to_network(signal, self.colour)
            changed = colour.network_to_hdr(seen + residual, self.colour)
            unchanged = colour.network_to_hdr(seen, self.colour)
            residual = np.where(residual == 0, np.float32(0), changed - unchanged)
        rgb = layout.kind == "rgb"
        deltas = cv2.split(residual) if rgb else colour.rgb_to_yuv(residual, self._weights())
        for i, delta in zip(range(len(layout.components)), deltas, strict=False):  # grey: luma only
            self._add_to(box, i, self._subsampled(delta, i), self._span(i)[1])

    def blend(self, box: Box, image: np.ndarray, opacity: np.ndarray) -> None:
        """Blend R'G'B' f32[h,w,3], in the network's range, over a stored box, in place.

        `opacity` f32[h,w] is in 0..1; where it is 0, no bit changes. The blend happens in the planes, so
        that no detail of the old picture is left where the opacity is 1. The box is as for `add`.
        """
        signal = np.clip(image, 0, 1)
        if self.colour.is_hdr:
            signal = colour.network_to_hdr(signal, self.colour)
        rgb = self.layout.kind == "rgb"
        values = cv2.split(signal) if rgb else colour.rgb_to_yuv(signal, self._weights())
        for i, value in zip(range(len(self.layout.components)), values, strict=False):
            zero, one = self._span(i)
            difference = self._subsampled(value, i) * one + zero - self._values(box, i)
            self._add_to(box, i, difference * self._subsampled(opacity, i))

    def _subsampled(self, image: np.ndarray, index: int) -> np.ndarray:
        """A float image of the picture's size, at the samples of a component."""
        part = self.layout.components[index]
        axes = part.log2_w > 0, part.log2_h > 0
        return halve(image, axes, self.chroma_site) if any(axes) else image

    def _samples(self, box: Box, index: int) -> np.ndarray:
        """A numpy view of a component's stored samples in a box."""
        x0, y0, x1, y1 = box
        part = self.layout.components[index]
        dx, dy = 1 << part.log2_w, 1 << part.log2_h
        return self._component(index)[y0 // dy : -(-y1 // dy), x0 // dx : -(-x1 // dx)]

    def _values(self, box: Box, index: int) -> npt.NDArray[np.float32]:
        samples, shift = self._samples(box, index), self.layout.shift
        return (samples >> shift if shift else samples).astype(np.float32)

    def _add_to(self, box: Box, index: int, delta: np.ndarray, unit: float = 1.0) -> None:
        """Add `delta` f32 times `unit` code values to a component, rounded and clipped to its range.

        A value that already lies outside the range may stay there, but does not move further out.
        """
        layout = self.layout
        low, high = self._limits(index)
        old = self._values(box, index)
        new = cv2.scaleAdd(delta, unit, old)
        np.rint(new, out=new)
        np.maximum(new, np.minimum(old, low), out=new)
        np.minimum(new, np.maximum(old, high), out=new)
        target = self._samples(box, index)
        target[...] = new.astype(layout.dtype) << layout.shift if layout.shift else new

    def to_network(self, signal: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A region's R'G'B' in the network's range: HDR is converted; clipped to 0..1, f32."""
        if self.colour.is_hdr:
            signal = colour.hdr_to_network(signal, self.colour)
        return np.clip(signal, 0, 1)

    def _component(self, index: int) -> np.ndarray:
        return pixel_formats.view(self.picture, self.layout, index)

    def _stored_box(self, box: Box) -> Box:
        corners = np.array([[box[0], box[1], 1], [box[2], box[3], 1]]) @ self.view.to_stored.T
        low, high = np.rint(corners.min(axis=0)), np.rint(corners.max(axis=0))
        return (
            int(low[0]),
            int(low[1]),
            max(int(high[0]), int(low[0]) + 1),
            max(int(high[1]), int(low[1]) + 1),
        )

    def _weights(self) -> tuple[float, float, float]:
        return self.colour.weights(self.view.width, self.view.height)

    def _span(self, index: int) -> tuple[float, float]:
        """A component's code value for 0, and how many code values lie from 0 to 1."""
        layout = self.layout
        top, unit = (1 << layout.depth) - 1, 1 << (layout.depth - 8)
        chroma = layout.kind == "yuv" and index > 0
        if layout.kind == "rgb" or self.colour.range_full:
            return (128.0 * unit if chroma else 0.0), float(top)
        return (128.0 * unit, 224.0 * unit) if chroma else (16.0 * unit, 219.0 * unit)

    def _limits(self, index: int) -> tuple[float, float]:
        """Least and largest code value that a component may have."""
        layout = self.layout
        unit = 1 << (layout.depth - 8)
        if layout.kind == "rgb" or self.colour.range_full:
            return 0.0, float((1 << layout.depth) - 1)
        return 16.0 * unit, (240.0 if layout.kind == "yuv" and index else 235.0) * unit

    def _signal(self, parts: list[np.ndarray]) -> npt.NDArray[np.float32]:
        """R'G'B' f32[h,w,3] of components of equal size: stored samples, or code values in f32."""
        shift = self.layout.shift
        codes = [
            (part >> shift if shift and part.dtype.kind == "u" else part).astype(np.float32) for part in parts
        ]
        rgb: np.ndarray = cv2.transform(cv2.merge(codes * (3 if len(codes) == 1 else 1)), self._to_signal())
        return rgb

    def _to_signal(self) -> npt.NDArray[np.float64]:
        """Matrix f64[3,4] from the code values of the components, and 1, to R'G'B'; grey is repeated."""
        yuv = self.layout.kind == "yuv"
        zero, one = np.array([self._span(i if yuv else 0) for i in range(3)]).T
        turn = colour.yuv_to_rgb_matrix(self._weights()) if yuv else np.eye(3)
        return np.hstack([turn / one, -(turn @ (zero / one))[:, None]])

    def _upsample(
        self,
        block: np.ndarray,
        size: tuple[int, int],
        shrink: int,
        sub: tuple[int, int],
        factor: tuple[int, int],
    ) -> np.ndarray:
        """Resample chroma to a luma grid of (width, height) `size`, by the position of its samples."""
        inverse = np.zeros((2, 3))
        for axis in (0, 1):
            site = 0.5 + self.chroma_site[axis] if sub[axis] > 1 else 0.5
            scale = shrink / (sub[axis] * factor[axis])
            at_zero = (0.5 * shrink - site) / sub[axis] - (factor[axis] - 1) / 2
            inverse[axis, axis], inverse[axis, 2] = scale, at_zero / factor[axis]
        block = (block >> self.layout.shift).astype(np.float32)
        return cv2.warpAffine(
            block,
            inverse,
            size,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
