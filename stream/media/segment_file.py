"""A part of a video that is encoded: packets in a file, and their index in a receipt beside it.

No container of FFmpeg's keeps every codec and exact times: Matroska rounds times to a millisecond, NUT
refuses ProRes and DNxHD, and MP4 rewrites H.264. So a segment's file holds the bytes of its packets one
after the other, which is the codec's elementary stream, and its index holds everything else.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.stream import Stream
from pydantic import BaseModel

from stream.errors import PlanError


class PacketIndex(BaseModel, frozen=True):
    """The packets of a segment's file, in the order in which they lie there."""

    pts: tuple[int, ...]
    """Times of the packets, in units of the input's time base, on the output's clock."""
    sizes: tuple[int, ...]
    """Sizes of the packets, bytes."""
    keyframes: tuple[int, ...]
    """Indices of the packets at which decoding can begin."""
    sha256: str
    """SHA-256 of all bytes of the packets, hexadecimal."""
    extradata: str
    """The codec's headers, hexadecimal."""

    @classmethod
    def empty(cls) -> PacketIndex:
        """The index of a file without packets."""
        return cls(pts=(), sizes=(), keyframes=(), sha256=hashlib.sha256().hexdigest(), extradata="")


@dataclass(frozen=True, slots=True)
class EncodedPacket:
    """A packet of the joined video, its times in units of `time_base`."""

    data: bytes
    pts: int
    dts: int
    duration: int
    time_base: Fraction
    is_keyframe: bool


class SegmentFile:
    """A segment's file while it is written. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("xb")
        self._digest = hashlib.sha256()
        self._pts: list[int] = []
        self._sizes: list[int] = []
        self._keyframes: list[int] = []

    def write(self, packets: Sequence[av.Packet[Stream]]) -> None:
        """Append packets whose times are in units of the input's time base, on the output's clock."""
        for packet in packets:
            data = bytes(packet)
            assert packet.pts is not None, "FFmpeg's encoders time every packet"
            if packet.is_keyframe:
                self._keyframes.append(len(self._pts))
            self._pts.append(packet.pts)
            self._sizes.append(len(data))
            self._digest.update(data)
            self._file.write(data)

    def index(self, extradata: bytes) -> PacketIndex:
        """The index of the packets so far."""
        return PacketIndex(
            pts=tuple(self._pts),
            sizes=tuple(self._sizes),
            keyframes=tuple(self._keyframes),
            sha256=self._digest.hexdigest(),
            extradata=extradata.hex(),
        )

    def sync(self) -> None:
        """Have all bytes on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()


def is_intact(path: Path, index: PacketIndex) -> bool:
    """Whether the file is there and holds the bytes that its index names."""
    digest = hashlib.sha256()
    try:
        if path.stat().st_size != sum(index.sizes):
            return False
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return False
    return digest.hexdigest() == index.sha256


def joined(
    parts: Sequence[tuple[Path, PacketIndex]], time_base: Fraction, end_pts: int
) -> Iterator[EncodedPacket]:
    """The packets of all parts as one video.

    end_pts: where the last picture ends; 0: unknown, it lasts as long as the one before. Decoding times
    follow from the sorted presentation times and one constant delay, as an encoder of all pictures would
    give them. Raises PlanError where a file ends early.
    """
    coded = [pts for _, index in parts for pts in index.pts]
    shown = sorted(coded)
    rank = {pts: place for place, pts in enumerate(shown)}
    delay = max((at - rank[pts] for at, pts in enumerate(coded)), default=0)
    at = 0
    for path, index in parts:
        keyframes = set(index.keyframes)
        with path.open("rb") as file:
            for number, (pts, size) in enumerate(zip(index.pts, index.sizes, strict=True)):
                data = file.read(size)
                if len(data) != size:
                    raise PlanError(f"{path}: ends early; run the same command again to restore it anew")
                dts = shown[at - delay] if at >= delay else shown[at] - (shown[delay] - shown[0])
                yield EncodedPacket(
                    data,
                    pts,
                    dts,
                    _duration(shown, rank[pts], end_pts),
                    time_base,
                    number in keyframes,
                )
                at += 1


def _duration(shown: Sequence[int], place: int, end_pts: int) -> int:
    if place + 1 < len(shown):
        return shown[place + 1] - shown[place]
    before = shown[place] - shown[place - 1] if place else 1
    left = end_pts - shown[place]
    return left if 0 < left <= 4 * before else before
