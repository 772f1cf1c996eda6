"""Decides which changes of a camera's source and of its faces are events."""

from __future__ import annotations

from collections.abc import Callable

from stream.live.status import ConnectionState, ConnectionStatus
from stream.picture.face import FrameWork

_UNSEEN_S = 30.0
"""A face is an event if no face was seen in this time before it."""


class EventRules:
    """Calls `on_event(kind, text)` once for each change."""

    def __init__(self, on_event: Callable[[str, str], None]) -> None:
        self._on_event = on_event
        self._is_up: bool | None = None
        """Whether the source is live; None before its first connection."""
        self._failure = ""
        """Kind of the failure that was reported last; empty while the source is live."""
        self._face_seen_at_s = float("-inf")

    def source_changed(self, status: ConnectionStatus) -> None:
        """The source has another status: camera_up, camera_down, source_refused."""
        if status.state is ConnectionState.LIVE:
            if not self._is_up:
                self._on_event("camera_up", status.words())
            self._is_up, self._failure = True, ""
            return
        if status.state in (ConnectionState.REFUSED, ConnectionState.UNAUTHORISED):
            kind = "source_refused"
        elif self._is_up and status.state is not ConnectionState.STOPPED:
            kind = "camera_down"
        else:
            kind = ""
        if status.state is not ConnectionState.CONNECTING:
            self._is_up = False
        if kind and kind != self._failure:
            self._failure = kind
            self._on_event(kind, status.words())

    def frame_delivered(self, work: FrameWork) -> None:
        """A frame was delivered: face_seen."""
        count, now_s = len(work.faces), work.frame.arrived_at_s
        if not count:
            return
        if now_s - self._face_seen_at_s > _UNSEEN_S:
            self._on_event("face_seen", "a face" if count == 1 else f"{count} faces")
        self._face_seen_at_s = now_s
