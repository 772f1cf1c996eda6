"""FFmpeg's video encoders as a table: what each of them takes, and how it is set here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from stream.media import hardware

_QUANTISER_CODECS = (
    "mpeg4", "mpeg2video", "mpeg1video", "mjpeg", "h263", "flv", "msmpeg4", "msmpeg4v2", "wmv1", "wmv2",
)  # fmt: skip
"""Lossy codecs whose encoder has the codec's name and is set by a quantiser."""
_LOSSLESS_CODECS = (
    "ffv1", "huffyuv", "ffvhuff", "utvideo", "rawvideo", "png", "apng", "qtrle", "v210", "v410", "v308",
    "v408", "r210", "r10k", "avrp", "magicyuv", "zlib", "zmbv", "bmp", "tiff", "targa", "flashsv", "ljpeg",
    "jpegls", "qoi", "yuv4", "y41p",
)  # fmt: skip
"""Lossless codecs whose encoder has the codec's name."""
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
} | {name: (name,) for name in (*_QUANTISER_CODECS, *_LOSSLESS_CODECS)}
"""Encoders that write a codec, best first, by FFmpeg's name of the codec."""


def _doubled(bit_rate: int) -> int:
    return max(2 * bit_rate, 200_000)


def _unchanged(bit_rate: int) -> int:
    return bit_rate


def _none(_bit_rate: int) -> int:
    return 0


def _ceiling(_bit_rate: int) -> int:
    return 100_000_000


@dataclass(frozen=True, slots=True)
class EncoderTraits:
    """How one encoder is set. The defaults hold for an encoder that the table does not list."""

    qualities: tuple[int, int, int] | None = None
    """Best, first and worst quality tried where the user sets none: crf, or quantiser. None: the encoder
    has no constant quality. The worst bounds the loss where the tried frames are easier than the rest
    (a black title, say)."""
    crf_max: int | None = None
    """End of the crf scale, which begins at 0; None: the encoder has no crf."""
    fractional_crf: bool = False
    presets: tuple[str, ...] = ()
    """Names of its speed presets; empty: it has none."""
    slower_presets: tuple[str, ...] = ()
    """Presets to use, one after the other, where ours makes the file too large."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Options at every effort."""
    effort_options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Further options by `encode.effort`; empty: the encoder knows no effort."""
    bit_rate: Callable[[int], int] = _doubled
    """The target bit rate (bits per second, 0: none) for the input's."""
    lossless: bool = False
    counts_frames: bool = False
    """Whether it refuses a fine time base: it then counts frames, and the true times are put back later."""
    interlaced: bool = False
    """Whether it encodes fields as such."""
    interlaced_motion: bool = False
    """Whether it searches motion in fields, too."""


def traits(encoder: str) -> EncoderTraits:
    """The row of an encoder, by FFmpeg's name."""
    return _TRAITS.get(encoder, _DEFAULT)


_SPEEDS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo",
)  # fmt: skip
_X26X_PRESETS = {"low": "veryfast", "normal": "medium", "high": "slow"}
_X264_PARAMS = "mbtree=0:qcomp=1"
_B_ADAPT = ":b-adapt=2"
"""Makes files 13 to 30 % smaller at the same PSNR in the same time (on the samples), but takes a
seventh more time with the low effort's preset on noise."""


def _by_effort(option: str, values: Mapping[str, str]) -> dict[str, dict[str, str]]:
    return {effort: {option: value} for effort, value in values.items()}


_DEFAULT = EncoderTraits()
_QUANTISED = EncoderTraits(qualities=(1, 3, 8), bit_rate=_none)
_COUNTING = replace(_QUANTISED, counts_frames=True)
_LOSSLESS = EncoderTraits(lossless=True, bit_rate=_none)
_X264 = EncoderTraits(
    qualities=(12, 19, 23),
    crf_max=51,
    fractional_crf=True,
    presets=_SPEEDS,
    # With the first of them samples/portrait.mp4 stays at 2.36 times its size. Files of x265 and SVT-AV1
    # stay below 2 times with the usual presets.
    slower_presets=("slow", "slower"),
    options={"tune": "psnr", "x264-params": _X264_PARAMS},
    effort_options={
        effort: {"preset": preset} | ({} if effort == "low" else {"x264-params": _X264_PARAMS + _B_ADAPT})
        for effort, preset in _X26X_PRESETS.items()
    },
    bit_rate=_none,
    interlaced=True,
)
# Groups of pictures are closed, so that each fragment of a file can be decoded on its own.
_TRAITS: dict[str, EncoderTraits] = {
    **dict.fromkeys(_LOSSLESS_CODECS, _LOSSLESS),
    **dict.fromkeys(_QUANTISER_CODECS, _COUNTING),
    "mjpeg": _QUANTISED,
    "mpeg4": replace(_COUNTING, interlaced=True, interlaced_motion=True),
    "mpeg2video": replace(
        _COUNTING,
        options={"b_sensitivity": "40"},  # faster than the default
        interlaced=True,
        interlaced_motion=True,
    ),
    "png": replace(_LOSSLESS, options={"pred": "mixed"}),
    "ffv1": replace(_LOSSLESS, options={"level": "3", "slicecrc": "1"}),
    "libx264": _X264,
    "libx264rgb": replace(_X264, qualities=(8, 15, 20)),
    "libx265": EncoderTraits(
        qualities=(10, 19, 24),
        crf_max=51,
        fractional_crf=True,
        presets=_SPEEDS,
        options={"tune": "psnr", "x265-params": "cutree=0:qcomp=1:open-gop=0:log-level=error"},
        effort_options=_by_effort("preset", _X26X_PRESETS),
        bit_rate=_none,
    ),
    "libsvtav1": EncoderTraits(
        qualities=(6, 18, 32),
        crf_max=63,
        presets=tuple(str(i) for i in range(14)),
        options={"svtav1-params": "tune=1:enable-tf=0"},
        effort_options=_by_effort("preset", {"low": "10", "normal": "8", "high": "6"}),
        bit_rate=_none,
    ),
    "libaom-av1": EncoderTraits(qualities=(6, 18, 32), crf_max=63, bit_rate=_none),
    "libvpx": EncoderTraits(
        qualities=(4, 8, 20),
        crf_max=63,
        options={"auto-alt-ref": "0"},
        effort_options=_by_effort("cpu-used", {"low": "5", "normal": "3", "high": "1"}),
        bit_rate=_ceiling,  # beside a crf it needs one: without, 200 kbit/s hold (measured)
    ),
    "libvpx-vp9": EncoderTraits(
        qualities=(6, 18, 30),
        crf_max=63,
        options={"row-mt": "1"},
        effort_options=_by_effort("cpu-used", {"low": "6", "normal": "4", "high": "2"}),
        bit_rate=_none,
    ),
    "prores_ks": EncoderTraits(bit_rate=_none, interlaced=True),
    "dnxhd": EncoderTraits(bit_rate=_unchanged, interlaced=True),
    "dvvideo": EncoderTraits(bit_rate=_none, interlaced=True),
    "cfhd": EncoderTraits(bit_rate=_none),
} | {
    encoder: EncoderTraits(
        qualities=qualities,
        effort_options={effort: hardware.effort_options(encoder, effort) for effort in _X26X_PRESETS},
        bit_rate=_none,
    )
    for encoder, qualities in hardware.QUALITIES.items()
}
