"""What goes from a camera's process to its sinks: plain values that can be pickled."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypedDict

LIVE_TIME_BASE = Fraction(1, 90000)
"""Of every live pts and dts from the capture on. They rise from 0 at the session's start, whatever the
source's own times do; where a connection was lost, the gap is as long as it really was."""


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """Sound as it comes from the source or goes to the sinks."""

    codec: str
    """FFmpeg's name, such as "aac" or "pcm_alaw"."""
    sample_rate: int
    layout: str
    """Such as "mono"."""
    extradata: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class VideoFormat:
    """The encoded picture."""

    codec: str
    width: int
    height: int
    rate: Fraction
    """Nominal frames a second."""
    extradata: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class AudioPacket:
    """A packet of the source's own sound; times in LIVE_TIME_BASE, on the pictures' clock."""

    epoch: int
    pts: int
    duration: int
    data: bytes = field(repr=False)
    format: AudioFormat


@dataclass(frozen=True, slots=True)
class Start:
    """A new epoch begins: what follows is coded like this. Files begin anew, publishers reconnect."""

    epoch: int
    video: VideoFormat
    audio: AudioFormat | None
    began_at: float
    """Unix time of the first picture, s."""
    note: str
    """The metadata tag that says that faces were restored."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One encoded packet; times in LIVE_TIME_BASE, dts rising within each of the two kinds."""

    is_video: bool
    data: bytes = field(repr=False)
    pts: int
    dts: int
    duration: int
    keyframe: bool = False
    """Of the picture; False for sound."""
    arrived_at_s: float = 0.0
    """Of the source packet it was made of; 0: sound."""


@dataclass(frozen=True, slots=True)
class Jpeg:
    """A picture for MJPEG and previews."""

    data: bytes = field(repr=False)
    arrived_at_s: float
    pts: int


@dataclass(frozen=True, slots=True)
class Raw:
    """A picture for a window or a virtual camera: RGB u8, rows without padding."""

    data: bytes = field(repr=False)
    width: int
    height: int
    rate: Fraction
    arrived_at_s: float


class FaceFacts(TypedDict):
    """What is known of a face in a snapshot; a line of the snapshots' index holds it as JSON."""

    at: str
    """UTC, ISO 8601, of the picture."""
    track: int
    x: int
    y: int
    width: int
    height: int
    """Its box in upright px."""
    score: float
    """Of the detector, 0..1."""
    sharpness: float
    """Of the original, 0..1; 0 where it was not measured."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One face beside its restoration, both PNG."""

    name: str
    """Safe as a file name: UTC time and track."""
    original: bytes = field(repr=False)
    restored: bytes = field(repr=False)
    facts: FaceFacts


Message = Start | Packet | Jpeg | Raw | Snapshot


@dataclass(frozen=True, slots=True)
class Finish:
    """The order to a sink's process to end: nothing comes after it."""
