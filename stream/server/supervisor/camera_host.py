"""What the dashboard asks of those who run cameras, on this machine or on the nodes of a cluster."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from stream.live.session.live_settings import LiveSettings
from stream.server.camera_config import CameraSettings, ServerSettings
from stream.server.events import Events
from stream.server.supervisor.camera_status import CameraStatus, HistoryPoint, NodeStatus, RestorerStatus
from stream.server.supervisor.recordings import Recording
from stream.server.supervisor.source_test import SourceTestResult
from stream.server.supervisor.viewers import Viewer


class CameraHost(Protocol):
    """Runs cameras. All methods may be called from any thread.

    A name that does not exist raises NotFoundError, wrong settings raise ConfigError; both messages are one
    line without credentials.
    """

    server: ServerSettings
    events: Events

    def start(self) -> None:
        """Start; returns at once."""

    def stop(self, timeout_s: float = 10.0) -> None:
        """End within about `timeout_s`."""

    def cameras(self) -> list[CameraStatus]:
        """The state of all cameras now."""

    def camera(self, name: str) -> CameraStatus:
        """The state of one camera now."""

    def nodes(self) -> list[NodeStatus]:
        """The state of all nodes now; empty if all cameras run on this machine."""

    def add(self, name: str, settings: CameraSettings) -> None:
        """Add a camera, which starts at once."""

    def replace(self, name: str, settings: CameraSettings) -> None:
        """Give a camera other settings; it starts again.

        An address that is given as it is shown, with ***, keeps its credentials.
        """

    def remove(self, name: str) -> None:
        """Have a camera flush its sinks and end; its recordings stay."""

    def change(self, name: str, changes: LiveSettings) -> None:
        """Change the running session without interrupting it, and the camera's settings with it."""

    def history(self, name: str) -> list[HistoryPoint]:
        """A camera's figures of the last hour, one point every 10 s."""

    def watch(self, name: str, kind: str) -> AbstractContextManager[Viewer]:
        """Watch a camera's previews: of kind "restored", or "pair" with the original above."""

    def is_ready(self) -> bool:
        """Whether every camera has started once."""

    def restorer(self) -> RestorerStatus | None:
        """The state of the restorer, or of all nodes' together; None where there is none."""

    def test_source(self, source: str) -> SourceTestResult:
        """Open a source and wait for its first picture, for 20 s at most."""

    def segments(self, name: str) -> list[Recording]:
        """A camera's recordings, oldest first."""

    def segment_path(self, name: str, file: str) -> Path:
        """The path of a recording; NotFoundError for any other file."""
