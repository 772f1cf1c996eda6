"""A live source made by hand: pictures that flash, sound that beeps with them; and a file read back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from waiting import LIMIT_S

from stream.config_live import LiveEncodingSettings
from stream.live.packets import LIVE_TIME_BASE, AudioFormat, AudioPacket, EpochStart, Packet
from stream.live.sinks.live_encoder import LiveEncoder
from stream.picture.colour import Colour
from stream.picture.face import FrameWork
from stream.picture.frame import Frame, Timestamp, View

RATE = Fraction(25)
STEP = round(1 / (RATE * LIVE_TIME_BASE))
FLASH_EVERY = 25
"""Frames from one flash to the next. A flash and its beep last for three frames."""


def picture(index: int, size: tuple[int, int] = (320, 180)) -> av.VideoFrame:
    """Dark texture that moves; bright where it flashes."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    base = 225 if index % FLASH_EVERY < 3 else 40
    luma = np.uint8(base + 8 * np.sin((x + 3 * index) / 7) * np.cos(y / 5))
    chroma = np.full((height // 2, width), 128, np.uint8)
    return av.VideoFrame.from_ndarray(np.concatenate([luma, chroma]), format="yuv420p")


def frame(index: int, epoch: int = 0, size: tuple[int, int] = (320, 180), first_pts: int = 0) -> Frame:
    """The picture as the capture would hand it on."""
    return Frame(
        index, Timestamp(first_pts + index * STEP, LIVE_TIME_BASE), picture(index, size), View(*size),
        Colour(2, 2, 2, False), arrived_at_s=time.monotonic(), epoch=epoch,
    )  # fmt: skip


def first_picture(path: Path) -> av.VideoFrame:
    with av.open(str(path)) as source:
        return next(source.decode(video=0))


def frame_of(picture: av.VideoFrame, arrived_at_s: float = 100.0, **view) -> Frame:
    """A frame of unspecified colour that shows a given picture; `view` are fields of View."""
    return Frame(
        0, Timestamp(0, LIVE_TIME_BASE), picture, View(picture.width, picture.height, **view),
        Colour(2, 2, 2, False), arrived_at_s=arrived_at_s,
    )  # fmt: skip


def work(index: int, **changes) -> FrameWork:
    return FrameWork(frame(index, **changes))


def coded(
    frames: int, epoch: int = 0, size: tuple[int, int] = (320, 180), first_pts: int = 0
) -> Iterator[EpochStart | Packet]:
    """An epoch without sound, a keyframe each second."""
    encoder = None
    for index in range(frames):
        shown = frame(index, epoch, size, first_pts)
        if encoder is None:
            encoder = LiveEncoder(shown, RATE, LiveEncodingSettings(), 1)
            yield EpochStart(epoch, encoder.format, None, time.time(), "faces restored by a test")
        yield from encoder.encode(shown, shown.time.pts, index % FLASH_EVERY == 0)


def sound(codec: str, rate: int, seconds: float, epoch: int = 0, first_pts: int = 0) -> Iterator[AudioPacket]:
    """Beeps of 1 kHz beside the flashes, coded; times are those of the first sample that is heard."""
    encoder = av.CodecContext.create(codec, "w")
    encoder.sample_rate, encoder.layout = rate, "mono"
    encoder.format = encoder.codec.audio_formats[0]
    encoder.time_base = Fraction(1, rate)
    if codec == "aac":
        encoder.flags |= av.codec.context.Flags.global_header
    encoder.open()
    size = encoder.frame_size or rate // 50
    format = AudioFormat(encoder.codec.canonical_name, rate, "mono", bytes(encoder.extradata or b""))
    resampler = av.AudioResampler(format=encoder.format, layout="mono", rate=rate)
    for begin in range(0, round(seconds * rate), size):
        at = np.arange(begin, begin + size) / rate
        loud = (at * float(RATE)) % FLASH_EVERY < 3
        wave = np.float32(0.5 * np.sin(2 * np.pi * 1000 * at) * loud)[None]
        block = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        block.sample_rate, block.pts, block.time_base = rate, begin, Fraction(1, rate)
        for part in resampler.resample(block):
            for coded in encoder.encode(part):
                unit = Fraction(1, rate) / LIVE_TIME_BASE
                yield AudioPacket(
                    epoch, first_pts + round(coded.pts * unit), round(size * unit), bytes(coded), format
                )


@dataclass
class Recording:
    """A file read to its end: every picture and all sound decoded."""

    sizes: list[tuple[int, int]] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    flashes_s: list[float] = field(default_factory=list)
    beeps_s: list[float] = field(default_factory=list)
    packet_times: dict[str, list[int]] = field(default_factory=dict)
    """dts of every packet by kind of stream."""
    metadata: dict[str, str] = field(default_factory=dict)
    duration_s: float = 0.0


def read(path: str | Path) -> Recording:
    """Decode all; raises av.FFmpegError where something is broken."""
    result = Recording()
    with av.open(str(path)) as container:
        result.metadata, result.duration_s = dict(container.metadata), (container.duration or 0) / 1e6
        bright, levels = False, []
        for packet in container.demux():
            if packet.dts is not None:
                result.packet_times.setdefault(packet.stream.type, []).append(packet.dts)
            for part in packet.decode():
                if isinstance(part, av.VideoFrame):
                    now_bright = part.to_ndarray(format="gray").mean() > 130
                    if now_bright and not bright:
                        result.flashes_s.append(part.time)
                    bright = now_bright
                    result.times_s.append(part.time)
                    result.sizes.append((part.width, part.height))
                else:
                    wave = part.to_ndarray().reshape(-1, part.samples)[0]
                    levels.append((part.time, part.sample_rate, np.abs(np.float32(wave))))
    result.beeps_s = _onsets(levels)
    return result


def _onsets(levels: list) -> list[float]:
    onsets, quiet_since = [], None
    for begin, rate, wave in levels:
        if quiet_since is None:
            quiet_since = begin - 1
        for index in np.flatnonzero(wave > 0.15):
            at = begin + index / rate
            if at - quiet_since > 0.2:
                onsets.append(at)
            quiet_since = at
    return onsets


def wait_for(condition: Callable[[], object], timeout_s: float = LIMIT_S, tick: Callable[[], object] = int):
    """Its first true value; AssertionError after `timeout_s`. `tick` is called between the tries."""
    end_s = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < end_s, "waited in vain"
        tick()
        time.sleep(0.02)
    return value
