"""Sound of the source becomes AAC packets on the pictures' clock, in the camera's process."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.codec.context import Flags

from stream.live.packets import LIVE_TIME_BASE, AudioFormat, AudioPacket, Packet

_RATES = (16000, 22050, 24000, 32000, 44100, 48000)
"""Sample rates in Hz that every player supports; others become 48000."""
_TOLERANCE_S = 0.02
"""The count of samples is corrected when its time differs from the packets' times by more than this."""
_LONGEST_SILENCE_S = 5.0
"""A longer gap is not filled: the sound after it begins anew."""
_BIT_RATE = 64_000
"""Bits a second of each channel."""


class AudioCoder:
    """Encodes the sound of one epoch: AAC with extradata passes unchanged, everything else is transcoded.

    Damaged packets, and packets in another format than `source`, are left out.
    """

    def __init__(self, source: AudioFormat) -> None:
        self._source = source
        passes = source.codec == "aac" and source.extradata
        self._transcoder = None if passes else _Transcoder(source)
        self.format = source if self._transcoder is None else self._transcoder.format
        """Format of the packets that `encode` returns."""

    def encode(self, packet: AudioPacket) -> list[Packet]:
        """The AAC packets that are ready after this packet: none, one or several."""
        if packet.format != self._source:
            return []
        if self._transcoder is None:
            return [Packet(False, packet.data, packet.pts, packet.pts, packet.duration)]
        try:
            return self._transcoder.encode(packet)
        except av.FFmpegError:
            return []


class _Transcoder:
    """Decodes, resamples and encodes as AAC. Gaps are filled with silence, overlaps are cut."""

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
        self._first: int | None = None
        """Number of the first sample that waits, counted on the pictures' clock."""

    def encode(self, packet: AudioPacket) -> list[Packet]:
        coded = av.Packet(packet.data)
        coded.pts, coded.time_base = packet.pts, LIVE_TIME_BASE
        parts = []
        for frame in self._decoder.decode(coded):
            frame.pts = None  # the packets alone give the time
            parts += [part.to_ndarray() for part in self._resampler.resample(frame)]
        if not parts:
            return []
        samples = np.concatenate(parts, axis=1)
        first = self._append(samples, round(packet.pts * LIVE_TIME_BASE * self._rate))
        return self._encode_waiting(first)

    def _append(self, samples: np.ndarray, at: int) -> int:
        """Append samples f32[channels,n] that begin at sample number `at`.

        Returns the number of the first sample that waits.
        """
        first = at if self._first is None else self._first
        gap = at - (first + self._waiting.shape[1])
        if gap > _LONGEST_SILENCE_S * self._rate:
            self._waiting, first, gap = self._waiting[:, :0], at, 0
        if gap > _TOLERANCE_S * self._rate:
            samples = np.concatenate([np.zeros((len(samples), gap), np.float32), samples], axis=1)
        elif gap < -_TOLERANCE_S * self._rate:
            samples = samples[:, -gap:]
        self._waiting = np.concatenate([self._waiting, samples], axis=1)
        self._first = first
        return first

    def _encode_waiting(self, first: int) -> list[Packet]:
        """Encode all whole frames that wait; `first` is the number of the first sample."""
        size, unit, packets = self._encoder.frame_size, Fraction(1, self._rate) / LIVE_TIME_BASE, []
        while self._waiting.shape[1] >= size:
            block = np.ascontiguousarray(self._waiting[:, :size])
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=self.format.layout)
            frame.sample_rate, frame.pts, frame.time_base = self._rate, first, Fraction(1, self._rate)
            for coded in self._encoder.encode(frame):
                assert coded.pts is not None, "the encoder keeps the frames' times"
                pts = round(coded.pts * unit)
                packets.append(Packet(False, bytes(coded), pts, pts, round(size * unit)))
            first += size
            self._waiting, self._first = self._waiting[:, size:], first
        return packets
