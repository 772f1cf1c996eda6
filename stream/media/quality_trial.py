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

from stream.media import codecs, hardware
from stream.media.codecs import EncoderRecipe
from stream.media.container import Window, open_video, video_stream
from stream.media.probe import side_data
from stream.picture import pixel_formats
from stream.picture.frame import StreamInfo, View
from stream.pipeline.cpu_budget import ordinary_priority

TARGET_DB = 42.6
"""Luma PSNR that the worst tried frame must keep; all frames shall keep 42."""
MARGINS_DB = {"libx265": 0.8}
"""More, where frames differ more among each other than the few that are tried (measured)."""
LIMIT = 2.0
"""Estimated growth of the video above which the thorough preset takes over; 2.5 is the promise."""
_CLOSE_DB = 0.6
_PLACES = (0.05, 0.35, 0.65, 0.9)
_FRAMES = 9
"""Frames tried at each place."""
_MAX_SIZE = 640, 384
"""The middle of larger pictures is tried, px. It starts on the old codec's grid of blocks, or 1 dB
is lost that the whole picture would keep (measured)."""
_GRID = 64
_TRIALS = 4
_DYNAMIC = {
    "Dolby Vision data": {"DOVI_METADATA", "DOVI_RPU_BUFFER"},
    "HDR10+ data": {"DYNAMIC_HDR_PLUS"},
    "HDR Vivid data": {"DYNAMIC_HDR_VIVID"},
}


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    pictures: list[av.VideoFrame]
    size: float
    """Bytes of these pictures in the input, in proportion to what the crop shows."""
    like: av.VideoCodecContext


def settle(
    info: StreamInfo, plan: EncoderRecipe, threads: int, window: Window, rivals: Sequence[EncoderRecipe] = ()
) -> EncoderRecipe:
    """The plan with the cheapest quality that keeps TARGET_DB on frames from all over the video.

    An encoder or input that cannot be tried keeps its first value: whatever is wrong will show when
    it is used.
    The first of the `rivals` that keeps TARGET_DB within LIMIT takes the plan's place.
    """
    if plan.settled:
        return plan
    try:
        sample = _sample(info, window)
        if not sample.pictures:
            return replace(plan, settled=True)
        reasons = []
        for rival in rivals:
            try:
                return replace(_proven(info, rival, sample, threads), settled=True)
            except hardware.Unusable as reason:
                reasons.append(str(reason))
        if reasons:
            note = f"{info.path}: encoded by {plan.encoder}, no hardware would do ({'; '.join(reasons)})"
            plan = replace(plan, notes=(*plan.notes, note))
        plan, growth, _ = _search(info, plan, sample, threads)
        for preset in plan.thorough:
            if growth > LIMIT and preset != plan.options["preset"]:
                plan = replace(plan, options=plan.options | {"preset": preset})
                plan, growth, _ = _search(info, plan, sample, threads)
    except (av.FFmpegError, ValueError):
        return replace(plan, settled=True)  # told where it is used, with the file's name
    return replace(plan, settled=True)


def _proven(info: StreamInfo, rival: EncoderRecipe, sample: _Sample, threads: int) -> EncoderRecipe:
    """A hardware encoder with its quality; Unusable where it does not open, or falls short."""
    if "Baseline" in (sample.like.profile or ""):
        raise hardware.Unusable(f"{rival.encoder}: writes no {sample.like.profile} profile here")
    try:
        encoder = av.Codec(rival.encoder, "w").create("video")
        codecs.configure(encoder, info, rival, sample.like, threads)
        encoder.open()  # at full size, which it may not know
        rival, growth, kept = _search(info, rival, sample, threads)
    except (av.FFmpegError, ValueError) as error:
        raise hardware.Unusable(f"{rival.encoder}: {hardware.why(error)}") from error
    if kept < TARGET_DB:
        raise hardware.Unusable(f"{rival.encoder}: keeps {kept:.1f} dB, {TARGET_DB} are wanted")
    if growth > LIMIT:
        raise hardware.Unusable(f"{rival.encoder}: makes the video {growth:.1f} times as large")
    return rival


def _search(
    info: StreamInfo, plan: EncoderRecipe, sample: _Sample, threads: int
) -> tuple[EncoderRecipe, float, float]:
    """The plan with the quality found, how many times larger than the input it makes the video,
    and the luma PSNR that it keeps, dB.
    """
    if plan.quality is None:
        raise ValueError(f"{plan.encoder} has no quality to be searched")
    quality = plan.quality
    tried: dict[float, float] = {}
    sizes: dict[float, int] = {}
    for _ in range(_TRIALS):
        tried[quality], sizes[quality] = _kept(info, replace(plan, quality=quality), sample, threads)
        if 0 <= tried[quality] - _target(plan) <= _CLOSE_DB:
            break
        quality = _next(tried, quality, plan)
        if quality in tried:
            break
    good = [q for q, db in tried.items() if db >= _target(plan)]
    quality = max(good) if good else min(tried)
    return replace(plan, quality=quality), sizes[quality] / max(1.0, sample.size), tried[quality]


def _target(plan: EncoderRecipe) -> float:
    return TARGET_DB + MARGINS_DB.get(plan.encoder, 0.0)


def _next(tried: dict[float, float], quality: float, plan: EncoderRecipe) -> float:
    """The next value to try: along the slope seen so far, between the values known."""
    best, _, worst = codecs.RANGES[plan.encoder]
    slope = 2.0 if worst <= 8 else 0.5
    if len(tried) > 1:
        (q0, d0), (q1, d1) = sorted(tried.items())[:: len(tried) - 1]
        slope = max(slope / 3, (d0 - d1) / (q1 - q0))
    good = [q for q, db in tried.items() if db >= _target(plan)]
    bad = [q for q, db in tried.items() if db < _target(plan)]
    low, high = (max(good) if good else best), (min(bad) - 1 if bad else worst)
    over = tried[quality] - _target(plan)
    step = int(over / slope) or (1 if over > 0 else -1)
    return max(low, min(high, quality + step))


def dynamic_hdr(info: StreamInfo) -> list[str]:
    """Names of per-frame HDR data on the first picture, which no encoder here carries on."""
    with open_video(Path(info.path)) as container:
        picture = next(container.decode(video_stream(container)), None)
        kinds = {kind.name for kind in side_data(picture)} if picture is not None else set()
    return [name for name, tags in _DYNAMIC.items() if kinds & tags]


def _sample(info: StreamInfo, window: Window) -> _Sample:
    """Pictures from several places, cropped to at most _MAX_SIZE."""
    unit = info.time_base
    start = info.start_pts if window[0] is None else int(window[0] / unit)
    length = info.duration_s if window[1] is None else float(window[1] - start * unit)
    enough = info.rate and length * info.rate > 2 * len(_PLACES) * _FRAMES
    count = _FRAMES if enough else len(_PLACES) * _FRAMES
    pictures: list[av.VideoFrame] = []
    size = 0
    with open_video(Path(info.path)) as container:
        stream = video_stream(container)
        stream.thread_type = "AUTO"
        for place in _PLACES if enough else (0.0,):
            if enough or window[0] is not None:
                container.seek(start + int(place * length / unit), stream=stream)
            sizes, decoded = [], 0
            for packet in container.demux(stream):
                if packet.size:
                    sizes.append(packet.size)
                fresh = packet.decode()[: count - decoded]
                pictures.extend(_middle(picture) for picture in fresh)
                decoded += len(fresh)
                if decoded == count:
                    break
            size += sum(sizes[:decoded])
        part = 1.0
        if pictures:
            part = pictures[0].width * pictures[0].height / (info.view.width * info.view.height)
        return _Sample(pictures, size * part, stream.codec_context)


def _middle(picture: av.VideoFrame) -> av.VideoFrame:
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


def _kept(info: StreamInfo, plan: EncoderRecipe, sample: _Sample, threads: int) -> tuple[float, int]:
    """Encode and decode: luma PSNR of the worst picture, dB, and size in bytes."""
    pictures = sample.pictures
    size = pictures[0].width, pictures[0].height
    small = replace(info, view=View(*size, info.view.sar), rate=info.rate or Fraction(25))
    encoder = av.Codec(plan.encoder, "w").create("video")
    codecs.configure(encoder, small, plan, sample.like, threads)
    encoder.time_base = 1 / Fraction(small.rate)
    encoder.open()
    ordinary_priority()
    packets = []
    for index, picture in enumerate(pictures):
        picture.pict_type = 0
        picture.pts, picture.time_base = index, encoder.time_base
        packets.extend(encoder.encode(picture))
    packets.extend(encoder.encode(None))
    same = plan.codec == codecs.canonical(info.codec)
    reader = info.codec if same else {"av1": "libdav1d"}.get(plan.codec, plan.codec)
    decoder = av.Codec(reader, "r").create("video")
    decoder.extradata = encoder.extradata
    decoded = [frame for packet in (*packets, None) for frame in decoder.decode(packet)]
    if len(decoded) != len(pictures):
        raise ValueError(f"got {len(decoded)} pictures back, expected {len(pictures)}")
    worst = min(_psnr(a, b) for a, b in zip(pictures, decoded, strict=True))
    return worst, sum(packet.size for packet in packets)


def _psnr(one: av.VideoFrame, two: av.VideoFrame) -> float:
    layout = pixel_formats.layout_of(two.format.name)
    if layout is None or one.format.name != two.format.name:
        one, two = one.reformat(format="gray16le"), two.reformat(format="gray16le")
        layout = pixel_formats.handled_layout("gray16le")
    part = 1 if layout.kind == "rgb" else 0
    a, b = (pixel_formats.view(picture, layout, part).astype(np.float32) for picture in (one, two))
    error = float(np.mean((a - b) ** 2)) / (1 << 2 * layout.shift)
    top = (1 << layout.depth) - 1
    return 99.0 if error == 0 else float(10 * np.log10(top * top / error))
