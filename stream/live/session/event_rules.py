"""What a session remembers and tells of its camera, sink and faces."""

from __future__ import annotations

from collections.abc import Callable

from stream.faces.restore.restore_stage import RestoreStage
from stream.live.status import ConnectionState, ConnectionStatus
from stream.picture.face import FrameWork

_UNSEEN_S = 30.0
"""A face after so long without any is an event."""


class EventRules:
    """Turns statuses and faces into events: each change once."""

    def __init__(self, on_event: Callable[[str, str], None]) -> None:
        self._on_event = on_event
        self._is_up: bool | None = None
        self._told = ""
        self._face_seen_s = float("-inf")

    def tell(self, status: ConnectionStatus) -> None:
        """A status of the source: camera_up, camera_down, source_refused."""
        if status.state is ConnectionState.LIVE:
            if not self._is_up:
                self._on_event("camera_up", status.words())
            self._is_up, self._told = True, ""
            return
        if status.state in (ConnectionState.REFUSED, ConnectionState.UNAUTHORISED):
            kind = "source_refused"
        elif self._is_up and status.state is not ConnectionState.STOPPED:
            kind = "camera_down"
        else:
            kind = ""
        if status.state is not ConnectionState.CONNECTING:
            self._is_up = False
        if kind and kind != self._told:
            self._told = kind
            self._on_event(kind, status.words())

    def faces(self, count: int, now_s: float) -> None:
        """How many faces a frame shows; face_seen after a while without."""
        if not count:
            return
        if now_s - self._face_seen_s > _UNSEEN_S:
            self._on_event("face_seen", "a face" if count == 1 else f"{count} faces")
        self._face_seen_s = now_s


class SessionCounts:
    """Of the frames delivered, over all graphs of a session."""

    def __init__(self) -> None:
        self.epoch = self.faces = 0
        self.size: tuple[int, int] | None = None
        self.restored = self.carried = self.left_alone = self.not_finite = 0
        """Of graphs that are gone."""

    def add(self, work: FrameWork) -> None:
        """One frame has been delivered."""
        view = work.frame.view
        self.epoch, self.faces, self.size = work.frame.epoch, len(work.faces), (view.width, view.height)

    def keep(self, stage: RestoreStage) -> None:
        """The stage's graph is gone."""
        self.restored += stage.faces_restored
        self.carried += stage.faces_carried
        self.left_alone += stage.faces_left_alone
        self.not_finite += stage.not_finite
