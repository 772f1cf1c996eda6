"""Converters of sound and text to codecs that the output's container can hold."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import av
from av.container import OutputContainer
from av.stream import Stream
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import AssSubtitle

_ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+
PlayResX: 384
PlayResY: 288

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, Bold, Italic, BorderStyle, Outline, Shadow, Alignment
Style: Default,Arial,16,&Hffffff,0,0,1,1,0,2

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""
_BITS_PER_CHANNEL = 96_000
_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
"""Layouts by number of channels, for files that state no layout."""


class SoundConverter:
    """Decodes a sound stream and encodes it as `codec`, at about 96 kbit/s for each channel.

    `target` is the stream in the output.
    """

    def __init__(
        self, stream: av.AudioStream, output: OutputContainer, codec: Literal["aac", "libopus"]
    ) -> None:
        self.codec = "opus" if codec == "libopus" else codec
        source = stream.codec_context
        rate = 48000 if codec == "libopus" else source.sample_rate
        self.target = output.add_stream(codec, rate=rate)
        self.target.time_base = Fraction(1, rate)
        context = self.target.codec_context
        context.time_base = Fraction(1, rate)
        count = source.layout.nb_channels
        known = source.layout.name not in ("", f"{count} channels")
        context.layout = source.layout if known else _LAYOUTS.get(count, "stereo")
        context.bit_rate = _BITS_PER_CHANNEL * max(1, context.layout.nb_channels)
        self._stream = stream
        self._resampler = av.AudioResampler(format=context.format, layout=context.layout, rate=rate)
        self._fifo = av.AudioFifo()
        self._unit = Fraction(1, rate)
        self._next_pts: int | None = None
        """Pts of the next samples if there is no gap."""
        self._buffer_pts = 0
        """Pts of the first buffered sample."""

    def convert(self, packet: av.Packet[Stream] | None) -> list[av.Packet[Stream]]:
        """Packets of the new codec that a packet of the old one completes; None: the stream has ended."""
        frames = self._stream.codec_context.decode(packet)
        packets = []
        for frame in frames:
            for part in self._resampler.resample(frame):
                packets.extend(self._encode(part))
        if packet is None:
            packets.extend(self._encode_buffered(last=True))
            packets.extend(self.target.encode(None))
        return packets

    def _encode(self, frame: av.AudioFrame) -> list[av.Packet[Stream]]:
        pts = self._next_pts or 0
        if frame.pts is not None and frame.time_base is not None:
            pts = round(frame.pts * frame.time_base / self._unit)
        if self._next_pts is None or abs(pts - self._next_pts) > 0.02 / self._unit:
            packets = self._encode_buffered(last=True)  # a gap: what follows starts at its own time
            self._next_pts = pts
            self._buffer_pts = pts
            self._fifo = av.AudioFifo()
        else:
            packets = []
        frame.pts, frame.time_base = None, self._unit
        self._next_pts += frame.samples
        self._fifo.write(frame)
        return packets + self._encode_buffered()

    def _encode_buffered(self, last: bool = False) -> list[av.Packet[Stream]]:
        """Encode the buffered samples in whole frames; `last`: also those that do not fill one."""
        packets = []
        if not self.target.codec_context.is_open:
            self.target.codec_context.open()
        size = self.target.codec_context.frame_size or 1024
        while (frame := self._fifo.read(size, partial=last)) is not None:
            frame.pts, frame.time_base = self._buffer_pts, self._unit
            self._buffer_pts += frame.samples
            packets.extend(self.target.encode(frame))
        return packets


class TextConverter:
    """Converts text subtitles to plain `mov_text` or `subrip`, without their styles.

    `target` is the stream in the output.
    """

    def __init__(
        self, stream: SubtitleStream, output: OutputContainer, codec: Literal["mov_text", "subrip"]
    ) -> None:
        assert stream.time_base is not None, "FFmpeg gives every stream a time base"
        self.codec = codec
        self._stream, self._unit = stream, stream.time_base
        self._end: int | None = None
        self.target: Stream
        if codec == "mov_text":
            self.target = text = output.add_stream(codec)
            text.codec_context.subtitle_header = _ASS_HEADER
        else:
            self.target = output.add_mux_stream(codec)
        self.target.time_base = self._unit

    @staticmethod
    def reads(stream: SubtitleStream) -> bool:
        """Whether a subtitle stream holds text rather than pictures."""
        context = stream.codec_context
        return context is not None and bool(context.codec.text_sub)

    def convert(self, packet: av.Packet[Stream] | None) -> list[av.Packet[Stream]]:
        """One packet of text. In mov_text an empty packet before it ends the previous text."""
        if packet is None or packet.pts is None:
            return self._blank(None)
        lines = [_plain(item) for item in self._stream.decode(packet) if isinstance(item, AssSubtitle)]
        text = "\n".join(line for line in lines if line)
        if not text:
            return []
        packets = self._blank(packet.pts)
        raw = text.encode()
        if self.codec == "mov_text":
            raw = len(raw).to_bytes(2, "big") + raw
            self._end = packet.pts + (packet.duration or 0)
        return [*packets, self._packet(raw, packet.pts, packet.duration or 0)]

    def _blank(self, before: int | None) -> list[av.Packet[Stream]]:
        end, self._end = self._end, None
        if end is None or (before is not None and before <= end):
            return []
        return [self._packet(b"\0\0", end, 0 if before is None else before - end)]

    def _packet(self, raw: bytes, pts: int, duration: int) -> av.Packet[Stream]:
        packet = av.Packet(raw)
        packet.pts = packet.dts = pts
        packet.duration = duration
        packet.time_base = self._unit
        packet.stream = self.target
        return packet


def _plain(item: AssSubtitle) -> str:
    return item.dialogue.decode(errors="replace").strip()
