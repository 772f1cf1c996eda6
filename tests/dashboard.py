"""The dashboard's server for tests of the pages, with cameras whose state the test sets."""

from __future__ import annotations

import contextlib
import math
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import uvicorn
from waiting import LIMIT_S, until

from stream.config import load_config
from stream.errors import ConfigError, NotFoundError
from stream.live.packets import JpegPicture
from stream.live.session.live_settings import LiveSettings
from stream.live.session.session_report import SessionReport
from stream.live.sinks.handle import SinkReport
from stream.live.source.epoch import SourceFacts
from stream.live.status import ConnectionState
from stream.server.camera_config import CameraSettings, ServerSettings, parse_camera, redacted
from stream.server.dashboard.app import create_app
from stream.server.dashboard.job_process import JobProgress
from stream.server.dashboard.job_status import JobStatus, updated_status
from stream.server.dashboard.jobs import Job, JobQueue
from stream.server.events import Events
from stream.server.supervisor.camera_status import CameraStatus, HistoryPoint, NodeStatus, RestorerStatus
from stream.server.supervisor.recordings import Recording
from stream.server.supervisor.source_test import SourceTestResult
from stream.server.supervisor.viewers import Viewer

ROOT = Path(__file__).parent.parent
SECRET = "pa55-w0rd"
_SEGMENT = "2026-11-24T19-3{}-44Z.mp4"


def jpeg(*colours: tuple[int, int, int]) -> bytes:
    """A picture of fields above each other, 320x180 each, of one colour (RGB) each."""
    halves = [np.full((180, 320, 3), colour[::-1], np.uint8) for colour in colours]
    return cv2.imencode(".jpg", np.vstack(halves))[1].tobytes()


RED, GREEN = (200, 30, 30), (30, 200, 30)
PICTURES = {"pair": jpeg(RED, GREEN), "restored": jpeg(GREEN)}


def report(**changes: Any) -> SessionReport:
    """The report of a healthy camera, with changes."""
    sink = SinkReport(
        name="entrance/", kind="segments", state="live", words="live", dropped=0, delivered=4580000,
        restarts=0, pid=4711, delay={"median_ms": 118.0, "p95_ms": 171.0},
    )  # fmt: skip
    healthy = SessionReport(
        name="camera",
        source="rtsp://***@127.0.0.1:554/camera",
        state=ConnectionState.LIVE,
        words="live",
        detail="",
        take=0,
        size=(1280, 720),
        codec="h264",
        fps_in=25.0,
        fps_out=24.9,
        delay={"median_ms": 112.4, "p95_ms": 168.2},
        delay_stages={"median_ms": 98.1, "p95_ms": 141.0},
        faces=2,
        faces_restored=14210,
        faces_carried=0,
        faces_left_alone=0,
        faces_not_finite=0,
        frames_in=4580500,
        frames_out=4580000,
        level=0,
        level_words="as set",
        idle=False,
        restoring=True,
        drops={"overrun": 12, "paced": 0},
        corrupt_packets=0,
        connections=1,
        sinks=(sink,),
        load=0.46,
        stage_ms={"restore": 11.2},
        cpu_cores=0.83,
        memory_mb=412,
        settings=LiveSettings.of(load_config("fast"), "fast", passing=False),
        engine="openvino",
        notes=(),
        uptime_s=183220,
    )
    return replace(healthy, **changes)


class ColourViewer(Viewer):
    """A viewer that gets pictures of one colour, five per second."""

    def __init__(self, kind: str) -> None:
        self.kind, self._shown_s = kind, 0.0

    @property
    def closed(self) -> bool:
        return False

    def next(self, timeout_s: float) -> JpegPicture | None:
        if time.monotonic() - self._shown_s < 0.2:
            return None
        self._shown_s = time.monotonic()
        return JpegPicture(PICTURES[self.kind], self._shown_s, 0)


class FakeSupervisor:
    """A supervisor without processes: it keeps settings, and reports what the test sets."""

    def __init__(self, server: ServerSettings) -> None:
        self.server, self.events = server, Events()
        self.machines: list[NodeStatus] = []
        self.settings: dict[str, CameraSettings] = {}
        self.reports: dict[str, SessionReport] = {}
        self.changes: list[tuple[str, dict[str, Any]]] = []
        self.changed = threading.Condition()

    def is_ready(self) -> bool:
        return True

    def restorer(self) -> RestorerStatus:
        return RestorerStatus(pid=4711, restarts=0, report=None)

    def nodes(self) -> list[NodeStatus]:
        return self.machines

    def cameras(self) -> list[CameraStatus]:
        return [self.camera(name) for name in list(self.settings)]

    def camera(self, name: str) -> CameraStatus:
        if name not in self.settings:
            raise NotFoundError(f"{name!r}: there is no such camera")
        now = self.reports[name]
        return CameraStatus(
            name,
            redacted(self.settings[name]),
            "running",
            now.words,
            pid=4711,
            restarts=0,
            nice=0,
            report=now,
        )

    def add(self, name: str, settings: CameraSettings) -> None:
        if name in self.settings:
            raise ConfigError(f"cameras.{name}: there is such a camera already; take another name")
        now = LiveSettings.of(settings.config(), settings.preset, passing=False)
        self.reports[name] = report(
            name=name, settings=now.model_copy(update={"strength": 0.8, "interval": 2})
        )
        self.settings[name] = settings

    def replace(self, name: str, settings: CameraSettings) -> None:
        old = self.settings[name]
        if settings.source == redacted(old).source:
            settings = settings.model_copy(update={"source": old.source})
        self.settings[name] = settings

    def remove(self, name: str) -> None:
        del self.settings[name]

    def change(self, name: str, changes: LiveSettings) -> None:
        given = changes.given()
        regions = {key: given[key] for key in ("include", "exclude") if key in given}
        self.settings[name] = self.settings[name].model_copy(update=regions)
        now = self.reports[name]
        self.reports[name] = replace(now, settings=now.settings.model_copy(update=given))
        with self.changed:
            self.changes.append((name, given))
            self.changed.notify_all()

    def history(self, name: str) -> list[HistoryPoint]:
        now = time.time()
        return [
            HistoryPoint(
                at=now - 3600 + 10 * n,
                delay_ms=120 + 30 * math.sin(n / 20),
                p95_ms=170,
                load=0.45 + 0.1 * math.sin(n / 33),
                fps=24.9,
            )
            for n in range(361)
        ]

    @contextlib.contextmanager
    def watch(self, name: str, kind: str) -> Iterator[ColourViewer]:
        self.camera(name)
        yield ColourViewer(kind)

    def test_source(self, source: str) -> SourceTestResult:
        if source == "test:":
            facts = SourceFacts(size=[320, 180], codec="test", rate=25.0, sound=None, transport=None)
            return SourceTestResult(True, PICTURES["restored"], "", facts)
        reason = f"{redacted(parse_camera('x', {'source': source})).source}: connection refused"
        return SourceTestResult(False, None, reason, None)

    def segments(self, name: str) -> list[Recording]:
        began = 1795548700
        return [Recording(_SEGMENT.format(n), began + 60 * n, 60, 9_000_000, open=n == 4) for n in range(5)]

    def segment_path(self, name: str, file: str) -> Path:
        return self.server.files_folder / "portrait.mp4"


class StalledQueue(JobQueue):
    """A queue whose jobs stay at a quarter until they are cancelled."""

    def _restore(self, job: Job) -> None:
        with self._changed:
            before = 5 * job.status.continuing
            now = JobProgress(25, 100, 3, before, segments_done=1, segments_total=4, workers=2)
            job.status = updated_status(job.status, now, 65 / 3)
            self._changed.wait_for(lambda: job.status.state != "running" or self._closing)


class Dashboard:
    """A dashboard with cameras, files and a job, and the changes that its pages ask for."""

    def __init__(self, folder: Path, token: str | None) -> None:
        self.url = ""
        server = ServerSettings(data=str(folder))
        self.files = server.files_folder
        self.files.mkdir(parents=True)
        clip = self.files / "portrait.mp4"
        shutil.copy(ROOT / "samples" / "portrait.mp4", clip)
        self.cameras = FakeSupervisor(server)
        self.add("entrance", exclude=[[0.62, 0.1, 0.3, 0.4]])
        self.add("lobby")
        self.add("car-park")
        self.report("car-park", state=ConnectionState.STALLED, words="stalled (no frame for 12 s)")
        for kind in ("camera_up", "face_seen", "camera_down"):
            self.event("entrance", kind, "as it happened")
        self.jobs = StalledQueue(self.files)
        self.job = "a1"
        self.jobs.results.mkdir()
        shutil.copy(clip, self.jobs.results)
        done = JobStatus(
            self.job, clip.name, "default", "gpen-lite-256", 1.0, "done", progress=1.0, frames=215, faces=215
        )
        self.jobs._jobs[self.job] = Job(done, result=clip.name)
        self.is_ending = False
        self.app = create_app(self.cameras, self.jobs, token=token, is_ending=lambda: self.is_ending)

    def add(self, name: str, **settings: Any) -> None:
        """Add a healthy camera whose address has a password."""
        source = f"rtsp://user:{SECRET}@127.0.0.1:554/{name}"
        self.cameras.add(name, parse_camera(name, {"source": source, "preset": "fast"} | settings))

    def settings(self, name: str) -> CameraSettings:
        """The settings that the server would save, with their secrets."""
        return self.cameras.settings[name]

    def report(self, name: str, **changes: Any) -> None:
        """Change a camera's report."""
        self.cameras.reports[name] = replace(self.cameras.reports[name], **changes)

    def event(self, camera: str, kind: str, text: str) -> None:
        """Add an event."""
        self.cameras.events.add(camera, kind, text)

    def wait_for_change(self, camera: str, **wanted: Any) -> dict[str, Any]:
        """The change of a camera that a page asks for, as soon as it does."""

        def found() -> dict[str, Any] | None:
            for name, changes in reversed(self.cameras.changes):
                if name == camera and wanted.items() <= changes.items():
                    return changes
            return None

        with self.cameras.changed:
            assert self.cameras.changed.wait_for(lambda: found() is not None, timeout=LIMIT_S)
            return found()


@contextlib.contextmanager
def dashboard(folder: Path, *, port: int = 0, token: str | None = None) -> Iterator[Dashboard]:
    """Run a dashboard; `port` 0: on a free port."""
    served = Dashboard(folder, token)
    config = uvicorn.Config(served.app, port=port, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="dashboard")
    served.jobs.start()
    thread.start()
    try:
        assert until(lambda: server.started or not thread.is_alive()) and server.started
        served.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        yield served
    finally:
        server.should_exit = served.is_ending = True
        thread.join()
        served.jobs.stop()
