"""Which encoder follows which codec, with which pixel format and quality."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from fractions import Fraction

import av

from stream.config import Encode
from stream.errors import EncodeError
from stream.frame import StreamInfo

_SAME_NAME_QSCALE = (
    "mpeg4", "mpeg2video", "mpeg1video", "mjpeg", "h263", "flv", "msmpeg4", "msmpeg4v2", "wmv1", "wmv2",
)  # fmt: skip
_SAME_NAME_LOSSLESS = (
    "ffv1", "huffyuv", "ffvhuff", "utvideo", "rawvideo", "png", "apng", "qtrle", "v210", "v410", "v308", "v408",
    "r210", "r10k", "avrp", "magicyuv", "zlib", "zmbv", "bmp", "tiff", "targa", "flashsv", "ljpeg", "jpegls",
    "qoi", "yuv4", "y41p",
)  # fmt: skip
ENCODERS: dict[str, tuple[str, ...]] = {
    "h264": ("libx264",),
    "hevc": ("libx265",),
    "vp8": ("libvpx",),
    "vp9": ("libvpx-vp9",),
    "av1": ("libsvtav1", "libaom-av1", "librav1e"),
    "prores": ("prores_ks",),
    "dnxhd": ("dnxhd",),
    "dvvideo": ("dvvideo",),
    "cfhd": ("cfhd",),
    "jpeg2000": ("jpeg2000",),
    "msmpeg4v3": ("msmpeg4",),
    "flv1": ("flv",),
} | {name: (name,) for name in (*_SAME_NAME_QSCALE, *_SAME_NAME_LOSSLESS)}
"""Encoders that write a codec, best first, by FFmpeg's name of the codec."""

CRF_MAX = {
    "libx264": 51, "libx264rgb": 51, "libx265": 51, "libvpx": 63, "libvpx-vp9": 63, "libsvtav1": 63,
    "libaom-av1": 63,
}  # fmt: skip
"""Encoders with a constant quality scale, and its end."""
QSCALE = (*_SAME_NAME_QSCALE, "jpeg2000")
"""Encoders that are steered by a quantiser, 1 (best) to 31."""
PRESETS = {
    "libx264": "medium", "libx264rgb": "medium", "libx265": "medium", "libsvtav1": "8",
}  # fmt: skip
"""Encoders with a speed preset, and ours."""
LOSSLESS = _SAME_NAME_LOSSLESS
COARSE_TIME = ("mpeg4", "mpeg2video", "mpeg1video", "h263", "msmpeg4", "msmpeg4v2", "flv", "wmv1", "wmv2")
"""Encoders that refuse a fine time base: they count frames, true times are put back afterwards."""

_START = {
    "libx264": 16.0, "libx264rgb": 16.0, "libx265": 16.0, "libvpx": 10.0, "libvpx-vp9": 20.0,
    "libsvtav1": 18.0, "libaom-av1": 18.0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a video stream will be encoded."""

    encoder: str
    codec: str
    """FFmpeg's name of the codec that comes out."""
    pix_fmt: str
    options: dict[str, str]
    qscale: int = 0
    """Quantiser 1..31; 0: the encoder is steered by its options."""
    bit_rate: int = 0
    """Bits per second; 0: not steered by it."""
    notes: tuple[str, ...] = field(default=())


def recipe(info: StreamInfo, config: Encode) -> Recipe:
    """Choose encoder, pixel format and quality; EncodeError names the setting that does not fit."""
    codec = canonical(info.codec)
    notes: list[str] = []
    encoder = config.codec or _encoder_for(codec)
    if encoder is None:
        encoder = "libx264"
        notes.append(f"{info.path}: there is no encoder for {codec}; the video becomes H.264")
    if encoder == "libx264" and av.VideoFormat(info.pix_fmt, 16, 16).is_rgb:
        encoder = "libx264rgb"
    target = _codec(encoder)
    encoder = target.name
    pix_fmt = nearest(target, info.pix_fmt)
    if pix_fmt != info.pix_fmt:
        notes.append(f"{info.path}: {encoder} cannot hold {info.pix_fmt}; the video becomes {pix_fmt}")
    options: dict[str, str] = {}
    qscale = bit_rate = 0
    if config.preset is not None and encoder not in PRESETS:
        raise EncodeError(f"encode.preset: {encoder} has no presets; leave it out")
    if encoder in PRESETS:
        options["preset"] = config.preset or PRESETS[encoder]
    if config.crf is not None and encoder not in CRF_MAX:
        raise EncodeError(f"encode.crf: {encoder} knows no constant quality; leave it out")
    if encoder in CRF_MAX:
        crf = _START[encoder] if config.crf is None else config.crf
        if crf > CRF_MAX[encoder]:
            raise EncodeError(f"encode.crf: {encoder} takes 0 to {CRF_MAX[encoder]}, got {crf:g}")
        options["crf"] = f"{crf:g}"
    elif encoder in QSCALE:
        qscale = 2
    elif encoder not in LOSSLESS and encoder not in ("prores_ks", "dnxhd", "dvvideo", "cfhd"):
        bit_rate = max(2 * info.bit_rate, 200_000)
    return Recipe(encoder, target.canonical_name, pix_fmt, options, qscale, bit_rate, tuple(notes))


def canonical(decoder: str) -> str:
    """The codec's name, such as "av1", of a decoder's, such as "libdav1d"."""
    try:
        return av.Codec(decoder, "r").canonical_name
    except ValueError:
        return decoder


def nearest(codec: av.Codec, pix_fmt: str) -> str:
    """The input's pixel format where the encoder takes it, else the one that loses least."""
    formats = [item.name for item in codec.video_formats or ()]
    if not formats or pix_fmt in formats:
        return pix_fmt
    return av.codec.codec.find_best_pix_fmt_of_list(formats, pix_fmt)[0].name


def _encoder_for(codec: str) -> str | None:
    for name in ENCODERS.get(codec, ()):
        try:
            av.Codec(name, "w")
        except ValueError:
            continue
        return name
    return None


def _codec(encoder: str) -> av.Codec:
    try:
        codec = av.Codec(encoder, "w")
    except ValueError:
        raise EncodeError(f"encode.codec: no encoder is called {encoder}; try libx264 or libx265") from None
    if codec.type != "video":
        raise EncodeError(f"encode.codec: {encoder} encodes {codec.type}, not video; try libx264")
    return codec


def hdr_options(encoder: str, mastering: bytes, light: bytes) -> dict[str, str]:
    """Encoder options that write mastering display and content light level into the bitstream.

    mastering: AVMasteringDisplayMetadata; light: AVContentLightMetadata; empty: none.
    """
    parts: list[tuple[str, str]] = []
    display = _mastering(mastering)
    level = struct.unpack("=2I", light[:8]) if len(light) >= 8 else None
    if encoder in ("libx264", "libx265"):
        if display:
            parts.append(("mastering-display" if encoder == "libx264" else "master-display", display))
        if level:
            parts.append(("cll" if encoder == "libx264" else "max-cll", f"{level[0]},{level[1]}"))
        name = "x264-params" if encoder == "libx264" else "x265-params"
    elif encoder == "libsvtav1":
        name = "svtav1-params"
        if display:
            parts.append(("mastering-display", _mastering(mastering, plain=True)))
        if level:
            parts.append(("content-light", f"{level[0]},{level[1]}"))
    else:
        return {}
    return {name: ":".join(f"{key}={value}" for key, value in parts)} if parts else {}


def _mastering(raw: bytes, plain: bool = False) -> str:
    """G(x,y)B(x,y)R(x,y)WP(x,y)L(max,min): units of 1/50000 and 1/10000 cd/m2, or plain numbers."""
    if len(raw) < 88:
        return ""
    numbers = struct.unpack("=22i", raw[:88])
    has_primaries, has_luminance = numbers[20:22]
    if not (has_primaries and has_luminance):
        return ""
    values = [Fraction(n, d or 1) for n, d in zip(numbers[:20:2], numbers[1:20:2], strict=True)]
    red, green, blue, white = values[0:2], values[2:4], values[4:6], values[6:8]
    low, high = values[8], values[9]

    def pair(point, unit):
        return ",".join(f"{float(v):.5f}" if plain else str(round(v * unit)) for v in point)

    return (
        f"G({pair(green, 50000)})B({pair(blue, 50000)})R({pair(red, 50000)})"
        f"WP({pair(white, 50000)})L({pair((high, low), 10000)})"
    )
