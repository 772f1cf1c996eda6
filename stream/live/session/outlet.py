"""The live pipeline's last stage: each picture is encoded once and handed to all sinks."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

import numpy as np
from av.video.reformatter import VideoReformatter

from stream.config_live import LiveEncodingSettings
from stream.live.packets import LIVE_TIME_BASE, AudioFormat, AudioPacket, Jpeg, Message, Packet, Raw, Start
from stream.live.sinks.audio import AudioCoder
from stream.live.sinks.handle import SinkHandle
from stream.live.sinks.live_encoder import LiveEncoder, upright_rgb
from stream.live.status import Delays
from stream.picture.colour import Colour
from stream.picture.face import FrameWork
from stream.picture.frame import Frame, View
from stream.picture.jpeg import encode_jpeg

_SOUND_WAITING = 2000
"""Packets of sound that wait for their picture; beyond them the oldest go (DROP_OLDEST)."""
_LEAST_GOP_S = 0.3
"""Keyframes on demand come no closer: a sink that fails over and over must not cost the others quality."""


class Outlet:
    """Encodes what some sink wants, and only that.

    `process` runs in the stage's thread, `hear` in any. The handles belong to the session: it starts,
    checks and stops them. Raises EncodeError where x264 does not start; a sink's failure raises nothing.
    """

    def __init__(
        self,
        handles: Sequence[SinkHandle],
        live: LiveEncodingSettings,
        *,
        note: str,
        threads: int,
        audio_of: Callable[[], AudioFormat | None],
        rate_of: Callable[[], Fraction],
    ) -> None:
        self.frames_out = 0
        self.delay = Delays()
        """From a picture's arrival to its delivery by a sink; without sinks, to its end here."""
        self._handles, self._live = tuple(handles), live
        self._note, self._threads = note, threads
        self._audio_of, self._rate_of = audio_of, rate_of
        self._reformatter = VideoReformatter()
        self._encoder: LiveEncoder | None = None
        self._sound: AudioCoder | None = None
        self._shape: tuple[int, View, Colour] | None = None
        """Of the epoch that is being encoded: its number, the pictures' geometry and colour."""
        self._epoch = 0
        self._last_pts = self._key_pts = self._last_sound_dts = -1
        self._heard: deque[AudioPacket] = deque(maxlen=_SOUND_WAITING)
        self._lock = threading.Lock()
        for handle in self._handles:
            handle.on_delay = self.delay.add

    def open(self) -> None:
        """Encoders open with the first picture."""

    def hear(self, packet: AudioPacket) -> None:
        """A packet of the source's sound; it goes out behind the picture of its time. Never blocks."""
        if self._wants(Packet):
            with self._lock:
                self._heard.append(packet)

    def process(self, work: FrameWork) -> Iterable[None]:
        """Hand a picture, and the sound up to its time, to the sinks that want them."""
        frame = work.frame
        if self._wants(Packet):
            self._send_coded(frame)
        self._send_plain(frame)
        self.frames_out += 1
        if not self._handles:
            self.delay.add((time.monotonic() - frame.arrived_at_s) * 1000)
        return ()

    def flush(self) -> Iterable[None]:
        """Nothing is held back: the sound went out with the last picture."""
        return ()

    def close(self) -> None:
        """Let the encoders go."""
        self._encoder = self._sound = None

    def _wants(self, kind: type[Message]) -> bool:
        return any(handle.wants(kind) for handle in self._handles)

    def _offer(self, message: Message) -> None:
        for handle in self._handles:
            handle.offer(message)

    def _rate(self) -> Fraction:
        """Nominal: of the source, else what is usual."""
        return self._rate_of() or Fraction(25)

    def _send_coded(self, frame: Frame) -> None:
        shape = (frame.epoch, frame.view, frame.colour)
        pts = max(frame.time.pts, self._last_pts + 1)
        encoder, begins = self._encoder, False
        if encoder is None or shape != self._shape:
            encoder, begins = self._begin_epoch(frame), True
            self._shape = shape
        for packet in encoder.encode(frame, pts, begins or self._is_due(pts)):
            if packet.keyframe:
                self._key_pts = pts
            self._offer(packet)
        self._last_pts = pts
        # A muxer writes a picture once it has sound behind it: no picture waits there for the next one.
        self._send_sound(pts + encoder.frame_duration)

    def _is_due(self, pts: int) -> bool:
        """Whether a keyframe is: by time, or because a sink waits for one."""
        half_s = 1 / (2 * self._rate())
        since_s = (pts - self._key_pts) * LIVE_TIME_BASE
        if since_s + half_s >= self._live.gop_s:
            return True
        return since_s >= _LEAST_GOP_S and any(handle.needs_keyframe() for handle in self._handles)

    def _begin_epoch(self, frame: Frame) -> LiveEncoder:
        """Tell the sinks what follows; returns the epoch's encoder."""
        self._epoch = frame.epoch
        self._encoder = encoder = LiveEncoder(frame, self._rate(), self._live, self._threads)
        with self._lock:  # by then the capture may be one epoch ahead
            audio = next((packet.format for packet in self._heard if packet.epoch == frame.epoch), None)
        audio = audio or self._audio_of()
        self._sound = AudioCoder(audio) if audio is not None else None
        began_at = time.time() - (time.monotonic() - frame.arrived_at_s if frame.arrived_at_s else 0.0)
        format = self._sound.format if self._sound is not None else None
        self._offer(Start(frame.epoch, encoder.format, format, began_at, self._note))
        return encoder

    def _send_sound(self, until_pts: int) -> None:
        """Sound of this epoch up to a time; an earlier epoch's is dropped, a later one's waits."""
        due = []
        with self._lock:
            while self._heard and self._heard[0].epoch <= self._epoch and self._heard[0].pts <= until_pts:
                due.append(self._heard.popleft())
        for packet in due:
            if self._sound is None or packet.epoch != self._epoch:
                continue
            for coded in self._sound.encode(packet):
                if coded.dts > self._last_sound_dts:
                    self._last_sound_dts = coded.dts
                    self._offer(coded)

    def _send_plain(self, frame: Frame) -> None:
        """RGB and JPEG, each made once where somebody looks."""
        wants_raw, wants_jpeg = self._wants(Raw), self._wants(Jpeg)
        if not (wants_raw or wants_jpeg):
            return
        rgb: np.ndarray = upright_rgb(frame, self._reformatter)
        height, width = rgb.shape[:2]
        if wants_raw:
            self._offer(Raw(rgb.tobytes(), width, height, self._rate(), frame.arrived_at_s))
        if wants_jpeg:
            self._offer(Jpeg(encode_jpeg(rgb, self._live.jpeg_quality), frame.arrived_at_s, frame.time.pts))
