"""All cameras of a server: added, changed and removed while the others run."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stream.errors import ConfigError, NotFoundError, StreamError
from stream.live.session.live_settings import LiveSettings
from stream.pipeline.cpu_budget import available_cores
from stream.pipeline.processes import start_thread
from stream.server.camera_config import (
    CameraSettings,
    CamerasFile,
    ServerSettings,
    check_camera,
    redacted,
    refuse_shared_target,
    save_cameras,
    with_secrets,
)
from stream.server.camera_lease import CameraLease
from stream.server.camera_process import CameraSpec
from stream.server.events import Events
from stream.server.restorer_service.protocol import RestorerAddress, is_supported
from stream.server.supervisor.camera_status import CameraStatus, HistoryPoint, NodeStatus, RestorerStatus
from stream.server.supervisor.camera_supervisor import CameraSupervisor
from stream.server.supervisor.recordings import Recording, find_recording, list_recordings
from stream.server.supervisor.restart_policy import SupervisionLimits
from stream.server.supervisor.restorer_supervisor import RestorerSupervisor
from stream.server.supervisor.source_test import SourceTestResult, run_source_test
from stream.server.supervisor.viewers import PREVIEW_KINDS, Viewer

_DEFAULT_LIMITS = SupervisionLimits()
_CHECK_S = 0.5
"""Pause between two checks of all processes."""
_SUSPENDED_S = 3.0
"""A check that comes this late means that the server itself was suspended."""
_HISTORY_S = 10.0
"""Time between two points of a camera's history."""
_REMOVE_S = 10.0
"""Longest time for a camera to end when it is removed."""
_SOURCE_TEST_S = 20.0
"""Longest time that a source is tested for."""
_SOURCE_TESTS = 2
"""Sources tested at the same time."""
_GIB = 2**30


class Supervisor:
    """Runs the cameras of a file, and keeps the file up to date when they are changed.

    All methods may be called from any thread. A name that does not exist raises NotFoundError, wrong
    settings raise ConfigError; both messages are one line without credentials.
    """

    def __init__(
        self,
        file: CamerasFile,
        path: Path | None,
        events: Events,
        limits: SupervisionLimits = _DEFAULT_LIMITS,
        *,
        server: ServerSettings | None = None,
    ) -> None:
        """`path`: where the file is saved; None: nowhere.

        `server`: the server's settings in place of those of the file, which stay in the file.
        """
        self.events = events
        self.server = server or file.server
        self._file_server = file.server
        self._path, self._limits = path, limits
        self._cameras: dict[str, CameraSupervisor] = {}
        self._lock = threading.RLock()
        """Held while cameras are added, removed or changed, so that the file always agrees with what
        runs. It is never held while a camera is waited for."""
        self._ended = threading.Event()
        self._monitor: threading.Thread | None = None
        self._disk_is_low = False
        self._folder = tempfile.TemporaryDirectory(prefix="gpen-stream-")
        self._restorer = self._create_restorer() if is_supported() else None
        self._source_tests = threading.BoundedSemaphore(_SOURCE_TESTS)
        self._start_permits = threading.BoundedSemaphore(available_cores())
        for name, settings in file.cameras.items():
            self._cameras[name] = self._create_camera(self._spec(name, settings))

    def start(self) -> None:
        """Start the restorer, all cameras and the monitor; returns at once."""
        self.server.data_folder.mkdir(parents=True, exist_ok=True)
        if self._restorer is not None:
            self._restorer.start()
        with self._lock:
            for camera in self._cameras.values():
                camera.start()
        self._monitor = start_thread("monitor", self._watch)

    def stop(self, timeout_s: float = 10.0) -> None:
        """Have every camera flush its sinks and end, and kill what still runs after `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        self._ended.set()
        cameras = self._all()
        for camera in cameras:
            camera.request_stop()
        for camera in cameras:
            camera.join(deadline_s)
        if self._restorer is not None:
            self._restorer.stop()
        if self._monitor is not None:
            self._monitor.join()
        self._folder.cleanup()

    # --- cameras -----------------------------------------------------------------------------------

    def cameras(self) -> list[CameraStatus]:
        """The state of all cameras now."""
        return [camera.status() for camera in self._all()]

    def camera(self, name: str) -> CameraStatus:
        """The state of one camera now."""
        return self._find(name).status()

    def nodes(self) -> list[NodeStatus]:
        """Nothing: all cameras run on this machine."""
        return []

    def add(
        self,
        name: str,
        settings: CameraSettings,
        *,
        passing: bool = False,
        lease: CameraLease | None = None,
    ) -> None:
        """Add a camera, which starts at once.

        `passing`: whether its frames go out unchanged. `lease`: until when it may run, in a fleet.
        """
        with self._lock:
            if self._ended.is_set():
                raise ConfigError(f"cameras.{name}: the server is about to end")
            if name in self._cameras:
                raise ConfigError(f"cameras.{name}: there is such a camera already; take another name")
            camera = self._cameras[name] = self._create_camera(self._spec(name, settings, passing, lease))
            camera.start()
            self._save()

    def replace(self, name: str, settings: CameraSettings) -> None:
        """Give a camera other settings; its process ends and starts again.

        A source or sink that is given as it is shown, with *** for the credentials, keeps its
        credentials.
        """
        with self._lock:
            camera = self._find(name)
            old = camera.spec
            settings = with_secrets(settings, old.settings, old.redacted)
            camera.restart(self._spec(name, settings, lease=old.lease))
            self._save()

    def remove(self, name: str) -> None:
        """Have a camera flush its sinks and end, within 10 s; its recordings stay."""
        with self._lock:
            camera = self._find(name)
            camera.request_stop()
        camera.join(time.monotonic() + _REMOVE_S)
        with self._lock:
            self._cameras.pop(name, None)
            self._save()

    def change(self, name: str, changes: LiveSettings) -> None:
        """Change the running session without interrupting it, and the camera's settings with it."""
        camera = self._find(name)
        check_camera(name, camera.spec.settings.changed(changes))
        camera.change(changes)
        with self._lock:
            spec = camera.spec
            passing = spec.passing if changes.passing is None else changes.passing
            camera.update_spec(self._spec(name, spec.settings.changed(changes), passing, spec.lease))
            self._save()

    def adopt(self, name: str, settings: CameraSettings, passing: bool) -> None:
        """Note settings that the running session has already, for the next start of the camera."""
        with self._lock:
            camera = self._find(name)
            camera.update_spec(self._spec(name, settings, passing, camera.spec.lease))

    def extend_leases(self, names: Iterable[str], until_s: float) -> None:
        """Let these cameras run until that `time.monotonic()`."""
        for camera in map(self._find, names):
            camera.extend_lease(until_s)

    def history(self, name: str) -> list[HistoryPoint]:
        """A camera's figures of the last hour, one point every 10 s."""
        return self._find(name).history()

    @contextmanager
    def watch(self, name: str, kind: str) -> Iterator[Viewer]:
        """Watch a camera's previews: of kind "restored", or "pair" with the original above."""
        if kind not in PREVIEW_KINDS:
            raise ConfigError(f"{kind[:40]!r}: no preview; choose one of {', '.join(PREVIEW_KINDS)}")
        with Viewer(self._find(name).viewers, kind) as viewer:
            yield viewer

    def is_ready(self) -> bool:
        """Whether the server and the restorer run, and every camera has started once."""
        states = {camera.status().process for camera in self._all()}
        started = self._monitor is not None and not self._ended.is_set()
        restores = self._restorer is None or self._restorer.status().pid != 0
        return started and restores and not states & {"waiting", "starting"}

    def restorer(self) -> RestorerStatus | None:
        """The state of the restorer; None where each camera restores in its own process."""
        return self._restorer.status() if self._restorer is not None else None

    def test_source(self, source: str) -> SourceTestResult:
        """Open a source and wait for its first picture, for 20 s at most.

        The address of an existing camera may be given as it is shown, without its credentials.
        Raises StreamError if too many sources are being tested.
        """
        specs = [camera.spec for camera in self._all()]
        known = {spec.redacted.source: spec.settings.source for spec in specs}
        if not self._source_tests.acquire(timeout=_SOURCE_TEST_S):
            raise StreamError("other sources are being tested; try again in a moment")
        try:
            return run_source_test(known.get(source, source), _SOURCE_TEST_S)
        finally:
            self._source_tests.release()

    def segments(self, name: str) -> list[Recording]:
        """A camera's recordings, oldest first."""
        return list_recordings(self._recording_folders(name), time.time())

    def segment_path(self, name: str, file: str) -> Path:
        """The path of a recording; NotFoundError for any other file."""
        return find_recording(self._recording_folders(name), file, name)

    # --- internals --------------------------------------------------------------------------------

    def _create_restorer(self) -> RestorerSupervisor:
        address = RestorerAddress(Path(self._folder.name))
        return RestorerSupervisor(address, lambda kind, text: self.events.add("", kind, text))

    def _create_camera(self, spec: CameraSpec) -> CameraSupervisor:
        return CameraSupervisor(
            spec,
            self._limits,
            self._start_permits,
            lambda kind, text: self.events.add(spec.name, kind, text),
        )

    def _spec(
        self, name: str, settings: CameraSettings, passing: bool = False, lease: CameraLease | None = None
    ) -> CameraSpec:
        check_camera(name, settings)
        others = {other: one.spec.settings for other, one in self._cameras.items() if other != name}
        refuse_shared_target(name, settings, others, self.server.data_folder)
        restorer = self._restorer.address if self._restorer is not None else None
        return CameraSpec(
            name, settings, self.server.data_folder, redacted(settings), passing, restorer, lease
        )

    def _all(self) -> list[CameraSupervisor]:
        with self._lock:
            return list(self._cameras.values())

    def _find(self, name: str) -> CameraSupervisor:
        with self._lock:
            camera = self._cameras.get(name)
        if camera is None:
            raise NotFoundError(f"{name[:40]!r}: there is no such camera")
        return camera

    def _recording_folders(self, name: str) -> list[Path]:
        spec = self._find(name).spec
        sinks = spec.settings.sinks(spec.data_folder)
        return [Path(sink.target) for sink in sinks if sink.kind == "segments"]

    def _save(self) -> None:
        if self._path is not None:
            settings = {name: camera.spec.settings for name, camera in self._cameras.items()}
            save_cameras(self._path, CamerasFile(server=self._file_server, cameras=settings))

    def _watch(self) -> None:
        """Body of the monitor's thread."""
        history_s = checked_s = time.monotonic()
        while not self._ended.wait(_CHECK_S):
            elapsed_s, checked_s = time.monotonic() - checked_s, time.monotonic()
            if elapsed_s > _SUSPENDED_S:  # reports are waiting in the pipes; they are read before we judge
                continue
            cameras = self._all()
            for camera in cameras:
                camera.check()
            if self._restorer is not None:
                self._restorer.check()
            if time.monotonic() - history_s >= _HISTORY_S:
                history_s += _HISTORY_S
                for camera in cameras:
                    camera.record_history(time.time())
                self._check_disk(cameras)

    def _check_disk(self, cameras: list[CameraSupervisor]) -> None:
        """Report once that the disk is filling up, before recordings have to stop."""
        needed_gb = max((one.spec.settings.config().record.free_gb for one in cameras), default=0.5)
        try:
            free_gb = shutil.disk_usage(self.server.data_folder).free / _GIB
        except OSError:  # the folder is gone; the sinks report that
            return
        is_low = free_gb < (2.5 if self._disk_is_low else 2.0) * needed_gb
        if is_low and not self._disk_is_low:
            text = f"{free_gb:.1f} GiB free; recordings stop below {needed_gb:.1f} GiB"
            self.events.add("", "disk_low", text)
        self._disk_is_low = is_low
