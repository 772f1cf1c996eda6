"""How good an encoder must be set so that a video keeps its quality: tried on a few frames.

No single crf does it: at 16, x264 keeps 41 dB of a noisy video and makes a low-rate one 4.3 times
larger; at 23 it keeps 31 dB of the one and makes the other 1.8 times larger (480x270, measured).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from stream.media import codecs, encoder_setup, hardware
from stream.media.codecs import EncoderRecipe
from stream.media.container import Window, open_video, video_stream
from stream.media.encoder_traits import traits
from stream.media.probe import side_data
from stream.picture import pixel_formats
from stream.picture.frame import StreamInfo, View
from stream.pipeline.cpu_budget import ordinary_priority

TARGET_DB = 42.6
"""Luma PSNR that the worst tried frame must keep; all frames shall keep 42."""
MARGINS_DB = {"libx265": 0.8}
"""Added for encoders under which frames differ more among each other than the few tried ones (measured)."""
LIMIT = 2.0
"""Estimated growth of the video above which a slower preset is used; 2.5 is the promise."""
_CLOSE_DB = 0.6
"""A quality that exceeds the target by less is not searched further."""
_POSITIONS = (0.05, 0.35, 0.65, 0.9)
"""Positions of the tried frames, as shares of the video's length."""
_FRAMES = 9
"""Frames tried at each position."""
_MAX_SIZE = 640, 384
"""The middle of larger pictures is tried, px. It starts on the old codec's grid of blocks, or 1 dB
is lost that the whole picture would keep (measured)."""
_GRID = 64
_TRIALS = 4
_DYNAMIC_HDR = {
    "Dolby Vision data": {"DOVI_METADATA", "DOVI_RPU_BUFFER"},
    "HDR10+ data": {"DYNAMIC_HDR_PLUS"},
    "HDR Vivid data": {"DYNAMIC_HDR_VIVID"},
}
"""FFmpeg's names of side data, by the names that users know."""


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    pictures: list[av.VideoFrame]
    size: float
    """Bytes of these pictures in the input, in proportion to what the crop shows."""
    like: av.VideoCodecContext
    """The input's decoder."""


@dataclass(frozen=True, slots=True)
class _Trial:
    """The result of encoding the sample with one quality."""

    recipe: EncoderRecipe
    growth: float
    """How many times larger than the input the video becomes."""
    psnr_db: float
    """Luma PSNR of the worst picture."""


def settle(
    info: StreamInfo,
    recipe: EncoderRecipe,
    threads: int,
    window: Window,
    alternatives: Sequence[EncoderRecipe] = (),
) -> EncoderRecipe:
    """The recipe with the lowest quality that keeps TARGET_DB on frames from all over the video.

    The first of the `alternatives` that keeps TARGET_DB within LIMIT replaces the recipe. An encoder or
    an input that cannot be tried keeps its first quality: the error will show when it is used.
    """
    if recipe.is_settled:
        return recipe
    try:
        sample = _sample(info, window)
        if not sample.pictures:
            return replace(recipe, is_settled=True)
        reasons = []
        for alternative in alternatives:
            try:
                return replace(_tried_hardware(info, alternative, sample, threads), is_settled=True)
            except hardware.Unusable as reason:
                reasons.append(str(reason))
        if reasons:
            note = f"{info.path}: encoded by {recipe.encoder}, no hardware would do ({'; '.join(reasons)})"
            recipe = replace(recipe, notes=(*recipe.notes, note))
        best = _search(info, recipe, sample, threads)
        for preset in recipe.slower_presets:
            recipe = best.recipe
            if best.growth > LIMIT and preset != recipe.options["preset"]:
                recipe = replace(recipe, options=recipe.options | {"preset": preset})
                best = _search(info, recipe, sample, threads)
        recipe = best.recipe
    except (av.FFmpegError, ValueError):
        pass  # the error comes again where the encoder is used, with the file's name
    return replace(recipe, is_settled=True)


def _tried_hardware(info: StreamInfo, recipe: EncoderRecipe, sample: _Sample, threads: int) -> EncoderRecipe:
    """A hardware encoder with its quality. Raises Unusable where it does not open or is not good enough."""
    name = recipe.encoder
    if "Baseline" in (sample.like.profile or ""):
        raise hardware.Unusable(f"{name}: writes no {sample.like.profile} profile here")
    try:
        encoder = av.Codec(name, "w").create("video")
        encoder_setup.configure(encoder, info, recipe, sample.like, threads)
        encoder.open()  # at full size, which it may not know
        trial = _search(info, recipe, sample, threads)
    except (av.FFmpegError, ValueError) as error:
        raise hardware.Unusable(f"{name}: {hardware.reason(error)}") from error
    if trial.psnr_db < TARGET_DB:
        raise hardware.Unusable(f"{name}: keeps {trial.psnr_db:.1f} dB, {TARGET_DB} are wanted")
    if trial.growth > LIMIT:
        raise hardware.Unusable(f"{name}: makes the video {trial.growth:.1f} times as large")
    return trial.recipe


def _search(info: StreamInfo, recipe: EncoderRecipe, sample: _Sample, threads: int) -> _Trial:
    """Try several qualities; the result is that of the lowest one that reaches the target."""
    if recipe.quality is None:
        raise ValueError(f"{recipe.encoder} has no quality to be searched")
    quality, target = recipe.quality, _target_db(recipe)
    psnr_db: dict[float, float] = {}
    sizes: dict[float, int] = {}
    for _ in range(_TRIALS):
        trial = replace(recipe, quality=quality)
        psnr_db[quality], sizes[quality] = _encode_sample(info, trial, sample, threads)
        if 0 <= psnr_db[quality] - target <= _CLOSE_DB:
            break
        quality = _next_quality(psnr_db, quality, recipe)
        if quality in psnr_db:
            break
    good = [q for q, db in psnr_db.items() if db >= target]
    quality = max(good) if good else min(psnr_db)
    growth = sizes[quality] / max(1.0, sample.size)
    return _Trial(replace(recipe, quality=quality), growth, psnr_db[quality])


def _target_db(recipe: EncoderRecipe) -> float:
    return TARGET_DB + MARGINS_DB.get(recipe.encoder, 0.0)


def _next_quality(psnr_db: dict[float, float], quality: float, recipe: EncoderRecipe) -> float:
    """The next quality to try: along the slope so far, between the qualities already tried."""
    qualities = traits(recipe.encoder).qualities
    assert qualities is not None, "a recipe that is not settled has a range of qualities"
    best, _, worst = qualities
    slope = 2.0 if worst <= 8 else 0.5
    if len(psnr_db) > 1:
        (q0, d0), (q1, d1) = sorted(psnr_db.items())[:: len(psnr_db) - 1]
        slope = max(slope / 3, (d0 - d1) / (q1 - q0))
    target = _target_db(recipe)
    good = [q for q, db in psnr_db.items() if db >= target]
    bad = [q for q, db in psnr_db.items() if db < target]
    low, high = (max(good) if good else best), (min(bad) - 1 if bad else worst)
    over = psnr_db[quality] - target
    step = int(over / slope) or (1 if over > 0 else -1)
    return max(low, min(high, quality + step))


def dynamic_hdr(info: StreamInfo) -> list[str]:
    """Names of per-frame HDR data on the first picture, which no encoder here writes."""
    with open_video(Path(info.path)) as container:
        picture = next(container.decode(video_stream(container)), None)
        kinds = {kind.name for kind in side_data(picture)} if picture is not None else set()
    return [name for name, tags in _DYNAMIC_HDR.items() if kinds & tags]


def _sample(info: StreamInfo, window: Window) -> _Sample:
    """Pictures from several positions, cropped to at most _MAX_SIZE."""
    unit = info.time_base
    start = info.start_pts if window[0] is None else int(window[0] / unit)
    length = info.duration_s if window[1] is None else float(window[1] - start * unit)
    enough = info.rate and length * info.rate > 2 * len(_POSITIONS) * _FRAMES
    count = _FRAMES if enough else len(_POSITIONS) * _FRAMES
    pictures: list[av.VideoFrame] = []
    size = 0
    with open_video(Path(info.path)) as container:
        stream = video_stream(container)
        stream.thread_type = "AUTO"
        for position in _POSITIONS if enough else (0.0,):
            if enough or window[0] is not None:
                container.seek(start + int(position * length / unit), stream=stream)
            sizes, decoded = [], 0
            for packet in container.demux(stream):
                if packet.size:
                    sizes.append(packet.size)
                fresh = packet.decode()[: count - decoded]
                pictures.extend(_cropped(picture) for picture in fresh)
                decoded += len(fresh)
                if decoded == count:
                    break
            size += sum(sizes[:decoded])
        part = 1.0
        if pictures:
            part = pictures[0].width * pictures[0].height / (info.view.width * info.view.height)
        return _Sample(pictures, size * part, stream.codec_context)


def _cropped(picture: av.VideoFrame) -> av.VideoFrame:
    """The middle of a picture, at most _MAX_SIZE."""
    if picture.width <= _MAX_SIZE[0] and picture.height <= _MAX_SIZE[1]:
        return picture
    width, height = min(picture.width, _MAX_SIZE[0]), min(picture.height, _MAX_SIZE[1])
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=picture.width, height=picture.height, format=picture.format, time_base=Fraction(1, 25)
    )
    left, top = (picture.width - width) // 2 // _GRID * _GRID, (picture.height - height) // 2 // _GRID * _GRID
    crop = graph.add("crop", f"{width}:{height}:{left}:{top}")
    source.link_to(crop)
    crop.link_to(graph.add("buffersink"))
    graph.configure()
    graph.vpush(picture)
    return graph.vpull()


def _encode_sample(
    info: StreamInfo, recipe: EncoderRecipe, sample: _Sample, threads: int
) -> tuple[float, int]:
    """Encode and decode: luma PSNR of the worst picture, dB, and size in bytes."""
    pictures = sample.pictures
    size = pictures[0].width, pictures[0].height
    small = replace(info, view=View(*size, info.view.sar), rate=info.rate or Fraction(25))
    encoder = av.Codec(recipe.encoder, "w").create("video")
    encoder_setup.configure(encoder, small, recipe, sample.like, threads)
    encoder.time_base = 1 / Fraction(small.rate)
    encoder.open()
    ordinary_priority()
    packets = []
    for index, picture in enumerate(pictures):
        picture.pict_type = 0
        picture.pts, picture.time_base = index, encoder.time_base
        packets.extend(encoder.encode(picture))
    packets.extend(encoder.encode(None))
    same = recipe.codec == codecs.canonical(info.codec)
    reader = info.codec if same else {"av1": "libdav1d"}.get(recipe.codec, recipe.codec)
    decoder = av.Codec(reader, "r").create("video")
    decoder.extradata = encoder.extradata
    decoded = [frame for packet in (*packets, None) for frame in decoder.decode(packet)]
    if len(decoded) != len(pictures):
        raise ValueError(f"got {len(decoded)} pictures back, expected {len(pictures)}")
    worst = min(luma_psnr_db(a, b) for a, b in zip(pictures, decoded, strict=True))
    return worst, sum(packet.size for packet in packets)


def luma_psnr_db(one: av.VideoFrame, two: av.VideoFrame) -> float:
    """PSNR of two pictures' luma (green for RGB), dB; 99 where they are the same."""
    layout = pixel_formats.layout_of(two.format.name)
    if layout is None or one.format.name != two.format.name:
        one, two = one.reformat(format="gray16le"), two.reformat(format="gray16le")
        layout = pixel_formats.handled_layout("gray16le")
    part = 1 if layout.kind == "rgb" else 0
    a, b = (pixel_formats.view(picture, layout, part).astype(np.float32) for picture in (one, two))
    error = float(np.mean((a - b) ** 2)) / (1 << 2 * layout.shift)
    top = (1 << layout.depth) - 1
    return 99.0 if error == 0 else float(10 * np.log10(top * top / error))
