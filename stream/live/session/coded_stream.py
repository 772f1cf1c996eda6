"""Encodes the pictures of a live session, and the sound beside them, for all sinks that accept packets."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from fractions import Fraction

from stream.config_live import LiveEncodingSettings
from stream.live.packets import LIVE_TIME_BASE, AudioFormat, AudioPacket, EpochStart, Packet
from stream.live.sinks.audio import AudioCoder
from stream.live.sinks.live_encoder import LiveEncoder
from stream.live.sinks.sink_group import SinkGroup
from stream.picture.colour import Colour
from stream.picture.frame import Frame, View

_MAX_SOUND_PACKETS = 2000
"""Packets of sound that wait for their picture; beyond them the oldest are dropped."""
_MIN_GOP_S = 0.3
"""Least time between keyframes on demand: a sink that fails all the time must not cost the others quality."""


class CodedStream:
    """Encodes each picture once and offers the packets, with the sound up to its time, to the sinks.

    `send` runs in one thread, `add_sound` in any. `note` is the metadata tag of the output. `get_audio`
    returns the source's current audio format, None without sound; `get_rate` returns its nominal frames a
    second. Raises EncodeError.
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
        self._sinks, self._live = sinks, live
        self._note, self._threads = note, threads
        self._get_audio, self._get_rate = get_audio, get_rate
        self._encoder: LiveEncoder | None = None
        self._format: tuple[int, View, Colour] | None = None
        """Epoch, geometry and colour of the pictures that the encoder accepts."""
        self._last_pts = self._keyframe_pts = -1
        self._sound = _SoundQueue()

    def add_sound(self, packet: AudioPacket) -> None:
        """Add a packet of the source's sound; it is sent after the picture of its time. Never blocks."""
        self._sound.put(packet)

    def send(self, frame: Frame) -> None:
        """Encode a picture; offer its packets, and then the sound up to its end, to the sinks."""
        format = frame.epoch, frame.view, frame.colour
        pts = max(frame.time.pts, self._last_pts + 1)
        encoder, begins = self._encoder, False
        if encoder is None or format != self._format:
            encoder, begins = self._begin(frame), True
            self._format = format
        for packet in encoder.encode(frame, pts, begins or self._is_keyframe_due(pts)):
            if packet.keyframe:
                self._keyframe_pts = pts
            self._sinks.offer(packet)
        self._last_pts = pts
        # A muxer writes a picture once it has later sound, so no picture waits in it for the next one.
        for packet in self._sound.pop(pts + encoder.frame_duration):
            self._sinks.offer(packet)

    def close(self) -> None:
        """Release the encoders."""
        self._encoder = None
        self._sound.close()

    def _is_keyframe_due(self, pts: int) -> bool:
        """Whether enough time has passed since the last keyframe, or a sink waits for one."""
        half_frame_s = 1 / (2 * self._get_rate())
        since_s = (pts - self._keyframe_pts) * LIVE_TIME_BASE
        if since_s + half_frame_s >= self._live.gop_s:
            return True
        return since_s >= _MIN_GOP_S and self._sinks.needs_keyframe()

    def _begin(self, frame: Frame) -> LiveEncoder:
        """Open encoders for pictures like this one, and announce their packets to the sinks."""
        self._encoder = encoder = LiveEncoder(frame, self._get_rate(), self._live, self._threads)
        audio = self._sound.begin(frame.epoch, self._get_audio())
        began_at = time.time() - (time.monotonic() - frame.arrived_at_s if frame.arrived_at_s else 0.0)
        self._sinks.offer(EpochStart(frame.epoch, encoder.format, audio, began_at, self._note))
        return encoder


class _SoundQueue:
    """Sound that waits for the picture of its time, and the coder of the current epoch."""

    def __init__(self) -> None:
        self._waiting: deque[AudioPacket] = deque(maxlen=_MAX_SOUND_PACKETS)
        self._lock = threading.Lock()
        self._epoch = 0
        self._coder: AudioCoder | None = None
        self._last_dts = -1

    def put(self, packet: AudioPacket) -> None:
        """Add a packet; from any thread."""
        with self._lock:
            self._waiting.append(packet)

    def begin(self, epoch: int, source: AudioFormat | None) -> AudioFormat | None:
        """Begin an epoch; returns the format of the packets of `pop`, None without sound.

        `source` is the format at the capture, which may be one epoch ahead. The format of a packet of this
        epoch therefore takes precedence.
        """
        self._epoch = epoch
        with self._lock:
            audio = next((packet.format for packet in self._waiting if packet.epoch == epoch), source)
        self._coder = AudioCoder(audio) if audio is not None else None
        return self._coder.format if self._coder is not None else None

    def pop(self, until_pts: int) -> list[Packet]:
        """The epoch's sound up to a time, encoded.

        Sound of earlier epochs is dropped; sound of later epochs waits on.
        """
        due = []
        with self._lock:
            while (
                self._waiting and self._waiting[0].epoch <= self._epoch and self._waiting[0].pts <= until_pts
            ):
                due.append(self._waiting.popleft())
        packets = []
        for packet in due:
            if self._coder is None or packet.epoch != self._epoch:
                continue
            for coded in self._coder.encode(packet):
                if coded.dts > self._last_dts:
                    self._last_dts = coded.dts
                    packets.append(coded)
        return packets

    def close(self) -> None:
        """Release the coder."""
        self._coder = None
