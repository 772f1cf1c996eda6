"""Previews of cameras on other machines: fetched while somebody watches, and not at all otherwise."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stream.errors import ClusterError, StreamError
from stream.pipeline.processes import start_thread
from stream.server.fleet.fleet_client import NodeClient
from stream.server.supervisor.viewers import Viewer, Viewers

_WAIT_S = 2.0
"""How long one call waits for the next picture."""
_PAUSE_S = 0.5
"""Pause before the next try, when no node runs the camera or the node does not answer."""


class RemotePictures:
    """Viewers of all cameras, and a thread for each camera and kind that is watched.

    `client_of`: the node that runs a camera now; None if none does.
    """

    def __init__(self, client_of: Callable[[str], NodeClient | None]) -> None:
        self._client_of = client_of
        self._viewers: dict[str, Viewers] = {}
        self._running: dict[tuple[str, str], threading.Thread] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()

    @contextmanager
    def watch(self, name: str, kind: str) -> Iterator[Viewer]:
        """Watch a camera's previews of one kind."""
        with self._lock:
            viewers = self._viewers.get(name)
            if viewers is None:
                viewers = self._viewers[name] = Viewers(lambda kinds: self._fetch(name, kinds))
        with Viewer(viewers, kind) as viewer:
            yield viewer

    def close(self, name: str) -> None:
        """End all viewers of a camera, which is gone."""
        with self._lock:
            viewers = self._viewers.pop(name, None)
        if viewers is not None:
            viewers.close()

    def stop(self) -> None:
        """End all viewers and threads."""
        self._ended.set()
        with self._lock:
            names, threads = list(self._viewers), list(self._running.values())
        for name in names:
            self.close(name)
        for thread in threads:
            thread.join()

    def _fetch(self, name: str, kinds: frozenset[str]) -> None:
        """Have a thread for each kind that is watched."""
        with self._lock:
            viewers = self._viewers.get(name)
            if viewers is None or self._ended.is_set():
                return
            for kind in kinds:
                if (name, kind) not in self._running:
                    thread = start_thread(f"pictures of {name}", self._run, name, kind, viewers)
                    self._running[name, kind] = thread

    def _run(self, name: str, kind: str, viewers: Viewers) -> None:
        """Body of a thread: fetch pictures until nobody watches any more."""
        while True:
            with self._lock:
                gone = self._viewers.get(name) is not viewers or self._ended.is_set()
                if gone or kind not in viewers.kinds:
                    del self._running[name, kind]
                    return
            client = self._client_of(name)
            try:
                picture = client.picture(name, kind, _WAIT_S) if client is not None else None
            except (ClusterError, StreamError):  # it is on its way to another node
                client = picture = None
            if picture is not None:
                viewers.show(kind, picture)
            elif client is None:
                self._ended.wait(_PAUSE_S)
