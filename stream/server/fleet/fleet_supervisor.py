"""The cameras of a fleet as the dashboard uses them. It may end: the cameras go on without it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from stream.errors import ClusterError, ConfigError, NotFoundError
from stream.live.session.live_settings import LiveSettings
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
from stream.server.events import Events
from stream.server.fleet.fleet_client import CoordinatorClient
from stream.server.fleet.fleet_view import FleetView
from stream.server.fleet.merged_restorer import merged
from stream.server.fleet.remote_pictures import RemotePictures
from stream.server.supervisor.camera_status import (
    CameraStatus,
    HistoryPoint,
    NodeStatus,
    ProcessState,
    RestorerStatus,
)
from stream.server.supervisor.recordings import Recording, find_recording, list_recordings
from stream.server.supervisor.source_test import SourceTestResult
from stream.server.supervisor.viewers import PREVIEW_KINDS, Viewer

LOG = logging.getLogger(__name__)
_REFRESH_S = 1.0
_HISTORY_S, _HISTORY_POINTS = 10.0, 360
_REMOVE_S = 20.0
"""Longest wait for a removed camera: it flushes its sinks, or its node has died."""


class FleetSupervisor:
    """A `CameraHost` over the nodes of a cluster. It keeps the file of cameras up to date."""

    def __init__(
        self,
        file: CamerasFile,
        path: Path | None,
        events: Events,
        coordinator: CoordinatorClient,
        *,
        server: ServerSettings | None = None,
    ) -> None:
        """`path`: where the file is saved; None: nowhere. `server`: the settings in place of the file's."""
        self.events = events
        self.server = server or file.server
        self._file_server, self._path = file.server, path
        self._coordinator = coordinator
        self._settings = dict(file.cameras)
        self._shown = {name: redacted(settings) for name, settings in file.cameras.items()}
        self._lock = threading.RLock()
        """Held while cameras are added, removed or changed."""
        self._view = FleetView(coordinator, events)
        self._pictures = RemotePictures(self._view.client)
        self._history: dict[str, deque[HistoryPoint]] = {}
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Give the fleet the cameras of the file, and start to ask for their state."""
        self.server.data_folder.mkdir(parents=True, exist_ok=True)
        self._coordinator.set_all(self._settings)
        self._view.refresh()
        self._thread = start_thread("fleet", self._watch)

    def stop(self, timeout_s: float = 10.0) -> None:
        """Leave the fleet, whose cameras go on. The time is not needed."""
        self._ended.set()
        self._pictures.stop()
        if self._thread is not None:
            self._thread.join()

    # --- cameras -----------------------------------------------------------------------------------

    def cameras(self) -> list[CameraStatus]:
        """The state of all cameras now."""
        with self._lock:
            names = list(self._settings)
        return [self._status(name) for name in names if name in self._settings]

    def camera(self, name: str) -> CameraStatus:
        """The state of one camera now."""
        self._find(name)
        return self._status(name)

    def nodes(self) -> list[NodeStatus]:
        """The state of all nodes now."""
        return self._view.nodes()

    def add(self, name: str, settings: CameraSettings) -> None:
        """Add a camera, which gets a node at once if there is room."""
        with self._lock:
            if name in self._settings:
                raise ConfigError(f"cameras.{name}: there is such a camera already; take another name")
            self._check(name, settings)
            self._put(name, settings, restart=True)

    def replace(self, name: str, settings: CameraSettings) -> None:
        """Give a camera other settings; it starts again where it is."""
        with self._lock:
            settings = with_secrets(settings, self._find(name), self._shown[name])
            self._check(name, settings)
            self._put(name, settings, restart=True)

    def remove(self, name: str) -> None:
        """Have a camera flush its sinks and end, within 20 s; its recordings stay."""
        with self._lock:
            self._find(name)
            self._coordinator.remove(name)
        deadline_s = time.monotonic() + _REMOVE_S
        self._view.refresh()
        while name in self._view.places and not self._ended.wait(0.2):
            if time.monotonic() > deadline_s:
                raise ClusterError(f"cameras.{name}: its node does not end it; see the events")
            self._view.refresh()
        with self._lock:
            self._settings.pop(name, None)
            self._shown.pop(name, None)
            self._save()
        self._pictures.close(name)

    def change(self, name: str, changes: LiveSettings) -> None:
        """Change the running session without interrupting it, and the camera's settings with it."""
        settings = self._find(name).changed(changes)
        self._check(name, settings)
        node = self._view.client(name)
        if node is not None and self._status(name).process == "running":
            node.change(name, changes)
        with self._lock:
            place = self._view.places.get(name)
            passing = place.passing if place is not None else False
            if changes.passing is not None:
                passing = changes.passing
            self._put(name, self._find(name).changed(changes), passing, restart=False)

    def lease(self, name: str) -> int:
        """Number of the lease under which a camera runs now; 0: none. It is in the names of recordings."""
        place = self._view.places.get(name)
        return place.lease if place is not None else 0

    def history(self, name: str) -> list[HistoryPoint]:
        """A camera's figures of the last hour, whichever nodes it ran on."""
        self._find(name)
        return list(self._history.get(name, ()))

    @contextmanager
    def watch(self, name: str, kind: str) -> Iterator[Viewer]:
        """Watch a camera's previews, which its node sends only meanwhile."""
        if kind not in PREVIEW_KINDS:
            raise ConfigError(f"{kind[:40]!r}: no preview; choose one of {', '.join(PREVIEW_KINDS)}")
        self._find(name)
        with self._pictures.watch(name, kind) as viewer:
            yield viewer

    def is_ready(self) -> bool:
        """Whether the coordinator answers, and every camera has started once."""
        states = {camera.process for camera in self.cameras()}
        return self._thread is not None and self._view.reachable and not states & {"waiting", "starting"}

    def restorer(self) -> RestorerStatus | None:
        """The restorers of all nodes as one; None without nodes."""
        return merged(self._view.restorers())

    def test_source(self, source: str) -> SourceTestResult:
        """Open a source from the node with the lowest load."""
        with self._lock:
            known = {self._shown[name].source: one.source for name, one in self._settings.items()}
        node = self._view.any_client()
        if node is None:
            raise ClusterError("no node has joined that could test the source; start one")
        return node.test_source(known.get(source, source))

    def segments(self, name: str) -> list[Recording]:
        """A camera's recordings in the data folder as this machine sees it, oldest first."""
        return list_recordings(self._recording_folders(name), time.time())

    def segment_path(self, name: str, file: str) -> Path:
        """The path of a recording; NotFoundError for any other file."""
        return find_recording(self._recording_folders(name), file, name)

    # --- internals --------------------------------------------------------------------------------

    def _find(self, name: str) -> CameraSettings:
        with self._lock:
            settings = self._settings.get(name)
        if settings is None:
            raise NotFoundError(f"{name[:40]!r}: there is no such camera")
        return settings

    def _check(self, name: str, settings: CameraSettings) -> None:
        check_camera(name, settings)
        others = {other: one for other, one in self._settings.items() if other != name}
        refuse_shared_target(name, settings, others, self.server.data_folder)

    def _put(self, name: str, settings: CameraSettings, passing: bool = False, *, restart: bool) -> None:
        self._coordinator.put(name, settings, passing, restart)
        self._settings[name], self._shown[name] = settings, redacted(settings)
        self._view.refresh()
        self._save()

    def _save(self) -> None:
        if self._path is not None:
            save_cameras(self._path, CamerasFile(server=self._file_server, cameras=dict(self._settings)))

    def _recording_folders(self, name: str) -> list[Path]:
        sinks = self._find(name).sinks(self.server.data_folder)
        return [Path(sink.target) for sink in sinks if sink.kind == "segments"]

    def _status(self, name: str) -> CameraStatus:
        with self._lock:
            settings = self._shown.get(name)
        if settings is None:
            raise NotFoundError(f"{name[:40]!r}: there is no such camera")
        node = self._view.node_name(name)
        told = self._view.status(name)
        if told is not None:
            return replace(told, settings=settings, node=node)
        state: ProcessState = "waiting" if settings.enabled else "disabled"
        words = self._view.waits.get(name, "")
        if settings.enabled and not words:
            words = f"waits for an answer of {node}" if node else "waits for a node"
        return CameraStatus(name, settings, state, words or "disabled", 0, 0, 0, None, node)

    def _watch(self) -> None:
        """Body of a thread."""
        history_s = time.monotonic()
        while not self._ended.is_set():
            began_s = time.monotonic()
            self._view.refresh()
            self._view.ask_nodes()
            if began_s - history_s >= _HISTORY_S:
                history_s += _HISTORY_S
                self._record_history()
            self._ended.wait(max(0.0, began_s + _REFRESH_S - time.monotonic()))

    def _record_history(self) -> None:
        now = time.time()
        for camera in self.cameras():
            points = self._history.setdefault(camera.name, deque(maxlen=_HISTORY_POINTS))
            points.append(HistoryPoint.of(camera.report, now))
        for name in self._history.keys() - self._settings.keys():
            del self._history[name]
