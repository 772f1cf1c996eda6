"""Decoders and encoders of graphics hardware that FFmpeg offers: which are tried, and how they are set.

Both are verified: `decode.py` compares a decoder's first pictures with the software's, and
`quality_trial.py` measures an encoder's quality. Where hardware fails, software does the work.
"""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.video.reformatter import VideoReformatter

from stream.media.container import open_video, video_stream
from stream.picture import pixel_formats
from stream.picture.pixel_formats import Layout

EXACT = ("h264", "hevc", "vp8", "vp9")
"""Codecs whose standards fix every bit of a decoded picture. MPEG-2, MPEG-4 and JPEG leave the
transform's rounding open, so hardware shows other pictures. AV1 would be exact too, but FFmpeg reads
it with libdav1d, which knows no hardware."""

_FAMILIES = ("nvenc", "qsv", "amf")
"""Families of encoders that take pictures from ordinary memory, best known first."""
_EFFORT_OPTIONS = {
    "nvenc": ("preset", {"low": "p2", "normal": "p5", "high": "p7"}),
    "qsv": ("preset", {"low": "veryfast", "normal": "medium", "high": "slower"}),
    "amf": ("quality", {"low": "speed", "normal": "balanced", "high": "quality"}),
}
_QUANTISERS = {"h264": (12, 19, 23), "hevc": (10, 19, 24), "av1": (6, 18, 32)}
"""Best, first and worst tried, as in `EncoderTraits.qualities`, on the scale of the software encoder,
whose settings here keep its quantiser nearly constant, too."""
QUALITIES = {f"{codec}_{family}": span for codec, span in _QUANTISERS.items() for family in _FAMILIES}
"""The same for every encoder here, by FFmpeg's name."""
_QP2LAMBDA = 118
"""FFmpeg's FF_QP2LAMBDA: `global_quality` counts quantiser steps in this unit."""
_PIXEL_FORMATS = ("yuv420p", "yuv420p10le", "nv12", "p010le")


class Unusable(Exception):
    """A hardware decoder or encoder cannot go on; the message says why, in a few words."""


def reason(error: Exception) -> str:
    """FFmpeg's reason in a few words."""
    text: str | None = getattr(error, "strerror", None)
    return text.lower() if text else str(error) or type(error).__name__


def open_decoder(path: Path, codec: str) -> tuple[InputContainer, str]:
    """A container whose main stream is decoded in hardware, and the device's kind, such as "cuda".

    Its pictures come in ordinary memory. Raises Unusable, with every reason, where no device works.
    """
    if codec not in EXACT:
        raise Unusable(f"no decoder that is exact for {codec}")
    reasons = []
    for config in av.Codec(codec, "r").hardware_configs or ():
        if not config.is_supported:
            continue
        device = config.device_type.name
        try:
            container = open_video(path, HWAccel(config.device_type, allow_software_fallback=False))
        except (av.FFmpegError, RuntimeError) as error:
            reasons.append(f"{device}: {reason(error)}")
            continue
        context = video_stream(container).codec_context
        if context.is_hwaccel:
            context.thread_count = 1  # the work is done elsewhere; each thread would hold pictures there
            return container, device
        container.close()
    raise Unusable(", ".join(reasons) or f"FFmpeg has none for {codec} here")


def to_software_format(picture: av.VideoFrame, pix_fmt: str, reformatter: VideoReformatter) -> av.VideoFrame:
    """A picture with interleaved chroma, as hardware gives it, in the software decoder's format.

    No sample changes its value (tested for every pair of formats that is accepted). Raises Unusable for
    other pairs.
    """
    name = picture.format.name
    if name == pix_fmt:
        return picture
    old, new = pixel_formats.layout_of(name), pixel_formats.layout_of(pix_fmt)
    if old is None or new is None or not _are_compatible(old, new):
        raise Unusable(f"pictures come as {name} in place of {pix_fmt}")
    full = 2 if pix_fmt.startswith("yuvj") else 1
    result = reformatter.reformat(
        picture, format=pix_fmt, src_colorspace=1, dst_colorspace=1, src_color_range=full,
        dst_color_range=full, threads=1,
    )  # fmt: skip
    result.color_range, result.colorspace = picture.color_range, picture.colorspace
    result.color_trc, result.color_primaries = picture.color_trc, picture.color_primaries
    result.pts, result.time_base = picture.pts, picture.time_base
    return result


def _are_compatible(old: Layout, new: Layout) -> bool:
    """Whether both are Y'CbCr on the same grids, and the new format holds every bit of the old one."""
    grids = [[(part.log2_w, part.log2_h) for part in layout.components] for layout in (old, new)]
    # p016 carries twelve bits as their upper ones: the only deeper format that a decoder gives.
    deep_enough = old.depth == new.depth or (old.depth, new.depth) == (16, 12)
    return old.kind == new.kind == "yuv" and grids[0] == grids[1] and deep_enough


def identical(one: av.VideoFrame, two: av.VideoFrame) -> bool:
    """Whether two pictures agree in time, format and every sample."""
    if (one.pts, one.format.name, one.width, one.height) != (two.pts, two.format.name, two.width, two.height):
        return False
    layout = pixel_formats.handled_layout(one.format.name)
    return all(
        np.array_equal(pixel_formats.view(one, layout, i), pixel_formats.view(two, layout, i))
        for i in range(len(layout.components))
    )


def encoders(codec: str, pix_fmt: str) -> list[str]:
    """Encoders in this build of FFmpeg that write `codec` from such pictures. They may lack a device."""
    if pix_fmt not in _PIXEL_FORMATS:
        return []
    names = (f"{codec}_{family}" for family in _FAMILIES)
    return [name for name in names if name in QUALITIES and _is_built(name)]


def effort_options(encoder: str, effort: str) -> dict[str, str]:
    """The encoder's options for `encode.effort`: how much time it spends."""
    name, values = _EFFORT_OPTIONS[encoder.rpartition("_")[2]]
    return {name: values[effort]}


def quality_options(encoder: str, quality: float) -> dict[str, str]:
    """The encoder's options for constant quantisers."""
    codec, _, family = encoder.partition("_")
    number = round(quality) * (4 if codec == "av1" else 1)  # 256 steps, where SVT-AV1 has 64
    level = str(number)
    if family == "nvenc":
        return {"rc": "constqp", "qp": level}
    if family == "qsv":
        return {"global_quality": str(_QP2LAMBDA * number), "flags": "+qscale"}
    return {"rc": "cqp", "qp_i": level, "qp_p": level} | ({"qp_b": level} if encoder == "h264_amf" else {})


def _is_built(encoder: str) -> bool:
    try:
        return bool(av.Codec(encoder, "w"))
    except ValueError:
        return False
