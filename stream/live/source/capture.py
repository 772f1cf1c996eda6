"""A live source: opened, read and opened again until it is stopped; a pipeline's source of frames."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from fractions import Fraction

from av.video.reformatter import VideoReformatter

from stream.config_live import SourceSettings
from stream.errors import SourceError
from stream.live.packets import LIVE_TIME_BASE, AudioFormat, AudioPacket
from stream.live.source.address import Address
from stream.live.source.connection import ConnectionFailure, DecodedPicture, EncodedSound, OpenSource
from stream.live.source.connector import Connector
from stream.live.source.epoch import Epoch, EpochTracker, SourceFacts
from stream.live.source.pacing import Pacer, SourceMonitor, Throttle
from stream.live.source.retry import Retry
from stream.live.source.timeline import Timeline
from stream.live.status import ConnectionState, ConnectionStatus, Drops
from stream.media import hardware
from stream.picture import pixel_formats
from stream.picture.frame import Frame, Timestamp
from stream.picture.jpeg import encode_jpeg

_USUAL_RATE = Fraction(25)
_SILENT_S = 3.0
"""A source counts as silent after this time without a packet of sound: silence is coded too."""
_FIRST_PICTURE_SIDE = 640
_FIRST_PICTURE_QUALITY = 85


class Capture:
    """Frames of a live source over all its failures, and its sound beside them.

    All attributes may be read from any thread. `on_status` is called once for each change of state or
    detail; it and `on_audio` are called in the thread that runs `frames`.
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
        """Frames handed out, over all connections."""
        self.connections = 0
        """How often pictures began to come."""
        self.drops = Drops()
        self._address, self._source = address, source
        self._on_audio = on_audio
        self._stopping = threading.Event()
        self._connector = Connector(
            address, source, self.drops, self._stopping, threads=decoder_threads, try_hardware=hardware
        )
        self._reporter = _StatusReporter(on_status)
        self._timeline, self._retry = Timeline(), Retry(source.retry_s, source.retry_most_s)
        self._epochs = EpochTracker()
        self._reformatter = VideoReformatter()
        self._picture_at_s = self._sound_at_s = 0.0
        """`time.monotonic()` of the last picture, and of the last packet of sound."""

    @property
    def status(self) -> ConnectionStatus:
        """The status now: a source that is live and sends no picture counts as stalled."""
        status, silent_s = self._reporter.status, time.monotonic() - self._picture_at_s
        if status.state is ConnectionState.LIVE and silent_s > 1 + float(3 / self.rate):
            return ConnectionStatus(ConnectionState.STALLED, f"no picture for {silent_s:.0f} s")
        return status

    @property
    def notes(self) -> list[str]:
        """Remarks for the user about the decoder, one line each."""
        return self._connector.notes

    @property
    def corrupt_packets(self) -> int:
        """Packets that were damaged, over all connections."""
        return self.drops.by_cause["corrupt"]

    @property
    def facts(self) -> SourceFacts | None:
        """Facts about the current epoch; None before the first picture."""
        epoch = self._epochs.current
        return None if epoch is None else epoch.facts

    @property
    def audio(self) -> AudioFormat | None:
        """Format of the current epoch's sound; known before the epoch's first frame. None without sound."""
        epoch = self._epochs.current
        return None if epoch is None else epoch.audio

    @property
    def rate(self) -> Fraction:
        """Nominal frames a second of the current epoch; 25 before the first picture."""
        epoch = self._epochs.current
        return _USUAL_RATE if epoch is None else epoch.rate

    def stop(self) -> None:
        """End `frames`, from any thread: at once, or when its read times out."""
        self._stopping.set()

    def frames(self) -> Iterator[Frame]:
        """Frames until `stop`, or to the end of a file that does not loop.

        Raises SourceError for a file that cannot be read. After any other failure it connects again.
        """
        try:
            while not self._stopping.is_set():
                failure = yield from self.attempt()
                if failure is None:
                    return
                pause_s = self._retry.pause_s(time.monotonic(), failure.slow)
                self._reporter.failed(failure, self._retry.breaker_is_open, time.monotonic() + pause_s)
                self._stopping.wait(pause_s)
        finally:
            self._reporter.report(ConnectionStatus(ConnectionState.STOPPED))

    def attempt(self) -> Generator[Frame, None, ConnectionFailure | None]:
        """Frames of one connection. The generator returns why the connection ended; None: for good."""
        self._reporter.connecting()
        try:
            source = self._connector.open()
        except ConnectionFailure as failure:
            return failure
        began_s = None
        try:
            for frame in self._frames_of(source):
                began_s = began_s or frame.arrived_at_s
                yield frame
            if self._address.kind in ("file", "test") or self._stopping.is_set():
                return None
            return ConnectionFailure(ConnectionState.RETRYING, "the other side has hung up")
        except ConnectionFailure as failure:
            return failure
        except hardware.Unusable as error:
            self._connector.use_software(f"decoded by software from now on ({error})")
            return ConnectionFailure(ConnectionState.RETRYING, "the hardware decoder failed")
        finally:
            source.close()
            if began_s is not None:
                self._retry.connection_ended(began_s, self._picture_at_s)

    def _frames_of(self, source: OpenSource) -> Iterator[Frame]:
        """Frames of an open source; those of a file again and again where it loops."""
        pacer, throttle, monitor = Pacer(self._stopping), Throttle(self._source.max_fps), SourceMonitor()
        self._timeline.begin()
        self._epochs.begin_connection()
        while True:
            for epoch, shown in self._pictures_of(source, pacer):
                now = shown.arrived_at_s
                pts = self._timeline.picture_pts(shown.time_s, now)
                if not throttle.passes(pts * LIVE_TIME_BASE, now, epoch.rate):
                    self.drops.add("paced")
                    monitor.count(now)
                    continue
                frame = self._frame(epoch, shown, pts)
                if monitor.check(frame, now, epoch.rate):
                    self._reporter.report(ConnectionStatus(ConnectionState.LIVE, monitor.warning))
                self.frames_in += 1
                yield frame
            loops = source.is_file and self._source.loop and self._epochs.has_begun
            if not loops or self._stopping.is_set():
                return
            source.rewind()
            self._timeline.begin()
            pacer.rewind(self.rate)

    def _pictures_of(self, source: OpenSource, pacer: Pacer) -> Iterator[tuple[Epoch, DecodedPicture]]:
        """Pictures in real time, each with its epoch; the sound between them goes to `on_audio`."""
        for event in source.events():
            if self._stopping.is_set():
                return
            if isinstance(event, EncodedSound):
                self._sound_at_s = event.arrived_at_s
                self._send_sound(event)
                continue
            if source.is_paced:
                event = replace(event, arrived_at_s=pacer.wait(event.time_s))
            now = self._picture_at_s = event.arrived_at_s
            is_first = not self._epochs.has_begun
            if is_first:
                self._sound_at_s = now  # sound has time to come until `_SILENT_S` after the first picture
            epoch = self._epochs.update(event.picture, source, now - self._sound_at_s < _SILENT_S)
            if is_first:
                self._connector.keep_transport()
                self.connections += 1
                self._reporter.report(ConnectionStatus(ConnectionState.LIVE))
            yield epoch, event

    def _frame(self, epoch: Epoch, shown: DecodedPicture, pts: int) -> Frame:
        picture = pixel_formats.in_handled_format(shown.picture, self._reformatter, threads=1, coloured=True)
        site = pixel_formats.CHROMA_SITES["center" if epoch.facts["codec"] == "mjpeg" else "left"]
        return Frame(
            self.frames_in, Timestamp(pts, LIVE_TIME_BASE), picture, epoch.view, epoch.colour,
            site, shown.arrived_at_s, epoch.number,
        )  # fmt: skip

    def _send_sound(self, sound: EncodedSound) -> None:
        epoch = self._epochs.current
        pts = self._timeline.sound_pts(sound.time_s, sound.arrived_at_s)
        # Where sound has just come back the epoch has none yet: the next picture begins one that has.
        if pts is not None and epoch is not None and epoch.audio is not None:
            duration = round(sound.duration_s / LIVE_TIME_BASE)
            self._on_audio(AudioPacket(epoch.number, pts, duration, sound.data, epoch.audio))


class _StatusReporter:
    """Holds the status of a source and reports it when its state or its detail changes."""

    def __init__(self, on_status: Callable[[ConnectionStatus], None]) -> None:
        self.status = ConnectionStatus(ConnectionState.CONNECTING)
        self._on_status = on_status
        self._reported: tuple[ConnectionState, str] | None = None

    def connecting(self) -> None:
        """An attempt begins. Only the first one is reported; later ones keep the detail of the failure."""
        if self._reported is None:
            self.report(self.status)
        else:
            self.status = ConnectionStatus(ConnectionState.CONNECTING, self.status.detail)

    def failed(self, failure: ConnectionFailure, breaker_is_open: bool, retry_at_s: float) -> None:
        """An attempt or a connection ended; the next attempt begins at `retry_at_s`."""
        state, detail = failure.state, failure.detail
        if state is ConnectionState.STALLED:
            if self._reported is not None and self._reported[0] is ConnectionState.LIVE:
                self.report(ConnectionStatus(ConnectionState.STALLED, detail))
            state = ConnectionState.RETRYING
        if breaker_is_open:
            state, detail = ConnectionState.RETRYING, f"fails again and again: {detail}"
        self.report(ConnectionStatus(state, detail, retry_at_s))

    def report(self, status: ConnectionStatus) -> None:
        """Set the status; `on_status` is called unless state and detail are the ones it got last."""
        self.status = status
        if (status.state, status.detail) != self._reported:
            self._reported = status.state, status.detail
            self._on_status(status)


def first_picture(address: Address, source: SourceSettings) -> tuple[bytes, SourceFacts]:
    """A JPEG of the first picture of a source, at most 640 px wide or high, and facts about the source.

    Each transport gets one attempt: RTSP by TCP, then by UDP. Raises SourceError, which says why there
    is no picture.
    """
    reasons = []
    transports = ("tcp", "udp") if source.transport == "auto" else (source.transport,)
    for transport in transports if address.kind == "rtsp" else ("auto",):
        capture = Capture(
            address, source.model_copy(update={"transport": transport}), decoder_threads=1, hardware=False
        )
        attempt = capture.attempt()
        try:
            frame = next(attempt)
        except StopIteration as end:
            failure = end.value or ConnectionFailure(ConnectionState.REFUSED, "it holds no picture")
            reasons.append(failure.detail)
            if failure.slow:
                break
            continue
        try:
            assert capture.facts is not None, "facts are known before the first frame"
            rgb, _ = frame.thumbnail(_FIRST_PICTURE_SIDE)
            levels = (rgb * 255).round().astype("uint8")
            return encode_jpeg(levels, _FIRST_PICTURE_QUALITY), capture.facts
        finally:
            attempt.close()
    raise SourceError(f"{address}: {' and by UDP '.join(dict.fromkeys(reasons))}; check the address")
