"""Previews on their way to whoever watches: the newest only, so that a slow viewer holds nobody up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self

from stream.live.packets import Jpeg


class Viewer:
    """One watcher of one camera; a context manager. It skips what it is too slow for."""

    def __init__(self, viewers: Viewers, kind: str) -> None:
        self.kind, self._viewers = kind, viewers
        self._newest: Jpeg | None = None
        self._changed = threading.Condition()
        self._closed = False
        self.on_change: Callable[[], None] = lambda: None
        """Called in the camera's thread when a picture came, and at the end; for those who cannot wait."""

    def __enter__(self) -> Self:
        self._viewers.join(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._viewers.leave(self)

    @property
    def closed(self) -> bool:
        """Whether nothing will come any more: the camera was removed."""
        return self._closed

    def next(self, timeout_s: float) -> Jpeg | None:
        """The newest picture that was not taken yet; None where none came in time or none will."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest or self._closed, timeout_s)
            picture, self._newest = self._newest, None
            return picture

    def show(self, picture: Jpeg) -> None:
        """Put a picture in place of one that was not taken."""
        with self._changed:
            self._newest = picture
            self._changed.notify_all()
        self.on_change()

    def close(self) -> None:
        """Wake whoever waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.on_change()


class Viewers:
    """All watchers of one camera. `on_change` is called with the kinds that are wanted."""

    def __init__(self, on_change: Callable[[frozenset[str]], None]) -> None:
        self._on_change = on_change
        self._viewers: list[Viewer] = []
        self._lock = threading.Lock()

    @property
    def kinds(self) -> frozenset[str]:
        """What is watched now."""
        with self._lock:
            return frozenset(viewer.kind for viewer in self._viewers)

    def join(self, viewer: Viewer) -> None:
        """One more."""
        with self._lock:
            self._viewers.append(viewer)
        self._on_change(self.kinds)

    def leave(self, viewer: Viewer) -> None:
        """One less."""
        with self._lock:
            self._viewers.remove(viewer)
        self._on_change(self.kinds)

    def show(self, kind: str, picture: Jpeg) -> None:
        """To all that watch this kind."""
        with self._lock:
            viewers = [viewer for viewer in self._viewers if viewer.kind == kind]
        for viewer in viewers:
            viewer.show(picture)

    def close(self) -> None:
        """The camera is gone."""
        with self._lock:
            viewers = list(self._viewers)
        for viewer in viewers:
            viewer.close()
