"""Packets that are encoded already are written into a container: all sinks for files and servers use it."""

from __future__ import annotations

import io
from collections.abc import Mapping

import av

from stream.live.packets import LIVE_TIME_BASE, AudioFormat, EpochStart, Packet
from stream.live.sinks.sink import SinkError

_NOTE_KEYS = {"mpegts": "service_provider"}
"""The metadata key that holds the note in a container without comments."""


class Muxer:
    """One container, which begins at a keyframe; its times begin at 0.

    The constructor opens the container and writes its header; for an address this may block. All methods
    raise FFmpeg's own errors (av.FFmpegError, OSError), whose text may hold the whole address.
    """

    def __init__(
        self,
        url: str,
        start: EpochStart,
        keyframe: Packet,
        *,
        format: str | None = None,
        options: Mapping[str, str] | None = None,
        timeout_s: tuple[float, float] | None = None,
    ) -> None:
        self._origin = min(keyframe.pts, keyframe.dts)
        # 1 us: the picture does not wait for sound that pauses
        self._options = {"flush_packets": "1", "max_interleave_delta": "1"} | dict(options or {})
        self._output = av.open(url, "w", format=format, container_options=self._options, timeout=timeout_s)
        try:
            self._video = self._add_video(start, keyframe)
            self._audio = self._add_audio(start.audio) if start.audio is not None else None
            if start.note:
                self._output.metadata[_NOTE_KEYS.get(self._output.format.name, "comment")] = start.note
            self._output.start_encoding()
        except BaseException:
            self._output.close()
            raise

    def write(self, packet: Packet) -> None:
        """Write a packet. Sound is left out if it has no stream here, or if it is older than the keyframe."""
        stream = self._video if packet.is_video else self._audio
        if stream is None or packet.dts < self._origin:
            return
        coded = av.Packet(packet.data)
        coded.stream, coded.time_base = stream, LIVE_TIME_BASE
        coded.pts, coded.dts = packet.pts - self._origin, packet.dts - self._origin
        coded.duration, coded.is_keyframe = packet.duration, packet.keyframe or not packet.is_video
        self._output.mux(coded)

    def close(self) -> None:
        """Write the trailer. Idempotent."""
        self._output.close()

    def _add_video(self, start: EpochStart, keyframe: Packet) -> av.VideoStream:
        """Add the stream. PyAV copies parameters only from another stream: the keyframe, read as a file."""
        first = io.BytesIO(start.video.extradata + keyframe.data)
        with av.open(first, format=start.video.codec) as picture:
            stream = self._output.add_stream_from_template(picture.streams.video[0])
        stream.time_base = LIVE_TIME_BASE
        stream.codec_context.framerate = start.video.rate
        return stream

    def _add_audio(self, audio: AudioFormat) -> av.AudioStream:
        if audio.codec != "aac":
            raise SinkError(f"sound in {audio.codec} cannot be written; set source.audio to false")
        stream = self._output.add_stream("aac", rate=audio.sample_rate, layout=audio.layout)
        stream.codec_context.open()  # the encoder's own description is replaced by that of the packets
        stream.codec_context.extradata = audio.extradata
        return stream
