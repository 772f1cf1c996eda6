"""Previews for viewers of a camera: each gets only the newest, so that a slow one delays no other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self

from stream.live.packets import JpegPicture

PREVIEW_KINDS = ("restored", "pair")
"""`restored`: the picture that goes out. `pair`: the original above the restored picture."""


class Viewer:
    """One viewer of one camera; a context manager. Pictures that it is too slow for are skipped."""

    def __init__(self, viewers: Viewers, kind: str) -> None:
        self.kind, self._viewers = kind, viewers
        self._newest: JpegPicture | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._on_change: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        self._viewers.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._viewers.remove(self)

    @property
    def closed(self) -> bool:
        """Whether no picture will come any more: the camera was removed."""
        return self._closed

    def notify(self, on_change: Callable[[], None]) -> None:
        """Have `on_change` called, in the camera's thread, for each picture and at the end.

        For callers that must not block in `next`.
        """
        self._on_change = on_change

    def next(self, timeout_s: float) -> JpegPicture | None:
        """The newest picture that was not returned before; None if none came in time or none will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest or self._closed, timeout_s)
            picture, self._newest = self._newest, None
            return picture

    def show(self, picture: JpegPicture) -> None:
        """Offer a picture; it replaces one that was not returned yet."""
        with self._changed:
            self._newest = picture
            self._changed.notify_all()
        self._on_change()

    def close(self) -> None:
        """End: no picture will come any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._on_change()


class Viewers:
    """All viewers of one camera. `on_change` is called with the kinds that are watched from now on."""

    def __init__(self, on_change: Callable[[frozenset[str]], None]) -> None:
        self._on_change = on_change
        self._viewers: list[Viewer] = []
        self._lock = threading.Lock()

    @property
    def kinds(self) -> frozenset[str]:
        """The preview kinds that are watched now."""
        with self._lock:
            return frozenset(viewer.kind for viewer in self._viewers)

    def add(self, viewer: Viewer) -> None:
        """Add a viewer."""
        with self._lock:
            self._viewers.append(viewer)
        self._on_change(self.kinds)

    def remove(self, viewer: Viewer) -> None:
        """Remove a viewer."""
        with self._lock:
            self._viewers.remove(viewer)
        self._on_change(self.kinds)

    def show(self, kind: str, picture: JpegPicture) -> None:
        """Show a picture to all viewers of this kind."""
        with self._lock:
            viewers = [viewer for viewer in self._viewers if viewer.kind == kind]
        for viewer in viewers:
            viewer.show(picture)

    def close(self) -> None:
        """Close all viewers: the camera is gone."""
        with self._lock:
            viewers = list(self._viewers)
        for viewer in viewers:
            viewer.close()
