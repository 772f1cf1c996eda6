"""A live source: opened, watched and opened again until it is stopped; a pipeline's source of frames."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import TypedDict

import av
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideData

from stream.config_live import SourceSettings
from stream.errors import SourceError
from stream.live.packets import LIVE_TIME_BASE, AudioFormat, AudioPacket
from stream.live.source.address import Address
from stream.live.source.connection import ANALYSE_S, NO_VIDEO, NOBODY, Connection, Failure, Shot, Sound
from stream.live.source.pacing import Pacer, SupplyWatch, Throttle
from stream.live.source.retry import Retry
from stream.live.source.test_pattern import PatternSource
from stream.live.source.timeline import Timeline
from stream.live.status import ConnectionState, ConnectionStatus, Drops
from stream.media import hardware
from stream.media.decode import SITES, converted, is_handled
from stream.media.probe import colour_of, turn_of
from stream.picture import pixel_formats
from stream.picture.frame import Frame, Timestamp, View
from stream.picture.jpeg import encode_jpeg

_PREVIEW_SIDE = 640
_SILENT_S = 3.0
"""Without a packet of sound for so long the source has none any more: real silence is coded too."""


class SourceFacts(TypedDict):
    """What is known of an epoch, for people; goes out as JSON."""

    size: list[int]
    """Width and height of the stored picture, px."""
    codec: str
    rate: float
    """Nominal frames a second."""
    sound: str | None
    """Codec, sample rate and layout; None without sound."""
    transport: str | None
    """Of RTSP: "tcp" or "udp"."""


class Capture:
    """Frames of a live source over all its failures, and its sound beside them.

    All attributes may be read from any thread. `on_status` hears each change once; it and `on_audio`
    are called in the thread that runs `frames`.
    """

    def __init__(
        self,
        address: Address,
        source: SourceSettings,
        *,
        decoder_threads: int,
        hardware: bool,
        on_status: Callable[[ConnectionStatus], None] = lambda status: None,
        on_audio: Callable[[AudioPacket], None] = lambda packet: None,
    ) -> None:
        self.frames_in = 0
        """Frames handed on, over all connections."""
        self.connections = 0
        """How often pictures began to come."""
        self.corrupt_packets = 0
        self.drops = Drops()
        self.notes: list[str] = []
        self.facts: SourceFacts | None = None
        """Of the current epoch; None before the first picture."""
        self.audio: AudioFormat | None = None
        """Of the current epoch; known before its first frame."""
        self.rate = Fraction(25)
        """Nominal frames a second of the current epoch."""
        self._address, self._source = address, source
        self._threads, self._try_hardware = decoder_threads, hardware
        self._on_status, self._on_audio = on_status, on_audio
        self._stopping = threading.Event()
        self._clock, self._retry = Timeline(), Retry(source.retry_s, source.retry_most_s)
        self._transport = "udp" if source.transport == "udp" else "tcp"
        self._transport_is_known = source.transport != "auto"
        self._analyse_s = ANALYSE_S[0]
        self._epoch = -1
        self._kind: tuple[object, ...] | None = None
        """All that makes the epoch another one when it changes; None: the next picture begins one."""
        self._counted = 0, 0
        """Corrupt packets, and packets before a keyframe, that `drops` has of this connection."""
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._status = ConnectionStatus(ConnectionState.CONNECTING)
        self._said: tuple[ConnectionState, str] | None = None
        self._seen_at_s = 0.0
        """When the last picture came."""
        self._heard_at_s = 0.0

    @property
    def status(self) -> ConnectionStatus:
        """Where it stands now."""
        status, silent_s = self._status, time.monotonic() - self._seen_at_s
        if status.state is ConnectionState.LIVE and silent_s > 1 + float(3 / self.rate):
            return ConnectionStatus(ConnectionState.STALLED, f"no picture for {silent_s:.0f} s")
        return status

    def stop(self) -> None:
        """End `frames`, from any thread: at once, or when its read times out."""
        self._stopping.set()

    def frames(self) -> Iterator[Frame]:
        """Frames until `stop`, or to the end of a file that does not loop.

        Raises SourceError for a file that cannot be read; everything else is tried again.
        """
        try:
            while not self._stopping.is_set():
                failure = yield from self._attempt()
                if failure is None:
                    return
                pause_s = self._retry.pause_s(time.monotonic(), failure.slow)
                self._failed(failure, pause_s)
                self._stopping.wait(pause_s)
        finally:
            self._say(ConnectionStatus(ConnectionState.STOPPED))

    def _attempt(self) -> Generator[Frame, None, Failure | None]:
        """Connect and hand on what comes; returns the Failure, or None at the end."""
        if self._said is None:
            self._say(ConnectionStatus(ConnectionState.CONNECTING))
        else:
            self._status = ConnectionStatus(ConnectionState.CONNECTING, self._status.detail)
        began_s = None
        try:
            connection = self._open()
        except Failure as failure:
            return failure
        try:
            for frame in self._live(connection):
                began_s = began_s or frame.arrived_at_s
                yield frame
            if self._address.kind in ("file", "test") or self._stopping.is_set():
                return None
            return Failure(ConnectionState.RETRYING, "the other side has hung up")
        except Failure as failure:
            return failure
        except hardware.Unusable as error:
            self._try_hardware = False
            self._note(f"decoded by software from now on ({error})")
            return Failure(ConnectionState.RETRYING, "the hardware decoder failed")
        finally:
            self._count(connection)
            connection.close()
            if began_s is not None:
                self._retry.lived(began_s, self._seen_at_s)

    def _open(self) -> Connection | PatternSource:
        if self._address.kind == "test":
            return PatternSource(self._source, self._stopping)
        try:
            connection = Connection(
                self._address,
                self._source,
                self._threads,
                self._transport,
                self._try_hardware,
                self._analyse_s,
            )
        except Failure as failure:
            if failure.detail == NO_VIDEO:
                self._analyse_s = min(self._analyse_s * 4, ANALYSE_S[1])
            if not (self._transport_is_known or failure.slow or failure.detail == NOBODY):
                self._transport = "udp" if self._transport == "tcp" else "tcp"
            raise
        if connection.notes:
            self._try_hardware = False  # it said why; asking again would take time at each reconnection
            for note in connection.notes:
                self._note(note)
        return connection

    def _live(self, connection: Connection | PatternSource) -> Iterator[Frame]:
        pace, throttle, watch = Pacer(self._stopping), Throttle(self._source.max_fps), SupplyWatch()
        self._clock.begin()
        self._kind, self._counted = None, (0, 0)
        connected = False
        while True:
            for event in connection.events():
                if self._stopping.is_set():
                    return
                self._count(connection)
                if isinstance(event, Sound):
                    self._heard_at_s = event.arrived_at_s
                    if connected:
                        self._hear(event)
                    continue
                if connection.is_paced:
                    event = replace(event, arrived_at_s=pace.wait(event.time_s))
                now = self._seen_at_s = event.arrived_at_s
                if not connected:
                    self._heard_at_s = max(self._heard_at_s, now)
                self._look(event.picture, connection, now - self._heard_at_s < _SILENT_S)
                if not connected:
                    connected = self._transport_is_known = True
                    self.connections += 1
                    self._say(ConnectionStatus(ConnectionState.LIVE))
                pts = self._clock.picture(event.time_s, now)
                if not throttle.passes(pts * LIVE_TIME_BASE, now, self.rate):
                    self.drops.add("paced")
                    watch.count(now)
                    continue
                frame = self._frame(event, pts, connection.codec)
                if watch.look(frame, now, self.rate):
                    self._say(ConnectionStatus(ConnectionState.LIVE, watch.words))
                self.frames_in += 1
                yield frame
            if not isinstance(connection, Connection) or not connection.is_file:
                return
            if not (self._source.loop and connected) or self._stopping.is_set():
                return
            connection.rewind()
            self._clock.begin()
            pace.rewind(self.rate)

    def _look(self, picture: av.VideoFrame, connection: Connection | PatternSource, sounding: bool) -> None:
        """Begin a new epoch where pictures or sound are of another kind, or a connection begins."""
        kind = (
            picture.width, picture.height, picture.format.name, picture.colorspace,
            picture.color_range, picture.color_trc, picture.rotation, connection.sar, connection.rate,
            sounding or connection.audio is None,
        )  # fmt: skip
        if kind == self._kind:
            return
        self._kind = kind
        self._epoch += 1
        self.rate, self.audio = connection.rate, connection.audio if sounding else None
        container: SideDataContainer = picture.side_data  # type: ignore[assignment]  # PyAV's stub is wrong
        side = {item.type: bytes(item) for item in container}
        turn = turn_of(side.get(SideData.DISPLAYMATRIX, b""))
        self._view = View(picture.width, picture.height, connection.sar, turn)
        self._colour = colour_of(picture)
        sound = self.audio
        self.facts = {
            "size": [picture.width, picture.height],
            "codec": connection.codec,
            "rate": round(float(self.rate), 3),
            "sound": f"{sound.codec} {sound.sample_rate} Hz {sound.layout}" if sound else None,
            "transport": connection.transport or None,
        }

    def _frame(self, shot: Shot, pts: int, codec: str) -> Frame:
        picture = shot.picture
        name = picture.format.name
        target = name if pixel_formats.layout_of(name) else pixel_formats.substitute(name)
        if target != name or not is_handled(picture):
            picture = converted(picture, target, self._reformatter, 1)
        coloured = pixel_formats.in_colour(target)
        if coloured != target:
            picture = pixel_formats.with_chroma(picture, coloured)
        site = "center" if codec == "mjpeg" else "left"
        return Frame(
            self.frames_in, Timestamp(pts, LIVE_TIME_BASE), picture, self._view, self._colour,
            SITES[site], shot.arrived_at_s, self._epoch,
        )  # fmt: skip

    def _hear(self, sound: Sound) -> None:
        audio = self.audio  # None where it has just come back: the next picture begins an epoch with it
        pts = self._clock.sound(sound.time_s, sound.arrived_at_s)
        if pts is not None and audio is not None:
            duration = round(sound.duration_s / LIVE_TIME_BASE)
            self._on_audio(AudioPacket(self._epoch, pts, duration, sound.data, audio))

    def _count(self, connection: Connection | PatternSource) -> None:
        """Add what a connection has lost since it was asked last."""
        counts = connection.corrupt_packets, connection.before_keyframe
        corrupt, before_keyframe = (new - old for new, old in zip(counts, self._counted, strict=True))
        self._counted = counts
        self.corrupt_packets += corrupt
        if corrupt:
            self.drops.add("corrupt", corrupt)
        if before_keyframe:
            self.drops.add("no_keyframe", before_keyframe)

    def _failed(self, failure: Failure, pause_s: float) -> None:
        state, detail = failure.state, failure.detail
        if state is ConnectionState.STALLED:
            if self._said is not None and self._said[0] is ConnectionState.LIVE:
                self._say(ConnectionStatus(ConnectionState.STALLED, detail))
            state = ConnectionState.RETRYING
        if self._retry.broken:
            state, detail = ConnectionState.RETRYING, f"fails again and again: {detail}"
        self._say(ConnectionStatus(state, detail, time.monotonic() + pause_s))

    def _say(self, status: ConnectionStatus) -> None:
        """Take on a status; tell of it where it is not the one that was told of last."""
        self._status = status
        if (status.state, status.detail) != self._said:
            self._said = status.state, status.detail
            self._on_status(status)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def first_picture(address: Address, source: SourceSettings) -> tuple[bytes, SourceFacts]:
    """A JPEG of the first picture of a source, at most 640 px wide or high, and facts about it.

    One attempt (RTSP: one by TCP, one by UDP). Raises SourceError, which says why there is none.
    """
    reasons = []
    transports = ("tcp", "udp") if source.transport == "auto" else (source.transport,)
    for transport in transports if address.kind == "rtsp" else ("auto",):
        capture = Capture(
            address, source.model_copy(update={"transport": transport}), decoder_threads=1, hardware=False
        )
        attempt = capture._attempt()
        try:
            frame = next(attempt)
        except StopIteration as end:
            failure = end.value or Failure(ConnectionState.REFUSED, "it holds no picture")
            reasons.append(failure.detail)
            if failure.slow:
                break
            continue
        try:
            assert capture.facts is not None, "they are known before the first frame"
            return _jpeg(frame), capture.facts
        finally:
            attempt.close()
    raise SourceError(f"{address}: {' and by UDP '.join(dict.fromkeys(reasons))}; check the address")


def _jpeg(frame: Frame) -> bytes:
    rgb, _ = frame.thumbnail(_PREVIEW_SIDE)
    return encode_jpeg((rgb * 255).round().astype("uint8"), 85)
