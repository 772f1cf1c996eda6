"""How large a picture a codec may hold, so that players can read what an encoder would write."""

from __future__ import annotations

from stream.errors import EncodeError
from stream.media.codecs import EncoderRecipe
from stream.picture.frame import StreamInfo

_SIDES = {
    "h264": (16880, 16880), "hevc": (16888, 16888), "av1": (16384, 8704), "vp9": (16384, 16384),
    "vp8": (16383, 16383), "mpeg1video": (4095, 4095), "mpeg2video": (4095, 4095), "mpeg4": (8191, 8191),
}  # fmt: skip
"""Largest width and height, px: of the highest level (H.264 A.3.1 and H.265 A.4.1: the square root
of 8 pictures; AV1 A.3), or what the bitstream's header can state."""
_AREAS = {"h264": 139_264 * 256, "hevc": 35_651_584, "av1": 35_651_584, "vp9": 35_651_584}
"""Largest picture of the highest level, luma px (H.264 and H.265 6.2, AV1 6.3, VP9 6.2)."""


def check_size(info: StreamInfo, plan: EncoderRecipe) -> None:
    """EncodeError, in one line, where pictures of `info` go beyond the codec's highest level."""
    width, height = info.view.width, info.view.height
    widest, highest = _SIDES.get(plan.codec, (width, height))
    if width > widest or height > highest or width * height > _AREAS.get(plan.codec, width * height):
        raise EncodeError(
            f"{info.path}: {width}x{height} is larger than any level of {plan.codec} allows; "
            "lower --upscale or set encode.codec"
        )
