"""A capture that runs in a thread, and records of all that it gave."""

from __future__ import annotations

import threading
from pathlib import Path

import av
import cv2
import numpy as np
from clips import Clip, Sound, make
from servers import wait_for
from waiting import LIMIT_S

from stream.config_live import SourceSettings
from stream.live.packets import AudioPacket
from stream.live.source.address import parse_address
from stream.live.source.capture import Capture
from stream.live.status import ConnectionState, ConnectionStatus

QUICK = SourceSettings(open_timeout_s=30.0, stall_s=2.0, retry_s=0.1, retry_most_s=1.0)
"""Settings with short waits."""


class Watching:
    """Runs a capture until the block ends. It records facts about each frame and drops the frame."""

    def __init__(self, url: str, source: SourceSettings = QUICK, **options) -> None:
        self.pts: list[int] = []
        self.epochs: list[int] = []
        self.sizes: list[tuple[int, int]] = []
        self.arrived: list[float] = []
        self.levels: list[float] = []
        self.spreads: list[float] = []
        self.statuses: list[ConnectionStatus] = []
        self.sounds: list[AudioPacket] = []
        self.error: BaseException | None = None
        self.capture = Capture(
            parse_address(url),
            source,
            **{"decoder_threads": 1, "hardware": False} | options,
            on_status=self.statuses.append,
            on_audio=self.sounds.append,
        )
        self._thread = threading.Thread(target=self._run)

    @property
    def words(self) -> list[str]:
        return [status.state.value for status in self.statuses]

    def frames(self, more: int = 10, timeout_s: float = LIMIT_S) -> None:
        """Wait until `more` frames have come."""
        goal = len(self.pts) + more
        wait_for(lambda: len(self.pts) >= goal or not self._thread.is_alive(), timeout_s, "for frames")
        assert len(self.pts) >= goal, f"it ended with {self.error!r}"

    def state(self, state: ConnectionState, timeout_s: float = LIMIT_S) -> ConnectionStatus:
        """Wait until a status of this state was reported; returns the newest of them."""
        wait_for(lambda: any(one.state is state for one in self.statuses), timeout_s, f"for {state}")
        return next(one for one in reversed(self.statuses) if one.state is state)

    def attempts(self, more: int, timeout_s: float = LIMIT_S) -> None:
        """Wait until `more` attempts have failed."""
        planned = {self.capture.status.retry_at_s}

        def seen() -> int:
            planned.add(self.capture.status.retry_at_s)
            return len(planned - {None})

        goal = seen() + more
        wait_for(lambda: seen() >= goal, timeout_s, "for attempts")

    def ended(self, timeout_s: float = LIMIT_S) -> None:
        """Wait until the capture has ended."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive()

    def __enter__(self) -> Watching:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.capture.stop()
        self.ended()
        assert all(a < b for a, b in zip(self.pts, self.pts[1:], strict=False)), "times must rise strictly"
        heard = [packet.pts for packet in self.sounds]
        assert heard == sorted(set(heard)), "the sound's times must rise strictly"

    def _run(self) -> None:
        try:
            for frame in self.capture.frames():
                self.epochs.append(frame.epoch)
                self.sizes.append((frame.view.width, frame.view.height))
                self.arrived.append(frame.arrived_at_s)
                self.levels.append(mean(frame.picture))
                self.spreads.append(spread(frame.picture))
                self.pts.append(frame.time.pts)
        except BaseException as error:
            self.error = error


def mean(picture: av.VideoFrame) -> float:
    return float(luma(picture).mean())


def spread(picture: av.VideoFrame) -> float:
    return float(luma(picture).std())


def luma(picture: av.VideoFrame) -> np.ndarray:
    plane = picture.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]


CAMERA = {"preset": "ultrafast", "tune": "zerolatency", "g": "25", "sc_threshold": "0", "slices": "1",
          "threads": "1"}  # fmt: skip
"""A keyframe each second, no B-frames."""


def camera_file(folder: Path) -> Path:
    """Five seconds as a camera sends them, with sound."""
    clip = Clip(size=(320, 180), frames=125, options=CAMERA, sounds=(Sound(layout="mono"),), noise=3)
    return make(folder / "camera.mp4", clip)


def jpegs(count=5, size=(320, 180)):
    for i in range(count):
        image = np.full((size[1], size[0], 3), 40 * i, np.uint8)
        yield cv2.imencode(".jpg", image)[1].tobytes()


def ts_of(path: Path, skip: int = 0) -> Path:
    """The same as MPEG-TS, without its first packets of video."""
    target = path.with_name(f"skip{skip}.ts")
    with av.open(str(path)) as source, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.dts is not None and number >= skip:
                packet.stream = stream
                out.mux(packet)
    return target
