"""Messages from a camera's process to its sinks: plain values that can be pickled."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypedDict

LIVE_TIME_BASE = Fraction(1, 90000)
"""Unit of all live pts and dts, s.

They count from 0 at the start of the session and rise whatever the source's own times do. While a
connection is lost they go on in real time.
"""


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """Format of encoded sound."""

    codec: str
    """FFmpeg's name, such as "aac" or "pcm_alaw"."""
    sample_rate: int
    layout: str
    """FFmpeg's name, such as "mono"."""
    extradata: bytes = field(default=b"", repr=False)
    """Global headers of the codec; empty where it has none."""


@dataclass(frozen=True, slots=True)
class VideoFormat:
    """Format of the encoded video."""

    codec: str
    """FFmpeg's name, such as "h264"."""
    width: int
    height: int
    rate: Fraction
    """Nominal frames a second."""
    extradata: bytes = field(default=b"", repr=False)
    """Global headers of the codec."""


@dataclass(frozen=True, slots=True)
class AudioPacket:
    """A packet of the source's own sound; times are in LIVE_TIME_BASE."""

    epoch: int
    """See `Frame.epoch`."""
    pts: int
    duration: int
    data: bytes = field(repr=False)
    format: AudioFormat


@dataclass(frozen=True, slots=True)
class EpochStart:
    """An epoch begins: the formats of the packets that follow. Files begin anew, publishers reconnect."""

    epoch: int
    """See `Frame.epoch`."""
    video: VideoFormat
    audio: AudioFormat | None
    began_at: float
    """Unix time of the first picture, s."""
    note: str
    """The text of the metadata tag that says that faces were restored."""


@dataclass(frozen=True, slots=True)
class Packet:
    """An encoded packet of video or sound; times are in LIVE_TIME_BASE. The dts rise within each kind."""

    is_video: bool
    """True: video; False: sound."""
    data: bytes = field(repr=False)
    pts: int
    dts: int
    duration: int
    keyframe: bool = False
    """Whether decoding can begin with this picture; False for sound."""
    arrived_at_s: float = 0.0
    """`Frame.arrived_at_s` of the picture; 0 for sound."""


@dataclass(frozen=True, slots=True)
class JpegPicture:
    """A JPEG picture, for MJPEG and previews."""

    data: bytes = field(repr=False)
    arrived_at_s: float
    """See `Frame.arrived_at_s`."""
    pts: int
    """Time of the picture, in LIVE_TIME_BASE."""


@dataclass(frozen=True, slots=True)
class RawPicture:
    """A picture for a window or a virtual camera: RGB u8[height,width,3], rows without padding."""

    data: bytes = field(repr=False)
    width: int
    height: int
    rate: Fraction
    """Nominal frames a second."""
    arrived_at_s: float
    """See `Frame.arrived_at_s`."""


class FaceFacts(TypedDict):
    """Facts about a face in a snapshot; the index of the snapshots holds them as a line of JSON."""

    at: str
    """Time of the picture, UTC, ISO 8601."""
    track: int
    """Number of the face's track, `Face.track_id`."""
    x: int
    """Left edge of the face's box, upright px; `y` is its upper edge."""
    y: int
    width: int
    height: int
    score: float
    """The detector's score, in 0..1."""
    sharpness: float
    """Sharpness of the original, in 0..1; 0 where it was not measured."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A face before and after restoration."""

    name: str
    """UTC time and track, safe as a file name."""
    original: bytes = field(repr=False)
    """A PNG file; so is `restored`."""
    restored: bytes = field(repr=False)
    facts: FaceFacts


Message = EpochStart | Packet | JpegPicture | RawPicture | Snapshot


@dataclass(frozen=True, slots=True)
class FinishSink:
    """The last message to a sink's process: the process finishes its output and ends."""
