"""Which encoder follows which codec, with which pixel format and quality."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import av

from stream.config import Encode
from stream.errors import EncodeError
from stream.media import hardware
from stream.picture import pixel_formats
from stream.picture.frame import StreamInfo

_SAME_NAME_QSCALE = (
    "mpeg4", "mpeg2video", "mpeg1video", "mjpeg", "h263", "flv", "msmpeg4", "msmpeg4v2", "wmv1", "wmv2",
)  # fmt: skip
_SAME_NAME_LOSSLESS = (
    "ffv1", "huffyuv", "ffvhuff", "utvideo", "rawvideo", "png", "apng", "qtrle", "v210", "v410", "v308",
    "v408", "r210", "r10k", "avrp", "magicyuv", "zlib", "zmbv", "bmp", "tiff", "targa", "flashsv", "ljpeg",
    "jpegls", "qoi", "yuv4", "y41p",
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
_X26X = {"low": "veryfast", "normal": "medium", "high": "slow"}
PRESETS = {
    "libx264": _X26X, "libx264rgb": _X26X, "libx265": _X26X,
    "libsvtav1": {"low": "10", "normal": "8", "high": "6"},
}  # fmt: skip
"""Encoders with a speed preset, and ours by `encode.effort`."""
_CPU_USED = {
    "libvpx": {"low": "5", "normal": "3", "high": "1"},
    "libvpx-vp9": {"low": "6", "normal": "4", "high": "2"},
}
THOROUGH = {"libx264": ("slow", "slower"), "libx264rgb": ("slow", "slower")}
"""Presets that take over, one after the other, where ours would make the file too large: on
samples/portrait.mp4 the first keeps it at 2.36 times. x265's and SVT-AV1's stayed below 2 with ours."""
_SPEEDS = (
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
    "placebo",
)
_PRESET_NAMES = {"libsvtav1": tuple(str(i) for i in range(14))}
LOSSLESS = _SAME_NAME_LOSSLESS
COARSE_TIME = ("mpeg4", "mpeg2video", "mpeg1video", "h263", "msmpeg4", "msmpeg4v2", "flv", "wmv1", "wmv2")
"""Encoders that refuse a fine time base: they count frames, true times are put back afterwards."""

RANGES = {
    "libx264": (12, 19, 23), "libx264rgb": (8, 15, 20), "libx265": (10, 19, 24), "libvpx": (4, 8, 20),
    "libvpx-vp9": (6, 18, 30), "libsvtav1": (6, 18, 32), "libaom-av1": (6, 18, 32),
} | {name: (1, 3, 8) for name in _SAME_NAME_QSCALE} | hardware.RANGES  # fmt: skip
"""Best, first and worst quality tried where none is set: crf, or quantiser. The worst bounds the
harm where the tried frames are easier than the rest (a black title, say)."""
_FRACTIONS = ("libx264", "libx264rgb", "libx265")
_X264 = "mbtree=0:qcomp=1"
_B_ADAPT = ":b-adapt=2"
"""Makes files 13 to 30 % smaller at the same PSNR in the same time (on the samples), but costs the
low effort's preset a seventh of its own on noise."""
_OPTIONS = {
    "libx264": {"tune": "psnr", "x264-params": _X264},
    "libx264rgb": {"tune": "psnr", "x264-params": _X264},
    "libx265": {"tune": "psnr", "x265-params": "cutree=0:qcomp=1:open-gop=0:log-level=error"},
    "libsvtav1": {"svtav1-params": "tune=1:enable-tf=0"},
    "libvpx": {"auto-alt-ref": "0"},
    "libvpx-vp9": {"row-mt": "1"},
    "mpeg2video": {"b_sensitivity": "40"},
    "png": {"pred": "mixed"},
    "ffv1": {"level": "3", "slicecrc": "1"},
}
"""Closed groups of pictures, so that each fragment stands alone; speed where the default crawls."""
_PRORES = {"Proxy": "proxy", "LT": "lt", "Standard": "standard", "HQ": "hq", "4444": "4444", "XQ": "4444xq"}
_DNXHR = {"DNXHR LB": "dnxhr_lb", "DNXHR SQ": "dnxhr_sq", "DNXHR HQ": "dnxhr_hq", "DNXHR HQX": "dnxhr_hqx",
          "DNXHR 444": "dnxhr_444"}  # fmt: skip
_DNXHD_MBPS = (36, 42, 45, 60, 63, 75, 80, 84, 90, 100, 110, 115, 120, 145, 175, 180, 185, 220, 240, 290, 350,
               365, 390, 440, 730, 880)  # fmt: skip
"""Rates that DNxHD knows; a file's own is a little above its nominal one."""
_FIELD_ORDERS = {"progressive": 1, "tt": 2, "bb": 3, "tb": 4, "bt": 5}
_TWO_FIELDS = ("libx264", "libx264rgb", "mpeg2video", "mpeg4", "prores_ks", "dnxhd", "dvvideo")


@dataclass(frozen=True, slots=True)
class EncoderRecipe:
    """How a video stream will be encoded."""

    encoder: str
    codec: str
    """FFmpeg's name of the codec that comes out."""
    pix_fmt: str
    options: dict[str, str]
    quality: float | None = None
    """crf or quantiser; None: the encoder is steered by neither."""
    settled: bool = True
    """False where `trial.settle` may still choose the quality."""
    bit_rate: int = 0
    """Bits per second; 0: not steered by it."""
    thorough: tuple[str, ...] = ()
    """Presets to use where the file would become too large, one after the other."""
    rival: bool = False
    """Whether the encoder is hardware that nobody named: it gives way to software where it fails."""
    notes: tuple[str, ...] = field(default=())


def recipe(info: StreamInfo, config: Encode) -> EncoderRecipe:
    """Choose encoder, pixel format and quality; EncodeError names the setting that does not fit."""
    codec = canonical(info.codec)
    notes: list[str] = []
    encoder = config.codec or _encoder_for(codec)
    if encoder is None:
        encoder = "libx264"
        notes.append(f"{info.path}: {codec} cannot be written; the video becomes H.264")
    if config.codec is None and codec == "vp9" and info.pix_fmt == "yuv420p10le":
        formats = _codec(encoder).video_formats or ()
        if info.pix_fmt not in [item.name for item in formats]:
            encoder = "libsvtav1"
            notes.append(
                f"{info.path}: this VP9 encoder knows 8 bits only; the video becomes AV1, 10 bits kept"
            )
    if encoder == "libx264" and av.VideoFormat(info.pix_fmt, 16, 16).is_rgb:
        encoder = "libx264rgb"
    target = _codec(encoder)
    encoder = target.name
    pix_fmt, loses = nearest(target, info.pix_fmt)
    if av.VideoFormat(pix_fmt, 16, 16).has_palette:
        pix_fmt, loses = nearest(target, pixel_formats.substitute(pix_fmt))
    if loses:
        notes.append(f"{info.path}: {encoder} cannot hold {info.pix_fmt}; the video becomes {pix_fmt}")
    options = _OPTIONS.get(encoder, {}) | hardware.options(encoder, config.effort)
    if config.preset is not None and encoder not in PRESETS:
        raise EncodeError(f"encode.preset: {encoder} has no presets; leave it out")
    known = _PRESET_NAMES.get(encoder, _SPEEDS)
    if config.preset is not None and config.preset not in known:
        raise EncodeError(f"encode.preset: {encoder} has no preset {config.preset}; use {', '.join(known)}")
    if encoder in PRESETS:
        options["preset"] = config.preset or PRESETS[encoder][config.effort]
    elif encoder in _CPU_USED:
        options["cpu-used"] = _CPU_USED[encoder][config.effort]
    if encoder in ("libx264", "libx264rgb") and config.effort != "low":
        options["x264-params"] += _B_ADAPT
    if config.crf is not None and encoder not in CRF_MAX:
        raise EncodeError(f"encode.crf: {encoder} knows no constant quality; leave it out")
    if config.crf is not None and config.crf > CRF_MAX[encoder]:
        raise EncodeError(f"encode.crf: {encoder} takes 0 to {CRF_MAX[encoder]}, got {config.crf:g}")
    if config.crf is not None and encoder not in _FRACTIONS and config.crf != int(config.crf):
        raise EncodeError(f"encode.crf: {encoder} takes whole numbers, got {config.crf:g}")
    steered = encoder in RANGES
    quality = config.crf if config.crf is not None else (RANGES[encoder][1] if steered else None)
    bit_rate = 0
    if encoder == "libvpx":
        bit_rate = 100_000_000  # a ceiling that it needs beside crf: 200 kbit/s otherwise (measured)
    elif not steered and encoder not in LOSSLESS and encoder not in ("prores_ks", "dvvideo", "cfhd"):
        bit_rate = info.bit_rate if encoder == "dnxhd" else max(2 * info.bit_rate, 200_000)
    return EncoderRecipe(
        encoder=encoder,
        codec=target.canonical_name,
        pix_fmt=pix_fmt,
        options=options,
        quality=quality,
        settled=config.crf is not None or not steered,
        bit_rate=bit_rate,
        thorough=THOROUGH.get(encoder, ()) if config.preset is None and config.effort != "low" else (),
        notes=tuple(notes),
    )


def rivals(info: StreamInfo, plan: EncoderRecipe, config: Encode) -> list[EncoderRecipe]:
    """Hardware encoders that could take the plan's place, best known first; empty without `auto`.

    None where software does what they cannot: fields, HDR data in the bitstream, other pixels, a
    quality, preset or encoder that the user named.
    """
    named = config.codec or config.preset or config.crf is not None
    beyond = info.field_order != "progressive" or info.mastering_display or info.content_light
    if config.hardware == "off" or named or beyond or plan.codec != canonical(info.codec):
        return []
    found = []
    for encoder in hardware.encoders(plan.codec, plan.pix_fmt):
        pix_fmt, loses = nearest(_codec(encoder), plan.pix_fmt)
        if not loses:
            options = hardware.options(encoder, config.effort)
            first = RANGES[encoder][1]
            found.append(
                EncoderRecipe(
                    encoder, plan.codec, pix_fmt, options, first, False, rival=True, notes=plan.notes
                )
            )
    return found


def configure(
    context: av.VideoCodecContext,
    info: StreamInfo,
    plan: EncoderRecipe,
    like: av.VideoCodecContext,
    threads: int,
) -> None:
    """Set up an encoder's context before it is opened.

    like: the input's decoder context, for the profile and the colour range.
    """
    if plan.encoder == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # it writes to stderr by itself: errors only
    context.width, context.height, context.pix_fmt = info.view.width, info.view.height, plan.pix_fmt
    rate = info.rate or Fraction(25)
    context.framerate = rate
    context.time_base = 1 / Fraction(rate) if plan.encoder in COARSE_TIME else info.time_base
    context.sample_aspect_ratio = info.view.sar
    context.color_trc, context.color_primaries = info.colour.transfer, info.colour.primaries
    context.colorspace = info.colour.matrix
    context.color_range = 2 if info.colour.range_full else like.color_range
    old, new = (av.VideoFormat(name, 16, 16).is_rgb for name in (info.pix_fmt, plan.pix_fmt))
    if new and not old:
        context.colorspace, context.color_range = 0, 2
    elif old and not new:
        context.colorspace, context.color_range = 1, 1
    context.thread_count = threads
    flags = av.codec.context.Flags
    context.flags |= int(flags.frame_duration)
    context.field_order = _FIELD_ORDERS.get(info.field_order, 1)
    if info.field_order != "progressive" and plan.encoder in _TWO_FIELDS:
        context.flags |= int(flags.interlaced_dct)
        if plan.encoder in ("mpeg2video", "mpeg4"):
            context.flags |= int(flags.interlaced_me)
    options = dict(plan.options)
    if not av.Codec(plan.encoder, "w").intra_only and plan.encoder not in LOSSLESS:
        context.gop_size = min(250, max(12, round(3 * rate)))
    if info.chroma_location != "unspecified":
        options["chroma_sample_location"] = info.chroma_location
    if plan.quality is not None:
        if plan.encoder in CRF_MAX:
            options["crf"] = f"{plan.quality:g}"
        elif plan.encoder in hardware.RANGES:
            options |= hardware.quality_options(plan.encoder, plan.quality)
        else:
            # PyAV has no frame.quality: a quantiser is fixed by its two ends (measured).
            context.qscale = True
            context.qmin = context.qmax = int(plan.quality)
            if plan.encoder == "mjpeg" and context.color_range != 2:
                options["strict"] = "unofficial"  # limited range; FFmpeg marks it in the JPEG's comment
    context.bit_rate = plan.bit_rate
    if plan.codec == canonical(info.codec):
        if plan.encoder == "libx264" and "Baseline" in (like.profile or "") and plan.pix_fmt == "yuv420p":
            options["profile"] = "baseline"  # the others libx264 takes from the context
        elif plan.encoder == "prores_ks":
            options["profile"] = _PRORES.get(like.profile or "", "auto")
            options["vendor"] = "apl0"
        elif plan.encoder == "dnxhd" and like.profile in _DNXHR:
            options["profile"] = _DNXHR[like.profile]
            context.bit_rate = 0
        elif plan.encoder == "dnxhd":
            nominal = [m for m in _DNXHD_MBPS if m * 1_000_000 <= plan.bit_rate * 1.005]
            context.bit_rate = (nominal or _DNXHD_MBPS)[-1] * 1_000_000
    for name, value in hdr_options(plan.encoder, info.mastering_display, info.content_light).items():
        options[name] = f"{options[name]}:{value}" if name in options else value
    context.options = options


def canonical(decoder: str) -> str:
    """The codec's name, such as "av1", of a decoder's, such as "libdav1d"."""
    try:
        return av.Codec(decoder, "r").canonical_name
    except ValueError:
        return decoder


def nearest(codec: av.Codec, pix_fmt: str) -> tuple[str, bool]:
    """The pixel format where the encoder takes it, else the one that loses least; does it lose?"""
    formats = [item.name for item in codec.video_formats or ()]
    if not formats or pix_fmt in formats:
        return pix_fmt, False
    has_alpha = any(part.is_alpha for part in av.VideoFormat(pix_fmt, 16, 16).components)
    best, loss = av.codec.codec.find_best_pix_fmt_of_list(formats, pix_fmt, has_alpha)
    if best is None:
        raise EncodeError(f"encode.codec: {codec.name} takes no pictures like {pix_fmt}; name another")
    return best.name, bool(loss)


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

    def pair(point: Sequence[Fraction], unit: int) -> str:
        return ",".join(f"{float(v):.5f}" if plain else str(round(v * unit)) for v in point)

    return (
        f"G({pair(green, 50000)})B({pair(blue, 50000)})R({pair(red, 50000)})"
        f"WP({pair(white, 50000)})L({pair((high, low), 10000)})"
    )
