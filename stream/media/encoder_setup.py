"""A recipe and what is known of the input -> an encoder's context, ready to be opened."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from fractions import Fraction

import av

from stream.media import hardware
from stream.media.codecs import EncoderRecipe, canonical
from stream.media.encoder_traits import traits
from stream.picture.frame import StreamInfo

_PRORES = {"Proxy": "proxy", "LT": "lt", "Standard": "standard", "HQ": "hq", "4444": "4444", "XQ": "4444xq"}
"""Options of prores_ks by the decoder's names of profiles."""
_DNXHR = {"DNXHR LB": "dnxhr_lb", "DNXHR SQ": "dnxhr_sq", "DNXHR HQ": "dnxhr_hq", "DNXHR HQX": "dnxhr_hqx",
          "DNXHR 444": "dnxhr_444"}  # fmt: skip
"""Options of dnxhd, likewise."""
_DNXHD_MBPS = (36, 42, 45, 60, 63, 75, 80, 84, 90, 100, 110, 115, 120, 145, 175, 180, 185, 220, 240, 290, 350,
               365, 390, 440, 730, 880)  # fmt: skip
"""Rates that DNxHD knows; a file's own is a little above its nominal one."""
_FIELD_ORDERS = {"progressive": 1, "tt": 2, "bb": 3, "tb": 4, "bt": 5}
_LIMITED, _FULL = 1, 2
"""FFmpeg's numbers of colour ranges."""


def configure(
    context: av.VideoCodecContext,
    info: StreamInfo,
    recipe: EncoderRecipe,
    like: av.VideoCodecContext,
    threads: int,
) -> None:
    """Set up an encoder's context before it is opened.

    like: the input's decoder context, for the profile and the colour range.
    """
    if recipe.encoder == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # it writes to stderr by itself: errors only
    row = traits(recipe.encoder)
    context.width, context.height, context.pix_fmt = info.view.width, info.view.height, recipe.pix_fmt
    rate = info.rate or Fraction(25)
    context.framerate = rate
    context.time_base = 1 / Fraction(rate) if row.counts_frames else info.time_base
    context.sample_aspect_ratio = info.view.sar
    context.thread_count = threads
    context.flags |= int(av.codec.context.Flags.frame_duration)
    _set_colour(context, info, recipe, like)
    _set_fields(context, info, recipe.encoder)
    if not av.Codec(recipe.encoder, "w").intra_only and not row.lossless:
        context.gop_size = min(250, max(12, round(3 * rate)))
    context.bit_rate = recipe.bit_rate
    options = dict(recipe.options)
    if info.chroma_location != "unspecified":
        options["chroma_sample_location"] = info.chroma_location
    options |= _set_quality(context, recipe)
    if recipe.codec == canonical(info.codec):
        options |= _set_profile(context, recipe, like)
    for name, value in hdr_options(recipe.encoder, info.mastering_display, info.content_light).items():
        options[name] = f"{options[name]}:{value}" if name in options else value
    context.options = options


def _set_colour(
    context: av.VideoCodecContext, info: StreamInfo, recipe: EncoderRecipe, like: av.VideoCodecContext
) -> None:
    context.color_trc, context.color_primaries = info.colour.transfer, info.colour.primaries
    context.colorspace = info.colour.matrix
    context.color_range = _FULL if info.colour.range_full else like.color_range
    old, new = (av.VideoFormat(name, 16, 16).is_rgb for name in (info.pix_fmt, recipe.pix_fmt))
    if new and not old:
        context.colorspace, context.color_range = 0, _FULL
    elif old and not new:
        context.colorspace, context.color_range = 1, _LIMITED


def _set_fields(context: av.VideoCodecContext, info: StreamInfo, encoder: str) -> None:
    row, flags = traits(encoder), av.codec.context.Flags
    context.field_order = _FIELD_ORDERS.get(info.field_order, 1)
    if info.field_order != "progressive" and row.interlaced:
        context.flags |= int(flags.interlaced_dct)
        if row.interlaced_motion:
            context.flags |= int(flags.interlaced_me)


def _set_quality(context: av.VideoCodecContext, recipe: EncoderRecipe) -> dict[str, str]:
    """Set the constant quality; returns the options that belong to it."""
    quality = recipe.quality
    if quality is None:
        return {}
    if traits(recipe.encoder).crf_max is not None:
        return {"crf": f"{quality:g}"}
    if recipe.encoder in hardware.QUALITIES:
        return hardware.quality_options(recipe.encoder, quality)
    # PyAV has no frame.quality: a quantiser is fixed by its two ends (measured).
    context.qscale = True
    context.qmin = context.qmax = int(quality)
    if recipe.encoder == "mjpeg" and context.color_range != _FULL:
        return {"strict": "unofficial"}  # limited range; FFmpeg marks it in the JPEG's comment
    return {}


def _set_profile(
    context: av.VideoCodecContext, recipe: EncoderRecipe, like: av.VideoCodecContext
) -> dict[str, str]:
    """Keep the input's profile; returns the options that belong to it. libx264 takes others by itself."""
    profile = like.profile or ""
    if recipe.encoder == "libx264" and "Baseline" in profile and recipe.pix_fmt == "yuv420p":
        return {"profile": "baseline"}
    if recipe.encoder == "prores_ks":
        return {"profile": _PRORES.get(profile, "auto"), "vendor": "apl0"}
    if recipe.encoder != "dnxhd":
        return {}
    if profile in _DNXHR:
        context.bit_rate = 0
        return {"profile": _DNXHR[profile]}
    nominal = [rate for rate in _DNXHD_MBPS if rate * 1_000_000 <= recipe.bit_rate * 1.005]
    context.bit_rate = (nominal or _DNXHD_MBPS)[-1] * 1_000_000
    return {}


def hdr_options(encoder: str, mastering: bytes, light: bytes) -> dict[str, str]:
    """Encoder options that write mastering display and content light level into the bitstream.

    mastering: AVMasteringDisplayMetadata; light: AVContentLightMetadata; empty: none.
    """
    names = _HDR_OPTIONS.get(encoder)
    if names is None:
        return {}
    params, display_name, light_name = names
    parts = []
    if display := _mastering(mastering, plain=encoder == "libsvtav1"):
        parts.append(f"{display_name}={display}")
    if len(light) >= 8:
        most, average = struct.unpack("=2I", light[:8])
        parts.append(f"{light_name}={most},{average}")
    return {params: ":".join(parts)} if parts else {}


_HDR_OPTIONS = {
    "libx264": ("x264-params", "mastering-display", "cll"),
    "libx265": ("x265-params", "master-display", "max-cll"),
    "libsvtav1": ("svtav1-params", "mastering-display", "content-light"),
}
"""For each encoder: its option for free parameters, and the names of mastering display and light level."""


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
