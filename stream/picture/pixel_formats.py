"""Pixel formats: where each component of a picture lies, numpy views onto it, and conversions.

PyAV names the components of a format but not their step, offset and shift. The table here adds those
for the formats that are read and written in place. `in_handled_format` converts every other format.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import av
import numpy as np
from av.video.reformatter import VideoReformatter

CHROMA_SITES = {
    "left": (0.0, 0.5), "center": (0.5, 0.5), "topleft": (0.0, 0.0),
    "top": (0.5, 0.0), "bottomleft": (0.0, 1.0), "bottom": (0.5, 1.0),
}  # fmt: skip
"""Positions of chroma samples (`Frame.chroma_site`), by FFmpeg's names."""


@dataclass(frozen=True, slots=True)
class Component:
    """Position of one component's samples in a plane."""

    plane: int
    offset: int = 0
    """Index of the first sample in a row of the plane."""
    step: int = 1
    """Distance from one sample to the next in a row, in samples."""
    log2_w: int = 0
    """Subsampling: the picture is `1 << log2_w` times as wide as the component."""
    log2_h: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """One pixel format. A sample is stored as `value << shift` in `dtype`, value in 0..2**depth - 1."""

    kind: str
    """"yuv", "rgb" or "gray"."""
    components: tuple[Component, ...]
    """(Y, Cb, Cr), (R, G, B) or (Y,)."""
    depth: int
    """Bits of a value."""
    dtype: np.dtype
    shift: int = 0


_SUBSAMPLING = {"420": (1, 1), "422": (1, 0), "444": (0, 0), "440": (0, 1)}
_PACKED_RGB = {
    "rgb24": (0, 1, 2, 3), "bgr24": (2, 1, 0, 3), "rgba": (0, 1, 2, 4), "bgra": (2, 1, 0, 4),
    "argb": (1, 2, 3, 4), "abgr": (3, 2, 1, 4), "rgb0": (0, 1, 2, 4), "bgr0": (2, 1, 0, 4),
    "0rgb": (1, 2, 3, 4), "0bgr": (3, 2, 1, 4),
    "rgb48le": (0, 1, 2, 3), "bgr48le": (2, 1, 0, 3), "rgba64le": (0, 1, 2, 4), "bgra64le": (2, 1, 0, 4),
}  # fmt: skip
_PACKED_YUV = {"yuyv422": (0, 1, 3), "uyvy422": (1, 0, 2), "yvyu422": (0, 3, 1)}
_U8, _U16 = np.dtype(np.uint8), np.dtype("<u2")


@cache
def layout_of(pix_fmt: str) -> Layout | None:
    """The layout of a format by FFmpeg's name; None where the format is not handled in place."""
    parts: tuple[Component, ...]
    if match := re.fullmatch(r"yuv[aj]?(420|422|444|440)p(9|10|12|14|16)?(?:le)?", pix_fmt):
        depth, sub = int(match[2] or 8), _SUBSAMPLING[match[1]]
        parts = Component(0), Component(1, 0, 1, *sub), Component(2, 0, 1, *sub)
        return Layout("yuv", parts, depth, _U8 if depth == 8 else _U16)
    if match := re.fullmatch(r"gray(?:(9|10|12|14|16)le)?", pix_fmt):
        depth = int(match[1] or 8)
        return Layout("gray", (Component(0),), depth, _U8 if depth == 8 else _U16)
    if match := re.fullmatch(r"gbra?p(?:(9|10|12|14|16)le)?", pix_fmt):
        depth = int(match[1] or 8)
        parts = Component(2), Component(0), Component(1)
        return Layout("rgb", parts, depth, _U8 if depth == 8 else _U16)
    if match := re.fullmatch(r"(?:nv(12|21|16|24|42)|p([024])(10|12|16)le)", pix_fmt):
        family = {"12": "420", "21": "420", "16": "422", "24": "444", "42": "444"}
        sub = _SUBSAMPLING[family[match[1]] if match[1] else f"42{match[2]}".replace("424", "444")]
        first = 1 if match[1] in ("21", "42") else 0
        parts = Component(0), Component(1, first, 2, *sub), Component(1, 1 - first, 2, *sub)
        if match[1]:
            return Layout("yuv", parts, 8, _U8)
        depth = int(match[3])
        return Layout("yuv", parts, depth, _U16, shift=16 - depth)
    if pix_fmt in _PACKED_YUV:
        y, cb, cr = _PACKED_YUV[pix_fmt]
        parts = Component(0, y, 2), Component(0, cb, 4, 1, 0), Component(0, cr, 4, 1, 0)
        return Layout("yuv", parts, 8, _U8)
    if pix_fmt in _PACKED_RGB:
        *order, step = _PACKED_RGB[pix_fmt]
        wide = "48" in pix_fmt or "64" in pix_fmt
        parts = tuple(Component(0, first, step) for first in order)
        return Layout("rgb", parts, 16 if wide else 8, _U16 if wide else _U8)
    return None


@cache
def handled_layout(pix_fmt: str) -> Layout:
    """The layout of a format that is handled in place. Raises ValueError for any other."""
    layout = layout_of(pix_fmt)
    if layout is None:
        raise ValueError(f"got pixel format {pix_fmt}, expected one that is handled in place")
    return layout


@cache
def alpha_of(pix_fmt: str) -> Component | None:
    """Position of the transparency of a handled format; None where the format has none."""
    parts = av.VideoFormat(pix_fmt, 16, 16).components
    plane = next((part.plane for part in parts if part.is_alpha), None)
    if plane is None:
        return None
    if pix_fmt not in _PACKED_RGB:
        return Component(plane)
    *colours, step = _PACKED_RGB[pix_fmt]
    return Component(plane, next(i for i in range(step) if i not in colours), step)


def substitute(pix_fmt: str) -> str:
    """The handled format into which an unhandled one converts with the least loss."""
    if pix_fmt.endswith("be") and layout_of(pix_fmt[:-2] + "le"):
        return pix_fmt[:-2] + "le"
    source = av.VideoFormat(pix_fmt, 16, 16)
    deep = max(part.bits for part in source.components) > 8
    alpha = source.has_palette or any(part.is_alpha for part in source.components)
    if alpha:
        return "rgba64le" if deep else "rgba"
    if source.is_rgb or source.is_bayer:
        return "rgb48le" if deep else "rgb24"
    if len(source.components) == 1:
        return "gray16le" if deep else "gray"
    return "yuv444p16le" if deep else "yuv444p"


def in_colour(pix_fmt: str) -> str:
    """The YUV 4:2:0 format of the same depth for a grey format; every other format is returned unchanged."""
    name = pix_fmt if layout_of(pix_fmt) else substitute(pix_fmt)
    grey = name.startswith("gray")
    return "yuv420p" + name.removeprefix("gray") if grey else pix_fmt


def view(picture: av.VideoFrame, layout: Layout, index: int) -> np.ndarray:
    """A writable view [h,w] of the stored samples of component `index`; valid until `make_writable`."""
    return view_of(picture, layout.components[index], layout.dtype)


def view_of(picture: av.VideoFrame, part: Component, dtype: np.dtype) -> np.ndarray:
    """A writable view [h,w] of the stored samples of any component, transparency included."""
    plane = picture.planes[part.plane]
    # numpy's stubs know the buffer protocol only from Python 3.12 on.
    samples: np.ndarray = np.frombuffer(plane, dtype)  # type: ignore[call-overload]
    stride = plane.line_size // dtype.itemsize
    height = -(-picture.height >> part.log2_h)
    width = -(-picture.width >> part.log2_w)
    rows = samples[: samples.size // stride * stride].reshape(-1, stride)[:height]
    return rows[:, part.offset : part.offset + part.step * (width - 1) + 1 : part.step]


def in_handled_format(
    picture: av.VideoFrame, reformatter: VideoReformatter, threads: int, coloured: bool
) -> av.VideoFrame:
    """`picture` itself where its planes can be read and written in place, else a converted copy.

    The copy has the format that loses least. With `coloured` a grey picture becomes YUV 4:2:0 with the
    same luma. Time, matrix and range stay as they are. `threads` are swscale's.
    """
    name = picture.format.name
    target = name if layout_of(name) else substitute(name)
    # Negative line sizes mean rows from bottom to top, which numpy views cannot describe.
    if target != name or min(plane.line_size for plane in picture.planes) <= 0:
        picture = _converted(picture, target, reformatter, threads)
    coloured_name = in_colour(target) if coloured else target
    return picture if coloured_name == target else _with_chroma(picture, coloured_name)


def _converted(
    picture: av.VideoFrame, target: str, reformatter: VideoReformatter, threads: int
) -> av.VideoFrame:
    result = reformatter.reformat(
        picture,
        format=target,
        src_colorspace=picture.colorspace,
        dst_colorspace=picture.colorspace,
        src_color_range=picture.color_range,
        dst_color_range=picture.color_range,
        threads=threads,
    )
    result.pts, result.time_base = picture.pts, picture.time_base
    return result


def _with_chroma(picture: av.VideoFrame, pix_fmt: str) -> av.VideoFrame:
    """A grey picture as `pix_fmt` (YUV): the same luma bit by bit, neutral chroma.

    swscale would change the range: a conversion by it moved luma by up to 9 of 255 levels.
    """
    result = av.VideoFrame(picture.width, picture.height, pix_fmt)
    old, new = handled_layout(picture.format.name), handled_layout(pix_fmt)
    view(result, new, 0)[...] = view(picture, old, 0)
    for index in (1, 2):
        view(result, new, index)[...] = 1 << (new.depth - 1)
    result.pts, result.time_base = picture.pts, picture.time_base
    result.color_range = picture.color_range
    return result
