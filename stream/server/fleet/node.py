"""A node of a fleet, an actor of the cluster: one on each machine, which runs the cameras leased to it."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from dataclasses import dataclass

from stream import __version__
from stream.live.packets import JpegPicture
from stream.live.session.live_settings import LiveSettings
from stream.pipeline.processes import start_thread
from stream.server.camera_config import ServerSettings
from stream.server.fleet.actor_process import prepare_process
from stream.server.fleet.fleet_client import CoordinatorClient
from stream.server.fleet.fleet_messages import FleetEvent, NodeSnapshot, Numbered
from stream.server.fleet.machines import ClusterMachine
from stream.server.fleet.node_agent import RENEWAL_TIMEOUT_S, NodeAgent, NodeIdentity
from stream.server.supervisor.source_test import SourceTestResult
from stream.server.supervisor.viewers import Viewer

NODE_CONCURRENCY = 48
"""Calls at a time; those that wait for a picture take one each."""
_UNWATCHED_S = 5.0
"""A view that nobody has asked for a picture in this time is closed."""


@dataclass(slots=True)
class _View:
    """A camera that somebody watches from another machine."""

    viewer: Viewer
    ending: contextlib.ExitStack
    used_s: float


class FleetNode:
    """The actor. What it does is in `NodeAgent`; here are the calls from other machines."""

    def __init__(self, machine: ClusterMachine, server: ServerSettings, version: str) -> None:
        """`version`: the coordinator's, which has to be this machine's too."""
        prepare_process()
        identity = NodeIdentity(uuid.uuid4().hex, machine.id, machine.name, machine.cores)
        coordinator = CoordinatorClient(RENEWAL_TIMEOUT_S)
        problem = f"it has gpen-stream {__version__}, the coordinator {version}; install the same"
        self._agent = NodeAgent(
            identity, server, coordinator.renew, problem=problem if version != __version__ else ""
        )
        self._views: dict[tuple[str, str], _View] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._agent.start()
        start_thread("views", self._close_unwatched)

    def wake(self) -> None:
        """Ask for orders at once."""
        self._agent.wake()

    def snapshot(self, event: int) -> NodeSnapshot:
        """All cameras, and the events after that number; -1: none, only the number of the last."""
        supervisor = self._agent.supervisor
        happened = supervisor.events.since(max(event, 0))
        last = happened[-1].id if happened else max(event, 0)
        events = [FleetEvent(one.camera, one.kind, one.text) for one in happened] if event >= 0 else []
        return NodeSnapshot(
            self._agent.identity.run,
            tuple(self._agent.cameras()),
            supervisor.restorer(),
            Numbered(last, tuple(events)),
        )

    def change(self, name: str, changes: LiveSettings) -> None:
        """Change a running session: see `Supervisor.change`."""
        self._agent.supervisor.change(name, changes)

    def test_source(self, source: str) -> SourceTestResult:
        """Open a source from this machine."""
        return self._agent.supervisor.test_source(source)

    def picture(self, name: str, kind: str, timeout_s: float) -> JpegPicture | None:
        """The next preview of a camera; None if none came in time. Raises NotFoundError.

        The camera makes previews as long as this is called again and again.
        """
        return self._view(name, kind).viewer.next(timeout_s)

    def stop(self) -> None:
        """End all cameras, and tell the coordinator so."""
        self._ended.set()
        self._agent.stop()

    # --- internals ---------------------------------------------------------------------------------

    def _view(self, name: str, kind: str) -> _View:
        with self._lock:
            view = self._views.get((name, kind))
            if view is None or view.viewer.closed:
                ending = contextlib.ExitStack()
                viewer = ending.enter_context(self._agent.supervisor.watch(name, kind))
                view = self._views[name, kind] = _View(viewer, ending, 0.0)
            view.used_s = time.monotonic()
            return view

    def _close_unwatched(self) -> None:
        """Body of a thread: end views that nobody needs any more."""
        while not self._ended.wait(1.0):
            with self._lock:
                old = [
                    key for key, view in self._views.items()
                    if view.viewer.closed or time.monotonic() - view.used_s > _UNWATCHED_S
                ]  # fmt: skip
                views = [self._views.pop(key) for key in old]
            for view in views:
                view.ending.close()
