"""The beginning of an output on disk, before the muxer has written its first fragment."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
from av.container import OutputContainer
from av.stream import Stream

from stream.errors import EncodeError
from stream.media.partial_file import PartialFile
from stream.media.remux import MOV

_PICTURES, _SPAN_S = 12, 2
"""Number of pictures, and their length in seconds, after which the opening is written."""
_COLLECTING = (*MOV, "matroska", "webm")
"""Muxers that do not write every packet at once."""
_MUXER_ONLY = ("movflags", "min_frag_duration")
"""Options for a file that grows, which the opening does not."""


def is_needed(muxer: str) -> bool:
    """Whether a file of this muxer begins with pictures that are not on disk. muxer: by FFmpeg's name."""
    return os.name == "posix" and muxer in _COLLECTING  # Windows renames no open file


class Opening:
    """A short file of the first pictures and their sound. It stands for the output until that can be played.

    A muxer collects packets until a fragment (mp4, mov) or a cluster (mkv, webm) is full, which takes up to
    a distance of keyframes. Until then a killed run would leave a file without pictures. So the packets of
    the first 12 pictures, or of the first 2 s if that is less, are also written as a whole file of their
    own to `partial`. As soon as the output grows after that, it takes the name. Its own bytes are the same
    with and without an opening.

    video: the stream whose pictures count. file: the output while it is written, under a name of its own,
    until `partial` is free for it. If both are one name, there is no opening.
    """

    def __init__(
        self, container: OutputContainer, video: av.VideoStream, file: PartialFile, partial: Path
    ) -> None:
        """The container has been started: its header is written."""
        self._container, self._file, self._partial = container, file, partial
        self._video = video.index
        self._taken = {video.index} | {stream.index for stream in container.streams.audio}
        self._packets: list[av.Packet[Stream]] = []
        self._pictures = 0
        self._first_s: Fraction | None = None
        self._size_then: int | None = None
        """Bytes of the output when the opening was written; None before."""
        self._is_over = file.path == partial

    @property
    def path(self) -> Path:
        """The output's name now."""
        return self._file.path

    def add(self, packet: av.Packet[Stream]) -> None:
        """Take note of a packet that the container has accepted. Raises as `PartialFile.rename` does."""
        if self._is_over:
            return
        if self._size_then is not None:
            if self._file.size > self._size_then:
                self.end()
        elif packet.stream.index in self._taken:
            self._packets.append(packet)
            if packet.stream.index == self._video and self._is_full(packet):
                self._write()

    def end(self) -> None:
        """Give the output its name in place of the opening. Idempotent. Raises EncodeError and OSError."""
        if not self._is_over:
            self._is_over = True
            self._packets.clear()
            self._file.rename(self._partial)

    def _is_full(self, packet: av.Packet[Stream]) -> bool:
        assert packet.dts is not None, "FFmpeg's encoders time every packet"
        now_s = packet.dts * packet.time_base
        self._first_s = now_s if self._first_s is None else self._first_s
        self._pictures += 1
        return self._pictures >= _PICTURES or now_s - self._first_s >= _SPAN_S

    def _write(self) -> None:
        """Write the opening. A failure is no loss: the output itself meets the same one."""
        self._size_then = self._file.size
        with suppress(av.FFmpegError, OSError, ValueError, EncodeError):
            data = self._muxed()
            file = PartialFile(self._partial, self._partial)
            try:
                file.write(data)
            finally:
                file.close()
        self._packets.clear()

    def _muxed(self) -> bytes:
        """The packets as a whole file."""
        self._set_last_duration()
        file = io.BytesIO()
        options = {k: v for k, v in self._container.container_options.items() if k not in _MUXER_ONLY}
        with av.open(file, "w", format=self._container.format.name, container_options=options) as opening:
            streams = {
                stream.index: _copy(stream, opening)
                for stream in self._container.streams
                if stream.index in self._taken
            }
            for packet in self._packets:
                packet.stream = streams[packet.stream.index]
                opening.mux_one(packet)
        return file.getvalue()

    def _set_last_duration(self) -> None:
        """Give the last picture one, if the encoder gave none (SVT-AV1): mp4 shows no picture of length 0."""
        *_, before, last = [packet for packet in self._packets if packet.stream.index == self._video]
        if not last.duration and last.dts is not None and before.dts is not None:
            last.duration = last.dts - before.dts


def _copy(stream: Stream, opening: OutputContainer) -> Stream:
    """A stream of the same codec, with every parameter. It begins with any codec that the muxer accepts."""
    name = opening.default_video_codec if stream.type == "video" else opening.default_audio_codec
    copy = opening.add_mux_stream(name)
    av.BitStreamFilterContext("null", in_stream=stream, out_stream=copy)
    copy.time_base = stream.time_base
    return copy
