"""Epochs of a live source: stretches of frames of one size, colour, rate and sound."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TypedDict

import av
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideData

from stream.live.packets import AudioFormat
from stream.live.source.connection import OpenSource
from stream.media.probe import colour_of, turn_of
from stream.picture.colour import Colour
from stream.picture.frame import View


class SourceFacts(TypedDict):
    """Facts about an epoch for users; sent as JSON."""

    size: list[int]
    """Width and height of the stored picture, px."""
    codec: str
    rate: float
    """Nominal frames a second."""
    sound: str | None
    """Codec, sample rate and layout; None without sound."""
    transport: str | None
    """Transport of RTSP, "tcp" or "udp"; None for other protocols."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """A stretch of frames from one connection, all of one size, colour, rate and sound."""

    number: int
    """Number of the epoch, counted from 0; see `Frame.epoch`."""
    view: View
    colour: Colour
    rate: Fraction
    """Nominal frames a second."""
    audio: AudioFormat | None
    facts: SourceFacts


class EpochTracker:
    """Begins a new epoch with each connection, and where pictures or sound change."""

    def __init__(self) -> None:
        self.current: Epoch | None = None
        """The newest epoch, over all connections; None before the first picture."""
        self._properties: tuple[object, ...] | None = None
        """Whatever begins an epoch when it changes; None before a connection's first picture."""

    def begin_connection(self) -> None:
        """The next picture begins an epoch."""
        self._properties = None

    @property
    def has_begun(self) -> bool:
        """Whether the connection has had a picture."""
        return self._properties is not None

    def update(self, picture: av.VideoFrame, source: OpenSource, has_sound: bool) -> Epoch:
        """The epoch of a picture. `has_sound` says whether the source still sends its sound."""
        properties = (
            picture.width, picture.height, picture.format.name, picture.colorspace,
            picture.color_range, picture.color_trc, picture.rotation, source.sar, source.rate,
            has_sound or source.audio is None,
        )  # fmt: skip
        if self.current is None or properties != self._properties:
            self._properties = properties
            number = 0 if self.current is None else self.current.number + 1
            self.current = _epoch_of(number, picture, source, source.audio if has_sound else None)
        return self.current


def _epoch_of(number: int, picture: av.VideoFrame, source: OpenSource, audio: AudioFormat | None) -> Epoch:
    container: SideDataContainer = picture.side_data  # type: ignore[assignment]  # PyAV's stub is wrong
    side = {item.type: bytes(item) for item in container}
    rate = source.rate
    facts: SourceFacts = {
        "size": [picture.width, picture.height],
        "codec": source.codec,
        "rate": round(float(rate), 3),
        "sound": f"{audio.codec} {audio.sample_rate} Hz {audio.layout}" if audio else None,
        "transport": source.transport or None,
    }
    turn = turn_of(side.get(SideData.DISPLAYMATRIX, b""))
    view = View(picture.width, picture.height, source.sar, turn)
    return Epoch(number, view, colour_of(picture), rate, audio, facts)
