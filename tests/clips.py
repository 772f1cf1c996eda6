"""Small test videos, made with PyAV: any codec, pixel format, tags, timing and extra streams."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 48000
ASS_HEADER = (
    b"[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize, PrimaryColour, "
    b"SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, StrikeOut, ScaleX, ScaleY, "
    b"Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding\nStyle: "
    b"Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1\n\n[Events]\nFormat: "
    b"Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
)


@dataclass(frozen=True)
class Sound:
    """A sound stream with a tone. Every stream has another pitch."""

    codec: str = "aac"
    language: str = "eng"
    title: str = ""
    disposition: int = 1
    start_s: float = 0.0
    seconds: float | None = None
    """None: as long as the pictures."""
    layout: str = "stereo"


@dataclass(frozen=True)
class Clip:
    """A clip to write; by default 25 frames of 160x120 H.264 at 25 fps."""

    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    size: tuple[int, int] = (160, 120)
    frames: int = 25
    rate: Fraction = Fraction(25)
    time_base: Fraction | None = None
    """None: 1 / (512 * rate), in AVI 1 / rate. The container may use another."""
    pts: tuple[int, ...] | None = None
    """Times in units of time_base; None: constant rate from start_s."""
    start_s: float = 0.0
    options: dict[str, str] = field(default_factory=lambda: {"preset": "veryfast"})
    quantiser: int = 0
    bit_rate: int = 0
    range_full: bool = False
    matrix: int = 2
    transfer: int = 2
    primaries: int = 2
    chroma_location: str = ""
    rotation: int = 0
    """Rotation in degrees, counter-clockwise."""
    sar: Fraction = Fraction(1)
    interlaced: str = ""
    """"tt" or "bb"."""
    noise: float = 0.0
    """Standard deviation, in 8-bit levels."""
    sounds: tuple[Sound, ...] = ()
    subtitles: str = ""
    """A codec: mov_text, ass, subrip, webvtt."""
    subtitle_language: str = "deu"
    chapters: bool = False
    cover: bool = False
    font: bool = False
    second_video: bool = False
    timecode: str = ""
    data: str = ""
    """Codec of a data stream, such as klv."""
    metadata: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)


def picture(index: int, size: tuple[int, int], noise: float = 0.0) -> np.ndarray:
    """A moving pattern with texture and edges, RGB u8[h,w,3], determined by its index."""
    width, height = size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x = x + index * 1.5
    base = 118 + 50 * np.sin(x / 9 + y / 23) + 30 * np.sin(y / 5 - x / 31)
    block = ((x // 16 + y // 16) % 2) * 18
    rgb = np.stack([base + block, base * 0.8 + 20, 200 - base * 0.6], axis=-1)
    if noise:
        rgb = rgb + np.random.default_rng(index).normal(0, noise, rgb.shape)
    return np.clip(rgb, 0, 255).astype(np.uint8)


def jpeg(side: int = 32) -> bytes:
    """A small JPEG file."""
    context = av.CodecContext.create("mjpeg", "w")
    context.width = context.height = side
    context.pix_fmt, context.time_base = "yuvj420p", Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(picture(0, (side, side))).reformat(format="yuvj420p")
    return bytes(context.encode(frame)[0])


def make(path: str | Path, clip: Clip | None = None, **changes) -> Path:
    """Write a clip; keywords override the clip's fields."""
    clip = clip or Clip()
    if changes:
        clip = Clip(**{**clip.__dict__, **changes})
    path = Path(path)
    with av.open(str(path), "w", container_options=clip.container_options) as output:
        _write(output, clip)
    return path


def _write(output, clip: Clip) -> None:
    mov = "mp4" in output.format.name or output.format.name == "mov"
    output.metadata.update(clip.metadata)
    video = _video(output, clip)
    sounds = [_sound(output, sound) for sound in clip.sounds]
    second = _second(output, clip) if clip.second_video else None
    text = _text(output, clip) if clip.subtitles else None
    data = output.add_data_stream(clip.data) if clip.data else None
    if data is not None:
        data.time_base = Fraction(1, 90000)
    cover = None
    if clip.cover and mov:
        cover = output.add_mux_stream("mjpeg", width=32, height=32)
        cover.disposition = av.stream.Disposition.attached_pic
    elif clip.cover:
        output.add_attachment("cover.jpg", "image/jpeg", jpeg())
    if clip.font:
        output.add_attachment("letters.ttf", "application/x-truetype-font", bytes(range(256)) * 4)
    if clip.chapters:
        unit = Fraction(1, 1000)
        output.set_chapters(
            [
                {"id": 1, "start": 0, "end": 400, "time_base": unit, "metadata": {"title": "one"}},
                {"id": 2, "start": 400, "end": 1000, "time_base": unit, "metadata": {"title": "two"}},
            ]
        )
    output.start_encoding()
    if cover is not None:
        _mux(output, cover, jpeg(), 0, 0)
    for start in (200, 600) if text is not None else ():
        _mux(output, text, _line(clip.subtitles, f"line {start}"), start, 250)
    for start in (0, 400) if data is not None else ():
        _mux(output, data, b"\x06\x0e\x2b\x34" + bytes(12), start, 0)
    span = _pictures(output, video, second, clip)
    for stream, sound in sounds:
        _tone(output, stream, sound, span)


def _unit(output, clip: Clip) -> Fraction:
    return clip.time_base or 1 / (clip.rate if output.format.name == "avi" else 512 * clip.rate)


def _video(output, clip: Clip):
    stream = output.add_stream(clip.codec, rate=clip.rate, options=dict(clip.options))
    context = stream.codec_context
    context.width, context.height = clip.size
    context.pix_fmt = clip.pix_fmt
    context.time_base = stream.time_base = _unit(output, clip)
    if clip.codec in ("mpeg4", "mpeg2video", "mpeg1video"):
        context.time_base = 1 / clip.rate
    context.sample_aspect_ratio = clip.sar
    context.colorspace, context.color_trc, context.color_primaries = (
        clip.matrix,
        clip.transfer,
        clip.primaries,
    )
    full = clip.range_full or clip.pix_fmt.startswith("yuvj") or clip.codec == "mjpeg"
    context.color_range = 2 if full else 1
    context.thread_count = 2
    context.bit_rate = clip.bit_rate
    if clip.quantiser:
        context.qscale = True
        context.qmin = context.qmax = clip.quantiser
    if clip.chroma_location:
        context.options |= {"chroma_sample_location": clip.chroma_location}
    if clip.interlaced:
        context.options |= {"flags": "+ildct+ilme"}
        context.field_order = {"tt": 2, "bb": 3}[clip.interlaced]
    if clip.rotation:
        stream.set_display_rotation(clip.rotation)
    if clip.timecode:
        stream.metadata["timecode"] = clip.timecode
    return stream


def _sound(output, sound: Sound):
    stream = output.add_stream(sound.codec, rate=RATE)
    stream.codec_context.layout = sound.layout
    stream.codec_context.bit_rate = 128_000
    stream.time_base = Fraction(1, RATE)
    stream.metadata["language"] = sound.language
    if sound.title:
        stream.metadata["title"] = sound.title
    stream.disposition = sound.disposition
    return stream, sound


def _second(output, clip: Clip):
    stream = output.add_stream("libx264", rate=clip.rate, options={"preset": "ultrafast"})
    stream.codec_context.width, stream.codec_context.height = 64, 48
    stream.disposition = 0
    return stream


def _text(output, clip: Clip):
    stream = output.add_stream(clip.subtitles)
    stream.codec_context.subtitle_header = ASS_HEADER
    stream.time_base = Fraction(1, 1000)
    stream.metadata["language"] = clip.subtitle_language
    return stream


def _line(codec: str, text: str) -> bytes:
    if codec == "mov_text":
        return len(text).to_bytes(2, "big") + text.encode()
    return f"0,0,Default,,0,0,0,,{text}".encode() if codec in ("ass", "ssa") else text.encode()


def _mux(output, stream, payload: bytes, start_ms: int, duration_ms: int) -> None:
    packet = av.Packet(payload)
    packet.stream = stream
    packet.time_base = Fraction(1, 1000)
    packet.pts = packet.dts = start_ms
    packet.duration = duration_ms
    output.mux_one(packet)


def _pictures(output, video, second, clip: Clip) -> tuple[float, float]:
    """Encode all pictures; returns start and end in seconds."""
    base = _unit(output, clip)
    first = round(clip.start_s / base)
    times = clip.pts or [first + round(i / clip.rate / base) for i in range(clip.frames)]
    counted = video.codec_context.time_base != base
    for index, pts in enumerate(times):
        rgb = av.VideoFrame.from_ndarray(picture(index, clip.size, clip.noise))
        frame = rgb.reformat(
            format=clip.pix_fmt,
            dst_colorspace=clip.matrix if clip.matrix != 2 else None,
            dst_color_range=2 if video.codec_context.color_range == 2 else 1,
        )
        if clip.interlaced:
            frame = _with_fields(frame, clip.interlaced)
        frame.pts, frame.time_base = (index, video.codec_context.time_base) if counted else (pts, base)
        output.mux(video.encode(frame))
        if second is not None:
            small = av.VideoFrame.from_ndarray(picture(index, (64, 48))).reformat(format="yuv420p")
            small.pts, small.time_base = index, 1 / clip.rate
            output.mux(second.encode(small))
    output.mux(video.encode(None))
    if second is not None:
        output.mux(second.encode(None))
    return float(times[0] * base), float(times[-1] * base + 1 / clip.rate)


def _with_fields(frame: av.VideoFrame, order: str) -> av.VideoFrame:
    """The frame marked as interlaced, which only a filter can do."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 25)
    )
    marker = graph.add("setfield", {"tt": "tff", "bb": "bff"}[order])
    sink = graph.add("buffersink")
    source.link_to(marker)
    marker.link_to(sink)
    graph.configure()
    source.push(frame)
    return sink.pull()


def _tone(output, stream, sound: Sound, span: tuple[float, float]) -> None:
    seconds = sound.seconds if sound.seconds is not None else span[1] - sound.start_s
    size = stream.codec_context.frame_size or 1024
    channels = stream.codec_context.layout.nb_channels
    first = round(sound.start_s * RATE)
    for start in range(0, round(seconds * RATE), size):
        time = np.arange(start, start + size) / RATE
        wave = (0.2 * np.sin(2 * np.pi * (330 + 110 * stream.index) * time)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(np.stack([wave] * channels), "fltp", sound.layout)
        frame.sample_rate, frame.pts, frame.time_base = RATE, first + start, Fraction(1, RATE)
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def remux(src, dst, only=("video", "audio"), **options):
    """Copy the streams of some kinds into another container; `options` are the muxer's."""
    with av.open(str(src)) as source, av.open(str(dst), "w", options=options) as output:
        streams = {s.index: output.add_stream_from_template(s) for s in source.streams if s.type in only}
        for packet in source.demux([source.streams[index] for index in streams]):
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)


def first_part(src, dst, part):
    """Copy the first `part` (0..1) of a file's bytes."""
    data = src.read_bytes()
    dst.write_bytes(data[: int(len(data) * part)])
