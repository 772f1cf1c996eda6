"""Which encoder follows which codec, with which pixel format and quality."""

from __future__ import annotations

from dataclasses import dataclass

import av

from stream.config import Encode
from stream.errors import EncodeError
from stream.media import hardware
from stream.media.encoder_traits import ENCODERS, EncoderTraits, traits
from stream.picture import pixel_formats
from stream.picture.frame import StreamInfo

_LARGEST_SIDES = {
    "h264": (16880, 16880), "hevc": (16888, 16888), "av1": (16384, 8704), "vp9": (16384, 16384),
    "vp8": (16383, 16383), "mpeg1video": (4095, 4095), "mpeg2video": (4095, 4095), "mpeg4": (8191, 8191),
}  # fmt: skip
"""Largest width and height, px: of the highest level (H.264 A.3.1 and H.265 A.4.1: the square root
of 8 pictures; AV1 A.3), or what the bitstream's header can state."""
_LARGEST_AREAS = {"h264": 139_264 * 256, "hevc": 35_651_584, "av1": 35_651_584, "vp9": 35_651_584}
"""Largest picture of the highest level, luma px (H.264 and H.265 6.2, AV1 6.3, VP9 6.2)."""


@dataclass(frozen=True, slots=True)
class EncoderRecipe:
    """How a video stream will be encoded."""

    encoder: str
    """FFmpeg's name of the encoder."""
    codec: str
    """FFmpeg's name of the codec that it writes."""
    pix_fmt: str
    options: dict[str, str]
    """The encoder's own options, without the quality."""
    quality: float | None = None
    """crf or quantiser; None: the encoder has neither."""
    is_settled: bool = True
    """Whether the quality is final. If not, `quality_trial.settle` chooses it."""
    bit_rate: int = 0
    """Target, bits per second; 0: none."""
    slower_presets: tuple[str, ...] = ()
    """Presets to use, one after the other, where the file would become too large."""
    is_hardware: bool = False
    """Whether the encoder is a hardware encoder that the user did not name. If it fails, software encodes."""
    notes: tuple[str, ...] = ()
    """Remarks for the user, one line each."""


def recipe(info: StreamInfo, config: Encode) -> EncoderRecipe:
    """Choose encoder, pixel format and quality. Raises EncodeError that names the wrong setting."""
    encoder, notes = _choose_encoder(info, config)
    codec = _codec(encoder)
    encoder, row = codec.name, traits(codec.name)
    pix_fmt, loses = nearest(codec, info.pix_fmt)
    if av.VideoFormat(pix_fmt, 16, 16).has_palette:
        pix_fmt, loses = nearest(codec, pixel_formats.substitute(pix_fmt))
    if loses:
        notes.append(f"{info.path}: {encoder} cannot hold {info.pix_fmt}; the video becomes {pix_fmt}")
    _check_preset(encoder, row, config.preset)
    _check_crf(encoder, row, config.crf)
    options = {**row.options, **row.effort_options.get(config.effort, {})}
    if config.preset is not None:
        options["preset"] = config.preset
    first_quality = None if row.qualities is None else row.qualities[1]
    return EncoderRecipe(
        encoder=encoder,
        codec=codec.canonical_name,
        pix_fmt=pix_fmt,
        options=options,
        quality=first_quality if config.crf is None else config.crf,
        is_settled=config.crf is not None or row.qualities is None,
        bit_rate=row.bit_rate(info.bit_rate),
        slower_presets=row.slower_presets if config.preset is None and config.effort != "low" else (),
        notes=tuple(notes),
    )


def _choose_encoder(info: StreamInfo, config: Encode) -> tuple[str, list[str]]:
    """FFmpeg's name of the encoder, and notes where the codec changes."""
    codec = canonical(info.codec)
    encoder, notes = config.codec or _encoder_for(codec), []
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
    return encoder, notes


def _check_preset(encoder: str, row: EncoderTraits, preset: str | None) -> None:
    if preset is None or preset in row.presets:
        return
    if not row.presets:
        raise EncodeError(f"encode.preset: {encoder} has no presets; leave it out")
    raise EncodeError(f"encode.preset: {encoder} has no preset {preset}; use {', '.join(row.presets)}")


def _check_crf(encoder: str, row: EncoderTraits, crf: float | None) -> None:
    if crf is None:
        return
    if row.crf_max is None:
        raise EncodeError(f"encode.crf: {encoder} knows no constant quality; leave it out")
    if crf > row.crf_max:
        raise EncodeError(f"encode.crf: {encoder} takes 0 to {row.crf_max}, got {crf:g}")
    if not row.fractional_crf and crf != int(crf):
        raise EncodeError(f"encode.crf: {encoder} takes whole numbers, got {crf:g}")


def hardware_alternatives(info: StreamInfo, software: EncoderRecipe, config: Encode) -> list[EncoderRecipe]:
    """Recipes with hardware encoders that could replace `software`, best known first; empty without `auto`.

    The list is also empty where only software can do what is asked: fields, HDR data in the bitstream,
    other pixel formats, or a quality, preset or encoder that the user named.
    """
    named = config.codec or config.preset or config.crf is not None
    beyond = info.field_order != "progressive" or info.mastering_display or info.content_light
    if config.hardware == "off" or named or beyond or software.codec != canonical(info.codec):
        return []
    found = []
    for encoder in hardware.encoders(software.codec, software.pix_fmt):
        pix_fmt, loses = nearest(_codec(encoder), software.pix_fmt)
        row = traits(encoder)
        if not loses and row.qualities is not None:
            found.append(
                EncoderRecipe(
                    encoder=encoder,
                    codec=software.codec,
                    pix_fmt=pix_fmt,
                    options=dict(row.effort_options[config.effort]),
                    quality=row.qualities[1],
                    is_settled=False,
                    is_hardware=True,
                    notes=software.notes,
                )
            )
    return found


def check_size(info: StreamInfo, chosen: EncoderRecipe) -> None:
    """Raise EncodeError where pictures of `info` are larger than the codec's highest level allows."""
    width, height = info.view.width, info.view.height
    widest, highest = _LARGEST_SIDES.get(chosen.codec, (width, height))
    largest = _LARGEST_AREAS.get(chosen.codec, width * height)
    if width > widest or height > highest or width * height > largest:
        raise EncodeError(
            f"{info.path}: {width}x{height} is larger than any level of {chosen.codec} allows; "
            "lower --upscale or set encode.codec"
        )


def canonical(decoder: str) -> str:
    """The codec's name, such as "av1", of a decoder's, such as "libdav1d"."""
    try:
        return av.Codec(decoder, "r").canonical_name
    except ValueError:
        return decoder


def nearest(codec: av.Codec, pix_fmt: str) -> tuple[str, bool]:
    """The pixel format of the encoder that is nearest to `pix_fmt`, and whether it loses something."""
    formats = [item.name for item in codec.video_formats or ()]
    if not formats or pix_fmt in formats:
        return pix_fmt, False
    has_alpha = any(part.is_alpha for part in av.VideoFormat(pix_fmt, 16, 16).components)
    best, loss = av.codec.codec.find_best_pix_fmt_of_list(formats, pix_fmt, has_alpha)
    if best is None:
        raise EncodeError(f"encode.codec: {codec.name} takes no pictures like {pix_fmt}; name another")
    return best.name, bool(loss)


def _encoder_for(codec: str) -> str | None:
    """The best encoder of this build of FFmpeg that writes `codec`."""
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
