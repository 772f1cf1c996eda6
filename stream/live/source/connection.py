"""An open live source: demuxed and decoded. Every failure says why, without credentials."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
from av.codec.hwaccel import HWAccel
from av.stream import Stream

from stream.config_live import SourceSettings
from stream.errors import SourceError
from stream.live.packets import AudioFormat
from stream.live.source.address import Address
from stream.live.source.devices import device_url
from stream.live.status import ConnectionState, Drops
from stream.media import hardware
from stream.media.container import main_stream, open_video

_MOST_DAMAGED_IN_A_ROW = 25
"""Damaged packets in a row after which the source is reconnected: a second of most cameras."""
_KEYFRAME_S = 30.0
"""Longest wait for a keyframe while other packets come."""
ANALYSE_S = 0.4, 6.0
"""How long FFmpeg looks for streams before it reports them: at first, and at most.

FFmpeg's own default of five seconds passes in full where a stream is announced and never comes, as
nginx announces sound. But a server that waits for a keyframe sends sound alone at first.
"""
NOBODY_LISTENS = "nobody listens there"
NO_VIDEO = "it sends no video that can be decoded"
_PROTOCOLS = {"rtsp": "rtsp,rtp,udp,tcp,tls,crypto", "rtmp": "rtmp,rtmps,tcp,tls", "udp": "udp,rtp",
              "http": "http,https,hls,tcp,tls,crypto,httpproxy", "srt": "srt,udp"}  # fmt: skip
"""Protocols that FFmpeg may use for a source, whatever its playlists and redirections name."""
_LEAST_RATE, _MOST_RATE = Fraction(1), Fraction(240)


@dataclass(frozen=True, slots=True)
class DecodedPicture:
    """A picture of a live source with its times."""

    picture: av.VideoFrame
    time_s: float | None
    """Time on the source's clock; None where the source gives no usable time."""
    arrived_at_s: float
    """`time.monotonic()` when the last packet of the picture arrived."""


@dataclass(frozen=True, slots=True)
class EncodedSound:
    """A packet of a live source's sound, as the source sent it."""

    data: bytes = field(repr=False)
    time_s: float | None
    """Time on the source's clock; None where the source gives no time."""
    duration_s: float
    arrived_at_s: float
    """`time.monotonic()` when the packet arrived."""


class ConnectionFailure(Exception):
    """An attempt to connect failed, or a connection ended. `detail` is shown and holds no credential."""

    def __init__(self, state: ConnectionState, detail: str, slow: bool = False) -> None:
        super().__init__(detail)
        self.state, self.detail = state, detail
        self.slow = slow
        """Whether another attempt soon is pointless."""


class OpenSource(Protocol):
    """A live source that is open: what `Capture` reads."""

    codec: str
    """FFmpeg's decoder, with the hardware device in brackets."""
    transport: str
    """Transport of RTSP, "tcp" or "udp"; empty for other protocols."""
    audio: AudioFormat | None
    """The format of the sound; None without sound."""
    is_file: bool
    """Whether it can be rewound."""
    is_paced: bool
    """Whether pictures come faster than they are to be shown: from a disk, or in segments."""

    @property
    def rate(self) -> Fraction:
        """Nominal frames a second; may change while the source is open."""

    @property
    def sar(self) -> Fraction:
        """Sample aspect ratio: width of a pixel over its height."""

    def events(self) -> Iterator[DecodedPicture | EncodedSound]:
        """Pictures and sound until the source ends. Raises ConnectionFailure."""

    def rewind(self) -> None:
        """Go to the beginning; only files can. Raises SourceError where the file is gone."""
        return None

    def close(self) -> None:
        """Release the network, the device and the decoder."""
        return None


class FFmpegSource(OpenSource):
    """A source that FFmpeg reads, opened by the constructor.

    The constructor raises ConnectionFailure; for a file, which no other attempt could read, SourceError.
    `transport` ("tcp" or "udp") applies to RTSP; `analyse_s` lies within ANALYSE_S. With `try_hardware`
    the decoders of the graphics hardware are tried first; where none works, `notes` says why, and
    software decodes. Packets that are damaged or come before the first keyframe are counted in `drops`.
    """

    def __init__(
        self,
        address: Address,
        source: SourceSettings,
        drops: Drops,
        *,
        threads: int,
        transport: str,
        try_hardware: bool,
        analyse_s: float,
    ) -> None:
        self.transport = transport if address.kind == "rtsp" else ""
        self.notes: list[str] = []
        self._drops = drops
        self._stall_s = source.stall_s
        self._damaged_in_a_row = 0
        self._container = _open(address, source, transport, analyse_s)
        try:
            video = main_stream(self._container)
            if video is None:
                raise ConnectionFailure(ConnectionState.REFUSED, NO_VIDEO, slow=analyse_s >= ANALYSE_S[1])
            self._video = video
            self._sound = _sound_stream(self._container) if source.audio else None
            self.audio = _audio_format(self._sound)
            self.codec = video.codec_context.name
            form = self._container.format.name
            self._has_times = form not in ("mpjpeg", "mjpeg", "image2pipe")
            self.is_file = address.kind == "file"
            self.is_paced = self.is_file or (address.kind == "http" and self._has_times and form != "flv")
            self._decoder = self._software_decoder(threads)
            if try_hardware:
                self._use_hardware()
        except BaseException:
            self._container.close()
            raise

    @property
    def rate(self) -> Fraction:
        """See `OpenSource.rate`; 25 where the source states no rate from 1 to 240."""
        video = self._video
        for rate in (video.codec_context.framerate, video.average_rate, video.guessed_rate, video.base_rate):
            if rate and _LEAST_RATE <= rate <= _MOST_RATE:
                return Fraction(rate).limit_denominator(1001)
        return Fraction(25)

    @property
    def sar(self) -> Fraction:
        """See `OpenSource.sar`; 1 where the source states none."""
        return self._video.sample_aspect_ratio or self._video.codec_context.sample_aspect_ratio or Fraction(1)

    def events(self) -> Iterator[DecodedPicture | EncodedSound]:
        """Pictures from the first keyframe on, and sound. Ends when the other side hangs up or a file ends.

        Raises ConnectionFailure, and hardware.Unusable where the hardware's decoder fails.
        """
        began = last = time.monotonic()
        has_keyframe = False
        for packet in self._packets():
            now = time.monotonic()
            if packet.stream is self._sound:
                if packet.size:
                    yield _encoded_sound(packet, now)
            elif not has_keyframe and packet.size and not packet.is_keyframe:
                self._drops.add("no_keyframe")
                if now - began > _KEYFRAME_S:
                    raise ConnectionFailure(ConnectionState.STALLED, f"no keyframe in {_KEYFRAME_S:.0f} s")
                last = now
            elif packet.size or has_keyframe:
                has_keyframe = True
                for picture in self._decoded(packet):
                    last = now
                    yield DecodedPicture(picture, self._time_of(picture), now)
            if now - last > self._stall_s:
                raise ConnectionFailure(ConnectionState.STALLED, f"no picture for {self._stall_s:g} s")

    def rewind(self) -> None:
        """See `OpenSource.rewind`."""
        try:
            self._container.seek(0)
            self._decoder.flush_buffers()
        except av.FFmpegError as error:
            raise SourceError(f"the file cannot be played again ({hardware.reason(error)})") from None

    def close(self) -> None:
        """See `OpenSource.close`."""
        self._container.close()

    def _packets(self) -> Iterator[av.Packet[Stream]]:
        wanted = [stream for stream in (self._video, self._sound) if stream is not None]
        packets = self._container.demux(wanted)
        while True:
            try:
                packet = next(packets, None)
            except av.EOFError:
                return
            except av.InvalidDataError:
                # The error has ended the generator. A new one goes on behind the damage.
                self._count_damage()
                packets = self._container.demux(wanted)
                continue
            except av.FFmpegError as error:
                raise explain(error, self._stall_s) from None
            if packet is None:
                return
            yield packet

    def _decoded(self, packet: av.Packet[Stream]) -> list[av.VideoFrame]:
        if packet.is_corrupt:
            self._drops.add("corrupt")
        try:
            pictures = self._decoder.decode(packet if packet.size else None)
        except av.EOFError:
            return []
        except av.FFmpegError as error:
            if self._decoder.is_hwaccel:
                raise hardware.Unusable(hardware.reason(error)) from None
            self._count_damage()
            return []
        intact = [picture for picture in pictures if not picture.is_corrupt]
        if len(intact) < len(pictures):
            # The decoder has concealed missing parts: such a picture is grey or torn, so it is dropped.
            self._count_damage()
        elif intact:
            self._damaged_in_a_row = 0
        return intact

    def _count_damage(self) -> None:
        self._drops.add("corrupt")
        self._damaged_in_a_row += 1
        if self._damaged_in_a_row >= _MOST_DAMAGED_IN_A_ROW:
            raise ConnectionFailure(
                ConnectionState.RETRYING, f"{self._damaged_in_a_row} damaged packets in a row"
            )

    def _time_of(self, picture: av.VideoFrame) -> float | None:
        pts = picture.pts if self._has_times else None
        unit = picture.time_base or self._video.time_base
        return float(pts * unit) if pts is not None and unit is not None else None

    def _software_decoder(self, threads: int) -> av.VideoCodecContext:
        context = self._video.codec_context
        context.thread_type = "SLICE"  # FRAME would delay the picture by one frame for each thread
        context.thread_count = max(1, threads)
        return context

    def _use_hardware(self) -> None:
        context = self._video.codec_context
        reasons = []
        for config in av.Codec(context.name, "r").hardware_configs or ():
            if not config.is_supported or context.name not in hardware.EXACT:
                continue
            device = HWAccel(config.device_type, allow_software_fallback=False)
            try:
                decoder = av.CodecContext.create(context.name, "r", device)
                assert isinstance(decoder, av.VideoCodecContext), f"{context.name} is a video codec"
                decoder.extradata, decoder.thread_count = context.extradata, 1
                decoder.open()
            except (av.FFmpegError, RuntimeError, ValueError) as error:
                reasons.append(f"{config.device_type.name}: {hardware.reason(error)}")
                continue
            self._decoder = decoder
            self.codec = f"{context.name} ({config.device_type.name})"
            return
        reason = ", ".join(reasons) or f"FFmpeg has none for {context.name} here"
        self.notes.append(f"decoded by software, no hardware would do ({reason})")


def explain(error: av.FFmpegError, limit_s: float, waited_s: float = 0.0) -> ConnectionFailure:
    """The failure as an operator sees it, after a wait of `waited_s` out of at most `limit_s`.

    FFmpeg's own message is not used because it quotes the address, which may hold a password.
    """
    if isinstance(error, av.HTTPUnauthorizedError | av.HTTPForbiddenError):
        return ConnectionFailure(
            ConnectionState.UNAUTHORISED, "wrong or missing user and password", slow=True
        )
    if isinstance(error, av.HTTPNotFoundError):
        return ConnectionFailure(ConnectionState.REFUSED, "nothing at this path (404)", slow=True)
    if isinstance(error, av.HTTPClientError):
        return ConnectionFailure(
            ConnectionState.REFUSED, f"the server refuses ({hardware.reason(error)})", slow=True
        )
    if isinstance(error, av.ConnectionRefusedError):
        return ConnectionFailure(ConnectionState.REFUSED, NOBODY_LISTENS)
    if isinstance(error, av.FileNotFoundError):
        return ConnectionFailure(ConnectionState.REFUSED, "no such device")
    # FFmpeg reports a stalled RTSP server as damaged data, and an interrupted wait as an immediate exit.
    if isinstance(error, av.ExitError | TimeoutError) or waited_s >= limit_s * 0.9:
        return ConnectionFailure(ConnectionState.STALLED, f"nothing came for {limit_s:g} s")
    if isinstance(error, av.InvalidDataError):
        return ConnectionFailure(ConnectionState.REFUSED, "what it sends is no video that can be read")
    return ConnectionFailure(ConnectionState.RETRYING, hardware.reason(error))


def _open(
    address: Address, source: SourceSettings, transport: str, analyse_s: float
) -> av.container.InputContainer:
    if address.kind == "file":
        return open_video(Path(address.reveal()))
    url, form, options = address.reveal(), None, {}
    if address.kind == "webcam":
        form, url = device_url(url)
        options = {"video_size": source.size} if source.size else {}
        if source.rate:
            options["framerate"] = str(source.rate)
    else:
        options = {
            "protocol_whitelist": _PROTOCOLS[address.kind],
            "analyzeduration": str(round(analyse_s * 1e6)),
        }
    if address.kind == "rtsp":
        options["rtsp_transport"] = transport
    elif address.kind == "rtmp":
        options["rtmp_live"] = "live"
    elif address.kind == "udp":
        form = "mpegts"
        options["overrun_nonfatal"] = "1"
    began = time.monotonic()
    try:
        return av.open(
            url,
            format=form,
            options=options,
            metadata_errors="replace",
            timeout=(source.open_timeout_s, source.stall_s),
        )
    except av.FFmpegError as error:
        raise explain(error, source.open_timeout_s, time.monotonic() - began) from None
    except (ValueError, OSError) as error:
        raise ConnectionFailure(ConnectionState.REFUSED, type(error).__name__, slow=True) from None


def _encoded_sound(packet: av.Packet[Stream], now_s: float) -> EncodedSound:
    unit = packet.time_base
    time_s = None if packet.pts is None else float(packet.pts * unit)
    return EncodedSound(bytes(packet), time_s, float((packet.duration or 0) * unit), now_s)


def _sound_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    return next((s for s in container.streams.audio if s.codec_context is not None), None)


def _audio_format(stream: av.AudioStream | None) -> AudioFormat | None:
    if stream is None or not stream.codec_context.sample_rate:
        return None
    context = stream.codec_context
    return AudioFormat(context.name, context.sample_rate, context.layout.name, context.extradata or b"")
