"""Many cameras: each in a process of its own, all restored by one, added and removed while running."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stream.errors import ConfigError, StreamError
from stream.live.session.live_settings import LiveSettings
from stream.pipeline.cpu_budget import available_cores
from stream.pipeline.processes import start_thread
from stream.server.camera_config import (
    CameraSettings,
    CamerasFile,
    ServerSettings,
    check_camera,
    save_cameras,
    shown,
)
from stream.server.camera_process import CameraOrder
from stream.server.events import Events
from stream.server.restorer_service.protocol import RestorerAddress, available
from stream.server.supervisor.camera_keeper import CameraKeeper, KeeperLimits
from stream.server.supervisor.camera_status import CameraStatus, HistoryPoint, RestorerStatus
from stream.server.supervisor.recordings import NotFound, Recording, confined, listed
from stream.server.supervisor.restorer_keeper import RestorerKeeper
from stream.server.supervisor.source_test import Attempt, attempt
from stream.server.supervisor.viewers import Viewer

__all__ = ["PREVIEWS", "CameraStatus", "KeeperLimits", "NotFound", "Supervisor", "Viewer"]

_LIMITS = KeeperLimits()
_CHECK_S = 0.5
_LATE_S = 3.0
_HISTORY_S = 10.0
_TEST_S = 20.0
_TESTS = 2
_GIB = 2**30
PREVIEWS = ("restored", "pair")
"""Kinds of pictures that can be watched."""


class Supervisor:
    """Runs the cameras of a file and keeps the file as they are changed.

    Every method may be called from any thread. What a name does not lead to raises NotFound, wrong
    settings ConfigError; both are one line without credentials.
    """

    def __init__(
        self,
        file: CamerasFile,
        path: Path | None,
        events: Events,
        limits: KeeperLimits = _LIMITS,
        *,
        server: ServerSettings | None = None,
    ) -> None:
        """`server`: in place of the file's, which stays in the file."""
        self.events = events
        self.server = server or file.server
        self._file_server = file.server
        self._path, self._limits = path, limits
        self._keepers: dict[str, CameraKeeper] = {}
        self._lock = threading.RLock()
        """Held while cameras come, go or change, so that the file always is what runs; never while
        a camera is waited for."""
        self._ended = threading.Event()
        self._monitor: threading.Thread | None = None
        self._disk_is_low = False
        self._folder = tempfile.TemporaryDirectory(prefix="gpen-stream-")
        place = RestorerAddress(Path(self._folder.name))
        self._restorer = (
            RestorerKeeper(place, lambda kind, text: events.add("", kind, text)) if available() else None
        )
        self._place = place if available() else None
        self._tests = threading.BoundedSemaphore(_TESTS)
        self._turns = threading.BoundedSemaphore(available_cores())
        for name, settings in file.cameras.items():
            self._keepers[name] = self._keeper(name, settings)

    def start(self) -> None:
        """Start everything; returns at once."""
        self.server.data_folder.mkdir(parents=True, exist_ok=True)
        if self._restorer is not None:
            self._restorer.start()
        with self._lock:
            for keeper in self._keepers.values():
                keeper.start()
        self._monitor = start_thread("monitor", self._watch)

    def stop(self, timeout_s: float = 10.0) -> None:
        """Have every camera flush and end; what still runs after `timeout_s` is killed."""
        deadline_s = time.monotonic() + timeout_s
        self._ended.set()
        with self._lock:
            keepers = list(self._keepers.values())
        for keeper in keepers:
            keeper.leave()
        for keeper in keepers:
            keeper.join(deadline_s)
        if self._restorer is not None:
            self._restorer.stop()
        if self._monitor is not None:
            self._monitor.join()
        self._folder.cleanup()

    # --- cameras -----------------------------------------------------------------------------------

    def cameras(self) -> list[CameraStatus]:
        """How all of them stand now."""
        with self._lock:
            keepers = list(self._keepers.values())
        return [keeper.status() for keeper in keepers]

    def camera(self, name: str) -> CameraStatus:
        """How one of them stands now."""
        return self._find(name).status()

    def add(self, name: str, settings: CameraSettings) -> None:
        """One more, which starts at once."""
        with self._lock:
            if self._ended.is_set():
                raise ConfigError(f"cameras.{name}: the server is about to end")
            if name in self._keepers:
                raise ConfigError(f"cameras.{name}: there is such a camera already; take another name")
            keeper = self._keepers[name] = self._keeper(name, settings)
            keeper.start()
            self._save()

    def replace(self, name: str, settings: CameraSettings) -> None:
        """Other settings; its process finishes and starts again.

        A source or sink that is given as it is shown, with *** for the credentials, stays what it is.
        """
        with self._lock:
            keeper = self._find(name)
            keeper.renew(self._order(name, _with_secrets(settings, keeper.order)))
            self._save()

    def remove(self, name: str) -> None:
        """Have it flush and end, within 10 s; its recordings stay."""
        with self._lock:
            keeper = self._find(name)
            keeper.leave()
        keeper.join(time.monotonic() + 10.0)
        with self._lock:
            self._keepers.pop(name, None)
            self._save()

    def change(self, name: str, changes: LiveSettings) -> None:
        """Change what runs, without a break, and the settings with it."""
        keeper = self._find(name)
        check_camera(name, keeper.order.settings.changed(changes))
        keeper.change(changes)
        with self._lock:
            before = keeper.order
            passing = before.passing if changes.passing is None else changes.passing
            keeper.adopt(self._order(name, before.settings.changed(changes), passing))
            self._save()

    def history(self, name: str) -> list[HistoryPoint]:
        """The last hour, a point each 10 s."""
        return self._find(name).history()

    @contextmanager
    def watch(self, name: str, kind: str) -> Iterator[Viewer]:
        """Watch its pictures: kind "restored", or "pair", the original above it."""
        if kind not in PREVIEWS:
            raise ConfigError(f"{kind[:40]!r}: no preview; choose one of {', '.join(PREVIEWS)}")
        with Viewer(self._find(name).viewers, kind) as viewer:
            yield viewer

    def is_ready(self) -> bool:
        """Whether it runs, the restorer is there, and no camera is still waiting for its first start."""
        with self._lock:
            states = {keeper.status().process for keeper in self._keepers.values()}
        started = self._monitor is not None and not self._ended.is_set()
        restores = self._restorer is None or self._restorer.status().pid != 0
        return started and restores and not states & {"waiting", "starting"}

    def restorer(self) -> RestorerStatus | None:
        """The restorer of all cameras; None where each camera restores by itself."""
        return self._restorer.status() if self._restorer is not None else None

    def test(self, source: str) -> Attempt:
        """Try a source, for 20 s at most. For a camera that is there its shown address will do.

        Raises StreamError where too many are being tried already.
        """
        with self._lock:
            orders = [keeper.order for keeper in self._keepers.values()]
        known = {order.shown.source: order.settings.source for order in orders}
        if not self._tests.acquire(timeout=_TEST_S):
            raise StreamError("other sources are being tested; try again in a moment")
        try:
            return attempt(known.get(source, source), _TEST_S)
        finally:
            self._tests.release()

    def segments(self, name: str) -> list[Recording]:
        """Its recordings, oldest first."""
        return listed(self._folders(name), time.time())

    def segment_path(self, name: str, file: str) -> Path:
        """A recording's file; NotFound for anything else."""
        return confined(self._folders(name), file, name)

    # --- within -----------------------------------------------------------------------------------

    def _keeper(self, name: str, settings: CameraSettings) -> CameraKeeper:
        order = self._order(name, settings)
        return CameraKeeper(
            order, self._limits, self._turns, lambda kind, text: self.events.add(name, kind, text)
        )

    def _order(self, name: str, settings: CameraSettings, passing: bool = False) -> CameraOrder:
        check_camera(name, settings)
        self._refuse_shared(name, settings)
        return CameraOrder(name, settings, self.server.data_folder, shown(settings), passing, self._place)

    def _refuse_shared(self, name: str, settings: CameraSettings) -> None:
        """Two cameras that write into one folder would overwrite each other."""
        mine = {(spec.kind, spec.target): spec.shown for spec in settings.sinks(self.server.data_folder)}
        for other, keeper in self._keepers.items():
            for spec in keeper.order.settings.sinks(self.server.data_folder) if other != name else ():
                if (text := mine.get((spec.kind, spec.target))) is not None:
                    raise ConfigError(f"cameras.{name}.to: {text} is camera {other}'s; name another")

    def _find(self, name: str) -> CameraKeeper:
        with self._lock:
            keeper = self._keepers.get(name)
        if keeper is None:
            raise NotFound(f"{name[:40]!r}: there is no such camera")
        return keeper

    def _folders(self, name: str) -> list[Path]:
        order = self._find(name).order
        specs = order.settings.sinks(order.data)
        return [Path(spec.target) for spec in specs if spec.kind == "segments"]

    def _save(self) -> None:
        if self._path is not None:
            settings = {name: keeper.order.settings for name, keeper in self._keepers.items()}
            save_cameras(self._path, CamerasFile(server=self._file_server, cameras=settings))

    def _watch(self) -> None:
        """The monitor's thread."""
        remembered_s = looked_s = time.monotonic()
        while not self._ended.wait(_CHECK_S):
            late_s, looked_s = time.monotonic() - looked_s, time.monotonic()
            if late_s > _LATE_S:  # we were stopped ourselves: the reports that waited are read first
                continue
            with self._lock:
                keepers = list(self._keepers.values())
            for keeper in [*keepers, self._restorer]:
                if keeper is not None:
                    keeper.check()
            if time.monotonic() - remembered_s >= _HISTORY_S:
                remembered_s += _HISTORY_S
                for keeper in keepers:
                    keeper.remember(time.time())
                self._check_disk(keepers)

    def _check_disk(self, keepers: list[CameraKeeper]) -> None:
        """Tell once that the disk gets full, before recordings have to stop."""
        needed_gb = max((k.order.settings.config().record.free_gb for k in keepers), default=0.5)
        try:
            free_gb = shutil.disk_usage(self.server.data_folder).free / _GIB
        except OSError:  # the folder was taken away: the sinks say so
            return
        low = free_gb < (2.5 if self._disk_is_low else 2.0) * needed_gb
        if low and not self._disk_is_low:
            text = f"{free_gb:.1f} GiB free; recordings stop below {needed_gb:.1f} GiB"
            self.events.add("", "disk_low", text)
        self._disk_is_low = low


def _with_secrets(new: CameraSettings, old: CameraOrder) -> CameraSettings:
    """Addresses given as they are shown, filled in from those that are known."""
    known = dict(zip(old.shown.to, old.settings.to, strict=True))
    known[old.shown.source] = old.settings.source
    to = tuple(known.get(text, text) for text in new.to)
    return new.model_copy(update={"source": known.get(new.source, new.source), "to": to})
