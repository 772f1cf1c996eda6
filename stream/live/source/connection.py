"""One attempt at a live source: opened, demuxed, decoded. Every failure says why, without credentials."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
from av.codec.hwaccel import HWAccel
from av.stream import Stream

from stream.config_live import SourceSettings
from stream.errors import SourceError
from stream.live.packets import AudioFormat
from stream.live.source.address import Address
from stream.live.source.devices import device_url
from stream.live.status import ConnectionState
from stream.media import hardware
from stream.media.container import main_stream, open_video

_CORRUPT_IN_A_ROW = 25
"""Damaged packets after which the connection is opened anew: a second of most cameras."""
_KEYFRAME_S = 30.0
"""Longest wait for a keyframe while other packets come."""
ANALYSE_S = 0.4, 6.0
"""How long FFmpeg looks before it names the streams, at first and at most. Its own five seconds pass in
full where a stream is announced and does not come, as nginx announces sound; but a server that waits
for a keyframe shows sound alone at first."""
NOBODY = "nobody listens there"
NO_VIDEO = "it sends no video that can be decoded"
_NAMES = {"rtsp": "rtsp,rtp,udp,tcp,tls,crypto", "rtmp": "rtmp,rtmps,tcp,tls", "udp": "udp,rtp",
          "http": "http,https,hls,tcp,tls,crypto,httpproxy", "srt": "srt,udp"}  # fmt: skip
"""Protocols that FFmpeg may use for a source, whatever its playlists and redirections say."""
_RATES = (Fraction(1), Fraction(240))


@dataclass(frozen=True, slots=True)
class Shot:
    """A decoded picture."""

    picture: av.VideoFrame
    time_s: float | None
    """By the source; None where it gives none that could be used."""
    arrived_at_s: float
    """`time.monotonic()` of its last packet."""


@dataclass(frozen=True, slots=True)
class Sound:
    """A packet of sound as it came."""

    data: bytes = field(repr=False)
    time_s: float | None
    duration_s: float
    arrived_at_s: float


class Failure(Exception):
    """An attempt or a connection ended; `detail` is shown, so it holds no credential."""

    def __init__(self, state: ConnectionState, detail: str, slow: bool = False) -> None:
        super().__init__(detail)
        self.state, self.detail = state, detail
        self.slow = slow
        """Whether trying again soon is pointless."""


class Connection:
    """An open source. Raises Failure; SourceError for a file, which no waiting mends.

    `transport` ("tcp" or "udp") is of RTSP; `analyse_s` is one of ANALYSE_S, or lies between them. With
    `try_hardware` a decoder of the graphics hardware is asked first; where none will do, `notes` says
    why, and software decodes.
    """

    def __init__(
        self,
        address: Address,
        source: SourceSettings,
        threads: int,
        transport: str = "",
        try_hardware: bool = False,
        analyse_s: float = ANALYSE_S[0],
    ) -> None:
        self.transport = transport if address.kind == "rtsp" else ""
        self.notes: list[str] = []
        self.before_keyframe = 0
        """Packets that no picture could be made of, as nothing had come to start from."""
        self.corrupt_packets = 0
        self._read_s = source.stall_s
        self._in_a_row = 0
        self._container = _open(address, source, transport, analyse_s)
        try:
            video = main_stream(self._container)
            if video is None:
                raise Failure(ConnectionState.REFUSED, NO_VIDEO, slow=analyse_s >= ANALYSE_S[1])
            self._video = video
            self._sound = _sound_stream(self._container) if source.audio else None
            self.audio = _audio_format(self._sound)
            self.codec = video.codec_context.name
            form = self._container.format.name
            self._has_times = form not in ("mpjpeg", "mjpeg", "image2pipe")
            self.is_file = address.kind == "file"
            self.is_paced = self.is_file or (address.kind == "http" and self._has_times and form != "flv")
            """Whether pictures come faster than they are to be shown: from a disk, or in segments."""
            self.decoder = self._software(threads)
            if try_hardware:
                self._use_hardware()
        except BaseException:
            self._container.close()
            raise

    @property
    def rate(self) -> Fraction:
        """Nominal frames a second, 25 where nothing sensible is said; it may change while it runs."""
        video = self._video
        for rate in (video.codec_context.framerate, video.average_rate, video.guessed_rate, video.base_rate):
            if rate and _RATES[0] <= rate <= _RATES[1]:
                return Fraction(rate).limit_denominator(1001)
        return Fraction(25)

    @property
    def sar(self) -> Fraction:
        """Width of a pixel over its height."""
        return self._video.sample_aspect_ratio or self._video.codec_context.sample_aspect_ratio or Fraction(1)

    def events(self) -> Iterator[Shot | Sound]:
        """Pictures from a keyframe on, and sound. Ends where the other side hangs up, or a file ends."""
        video = self._video
        began = last = time.monotonic()
        waiting = True
        for packet in self._packets():
            now = time.monotonic()
            if packet.stream is self._sound:
                if packet.size:
                    yield self._heard(packet, now)
            elif waiting and packet.size and not packet.is_keyframe:
                self.before_keyframe += 1
                if now - began > _KEYFRAME_S:
                    raise Failure(ConnectionState.STALLED, f"no keyframe in {_KEYFRAME_S:.0f} s")
                last = now
            elif packet.size or not waiting:
                waiting = False
                for picture in self._decoded(packet):
                    last = now
                    pts = picture.pts if self._has_times else None
                    unit = picture.time_base or video.time_base
                    time_s = float(pts * unit) if pts is not None and unit is not None else None
                    yield Shot(picture, time_s, now)
            if now - last > self._read_s:
                raise Failure(ConnectionState.STALLED, f"no picture for {self._read_s:g} s")

    def rewind(self) -> None:
        """Go to the beginning of a file; raises SourceError where it has none any more."""
        try:
            self._container.seek(0)
            self.decoder.flush_buffers()
        except av.FFmpegError as error:
            raise SourceError(f"the file cannot be played again ({hardware.why(error)})") from None

    def close(self) -> None:
        """Release the network and the decoder."""
        self._container.close()

    def _packets(self) -> Iterator[av.Packet[Stream]]:
        wanted = [stream for stream in (self._video, self._sound) if stream is not None]
        packets = self._container.demux(wanted)
        while True:
            try:
                packet = next(packets, None)
            except av.EOFError:
                return
            except av.InvalidDataError:  # ends the generator: a new one goes on behind the damage
                self._spoilt()
                packets = self._container.demux(wanted)
                continue
            except av.FFmpegError as error:
                raise explain(error, self._read_s) from None
            if packet is None:
                return
            yield packet

    def _decoded(self, packet: av.Packet[Stream]) -> list[av.VideoFrame]:
        if packet.is_corrupt:
            self.corrupt_packets += 1
        try:
            pictures = self.decoder.decode(packet if packet.size else None)
        except av.EOFError:
            return []
        except av.FFmpegError as error:
            if self.decoder.is_hwaccel:
                raise hardware.Unusable(hardware.why(error)) from None
            self._spoilt()
            return []
        whole = [picture for picture in pictures if not picture.is_corrupt]
        if len(whole) < len(pictures):  # decoded, with parts made up: shown it would be grey or torn
            self._spoilt()
        elif whole:
            self._in_a_row = 0
        return whole

    def _spoilt(self) -> None:
        self.corrupt_packets += 1
        self._in_a_row += 1
        if self._in_a_row >= _CORRUPT_IN_A_ROW:
            raise Failure(ConnectionState.RETRYING, f"{self._in_a_row} damaged packets in a row")

    def _heard(self, packet: av.Packet[Stream], now_s: float) -> Sound:
        unit = packet.time_base
        time_s = None if packet.pts is None else float(packet.pts * unit)
        return Sound(bytes(packet), time_s, float((packet.duration or 0) * unit), now_s)

    def _software(self, threads: int) -> av.VideoCodecContext:
        context = self._video.codec_context
        context.thread_type = "SLICE"  # FRAME would hold back a picture for each thread
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
                assert isinstance(decoder, av.VideoCodecContext), f"{context.name} is a codec of pictures"
                decoder.extradata, decoder.thread_count = context.extradata, 1
                decoder.open()
            except (av.FFmpegError, RuntimeError, ValueError) as error:
                reasons.append(f"{config.device_type.name}: {hardware.why(error)}")
                continue
            self.decoder = decoder
            self.codec = f"{context.name} ({config.device_type.name})"
            return
        reason = ", ".join(reasons) or f"FFmpeg has none for {context.name} here"
        self.notes.append(f"decoded by software, no hardware would do ({reason})")


def explain(error: av.FFmpegError, limit_s: float, waited_s: float = 0.0) -> Failure:
    """What happened, in an operator's words. FFmpeg's own message is not used: it quotes the address."""
    if isinstance(error, av.HTTPUnauthorizedError | av.HTTPForbiddenError):
        return Failure(ConnectionState.UNAUTHORISED, "wrong or missing user and password", slow=True)
    if isinstance(error, av.HTTPNotFoundError):
        return Failure(ConnectionState.REFUSED, "nothing at this path (404)", slow=True)
    if isinstance(error, av.HTTPClientError):
        return Failure(ConnectionState.REFUSED, f"the server refuses ({hardware.why(error)})", slow=True)
    if isinstance(error, av.ConnectionRefusedError):
        return Failure(ConnectionState.REFUSED, NOBODY)
    if isinstance(error, av.FileNotFoundError):
        return Failure(ConnectionState.REFUSED, "no such device")
    # A stalled RTSP server shows as damaged data; an interrupted wait as an immediate exit.
    if isinstance(error, av.ExitError | TimeoutError) or waited_s >= limit_s * 0.9:
        return Failure(ConnectionState.STALLED, f"nothing came for {limit_s:g} s")
    if isinstance(error, av.InvalidDataError):
        return Failure(ConnectionState.REFUSED, "what it sends is no video that can be read")
    return Failure(ConnectionState.RETRYING, hardware.why(error))


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
            "protocol_whitelist": _NAMES[address.kind],
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
        raise Failure(ConnectionState.REFUSED, type(error).__name__, slow=True) from None


def _sound_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    return next((s for s in container.streams.audio if s.codec_context is not None), None)


def _audio_format(stream: av.AudioStream | None) -> AudioFormat | None:
    if stream is None or not stream.codec_context.sample_rate:
        return None
    context = stream.codec_context
    return AudioFormat(context.name, context.sample_rate, context.layout.name, context.extradata or b"")
