"""Hands the pictures of a live session to its sinks."""

from __future__ import annotations

import time
from collections.abc import Callable
from fractions import Fraction

from av.video.reformatter import VideoReformatter

from stream.config_live import LiveEncodingSettings
from stream.live.packets import AudioFormat, AudioPacket, JpegPicture, Packet, RawPicture
from stream.live.session.coded_stream import CodedStream
from stream.live.sinks.sink_group import SinkGroup
from stream.picture.frame import Frame
from stream.picture.jpeg import encode_jpeg
from stream.picture.upright import upright_rgb


class Outlet:
    """Makes each form of a picture (packets, JPEG, RGB) once, and only while some sink wants it.

    `send` runs in the last stage's thread, `add_sound` in any. CodedStream describes the keyword arguments.
    A sink's failure raises nothing; EncodeError is raised where x264 cannot be started.
    """

    def __init__(
        self,
        sinks: SinkGroup,
        live: LiveEncodingSettings,
        *,
        note: str,
        threads: int,
        get_audio: Callable[[], AudioFormat | None],
        get_rate: Callable[[], Fraction],
    ) -> None:
        self._sinks, self._jpeg_quality, self._get_rate = sinks, live.jpeg_quality, get_rate
        self._coded = CodedStream(
            sinks, live, note=note, threads=threads, get_audio=get_audio, get_rate=get_rate
        )
        self._reformatter = VideoReformatter()

    def add_sound(self, packet: AudioPacket) -> None:
        """Add a packet of the source's sound. Never blocks."""
        if self._sinks.wants(Packet):
            self._coded.add_sound(packet)

    def send(self, frame: Frame) -> None:
        """Hand a picture, and the sound up to its end, to the sinks that want them."""
        if self._sinks.wants(Packet):
            self._coded.send(frame)
        self._send_uncoded(frame)
        if not len(self._sinks):
            self._sinks.delays.add((time.monotonic() - frame.arrived_at_s) * 1000)

    def close(self) -> None:
        """Release the encoders."""
        self._coded.close()

    def _send_uncoded(self, frame: Frame) -> None:
        """Offer the picture as RGB and as JPEG."""
        wants_raw, wants_jpeg = self._sinks.wants(RawPicture), self._sinks.wants(JpegPicture)
        if not (wants_raw or wants_jpeg):
            return
        rgb = upright_rgb(frame, self._reformatter)
        height, width = rgb.shape[:2]
        if wants_raw:
            self._sinks.offer(RawPicture(rgb.tobytes(), width, height, self._get_rate(), frame.arrived_at_s))
        if wants_jpeg:
            data = encode_jpeg(rgb, self._jpeg_quality)
            self._sinks.offer(JpegPicture(data, frame.arrived_at_s, frame.time.pts))
