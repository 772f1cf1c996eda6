"""Short films with faces, cuts and regular keyframes, made of a sample; and their packets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
from conftest import SAMPLES

SIZE = 320, 240
CUTS = 124, 184
"""Frames of a film at which another scene begins, if nothing else is said."""


def film(
    path: Path,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    *,
    gop: int = 25,
    frames: int = 215,
    cuts: tuple[int, int] = CUTS,
    options: dict[str, str] | None = None,
) -> Path:
    """A film at 320x240 and 25 fps: one face, then six, then the one again.

    Keyframes lie at the `cuts` and every `gop` frames. The sound is the portrait's; WebM has none.
    """
    with av.open(str(SAMPLES / "portrait.mp4")) as source, av.open(str(path), "w") as output:
        tone = source.streams.audio[0]
        stream = output.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *SIZE, pix_fmt
        stream.codec_context.time_base = Fraction(1, 12800)
        stream.codec_context.gop_size, stream.codec_context.thread_count = gop, 2
        copy = output.add_stream_from_template(tone) if path.suffix != ".webm" else None
        for packet in source.demux(tone) if copy is not None else ():
            if packet.size and packet.pts * packet.time_base < Fraction(frames, 25):
                packet.stream = copy
                output.mux(packet)
        for index, picture in enumerate(islice(_scenes(cuts), frames)):
            small = picture.reformat(*SIZE, format=pix_fmt)
            small.pts, small.time_base = index * 512, Fraction(1, 12800)
            small.pict_type = 1 if index in cuts else 0  # an encoder in a hurry sees no cuts
            output.mux(stream.encode(small))
        output.mux(stream.encode(None))
    return path


def _scenes(cuts: tuple[int, int]) -> Iterator[av.VideoFrame]:
    """Portrait, group, portrait."""
    with av.open(str(SAMPLES / "portrait.mp4")) as one, av.open(str(SAMPLES / "group.mp4")) as many:
        portrait = one.decode(video=0)
        yield from islice(portrait, cuts[0])
        yield from islice(many.decode(video=0), cuts[1] - cuts[0])
        yield from portrait


def packets_sha256(path: Path) -> str:
    """The SHA-256 of all packets of all streams, with their times."""
    digest = hashlib.sha256()
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.size:
                head = packet.stream.index, packet.pts, packet.dts, packet.duration, packet.is_keyframe
                digest.update(repr(head).encode() + bytes(packet))
    return digest.hexdigest()


def times(path: Path) -> list[Fraction]:
    """The presentation times of the pictures, seconds."""
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]
