"""The source's sound -> AAC packets on the pictures' clock. Runs in the camera's process."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.codec.context import Flags

from stream.live.packets import LIVE_TIME_BASE, AudioFormat, AudioPacket, Packet

_RATES = (16000, 22050, 24000, 32000, 44100, 48000)
"""Sample rates that every player takes; others become 48000."""
_TOLERANCE_S = 0.02
"""So far the sound's own count of samples may stray from its packets' times: then it is set right."""
_LONGEST_SILENCE_S = 5.0
_BIT_RATE = 64_000
"""For each channel."""


class AudioCoder:
    """Sound of one epoch: AAC with its description passes unchanged, all else is transcoded.

    Damaged packets are left out; `lost` counts them.
    """

    def __init__(self, source: AudioFormat) -> None:
        self.lost = 0
        self._source = source
        passes = source.codec == "aac" and source.extradata
        self._transcoder = None if passes else _Transcoder(source)
        self.format = source if self._transcoder is None else self._transcoder.format
        """Of what comes out."""

    def encode(self, packet: AudioPacket) -> list[Packet]:
        """What becomes of a packet: none, one or several. Sound in another format is left out."""
        if packet.format != self._source:
            self.lost += 1
            return []
        if self._transcoder is None:
            return [Packet(False, packet.data, packet.pts, packet.pts, packet.duration)]
        try:
            return self._transcoder.encode(packet)
        except av.FFmpegError:
            self.lost += 1
            return []


class _Transcoder:
    """Decoder, resampler and AAC encoder, without containers. Gaps become silence, overlaps are cut."""

    def __init__(self, source: AudioFormat) -> None:
        layout = source.layout if source.layout in ("mono", "stereo") else "stereo"
        self._rate = source.sample_rate if source.sample_rate in _RATES else 48000
        decoder = av.CodecContext.create(source.codec, "r")
        assert isinstance(decoder, av.AudioCodecContext), f"{source.codec} is a codec of sound"
        decoder.sample_rate, decoder.layout = source.sample_rate, source.layout
        if source.extradata:
            decoder.extradata = source.extradata
        self._decoder = decoder
        self._resampler = AudioResampler(format="fltp", layout=layout, rate=self._rate)
        self._encoder = encoder = av.CodecContext.create("aac", "w")
        encoder.sample_rate, encoder.layout, encoder.format = self._rate, layout, "fltp"
        encoder.time_base = Fraction(1, self._rate)
        channels = 1 if layout == "mono" else 2
        encoder.bit_rate = _BIT_RATE * channels
        encoder.flags |= Flags.global_header
        encoder.open()
        self.format = AudioFormat("aac", self._rate, layout, encoder.extradata or b"")
        self._waiting = np.zeros((channels, 0), np.float32)
        self._begins: int | None = None
        """Sample number of the first one that waits, on the pictures' clock."""

    def encode(self, packet: AudioPacket) -> list[Packet]:
        coded = av.Packet(packet.data)
        coded.pts, coded.time_base = packet.pts, LIVE_TIME_BASE
        parts = []
        for frame in self._decoder.decode(coded):
            frame.pts = None  # times come from the packets alone
            parts += [part.to_ndarray() for part in self._resampler.resample(frame)]
        if not parts:
            return []
        samples = np.concatenate(parts, axis=1)
        begins = self._place(samples, round(packet.pts * LIVE_TIME_BASE * self._rate))
        return self._drain(begins)

    def _place(self, samples: np.ndarray, at: int) -> int:
        """Append samples that begin at sample number `at`; returns the number of the first that waits."""
        begins = at if self._begins is None else self._begins
        gap = at - (begins + self._waiting.shape[1])
        if gap > _LONGEST_SILENCE_S * self._rate:
            self._waiting, begins, gap = self._waiting[:, :0], at, 0
        if gap > _TOLERANCE_S * self._rate:
            samples = np.concatenate([np.zeros((len(samples), gap), np.float32), samples], axis=1)
        elif gap < -_TOLERANCE_S * self._rate:
            samples = samples[:, -gap:]
        self._waiting = np.concatenate([self._waiting, samples], axis=1)
        self._begins = begins
        return begins

    def _drain(self, begins: int) -> list[Packet]:
        """Encode all whole frames that wait; the first sample has the number `begins`."""
        size, unit, packets = self._encoder.frame_size, Fraction(1, self._rate) / LIVE_TIME_BASE, []
        while self._waiting.shape[1] >= size:
            block = np.ascontiguousarray(self._waiting[:, :size])
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=self.format.layout)
            frame.sample_rate, frame.pts, frame.time_base = self._rate, begins, Fraction(1, self._rate)
            for coded in self._encoder.encode(frame):
                assert coded.pts is not None, "the encoder counts on from the frames' times"
                pts = round(coded.pts * unit)
                packets.append(Packet(False, bytes(coded), pts, pts, round(size * unit)))
            begins += size
            self._waiting, self._begins = self._waiting[:, size:], begins
        return packets
