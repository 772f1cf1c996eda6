"""How cameras and their restorer stand, as the server's metrics, pages and API read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue
from pydantic_core import to_jsonable_python

from stream.live.session.session_report import SessionReport
from stream.server.camera_config import CameraSettings
from stream.server.restorer_service.restorer_messages import RestorerReport

ProcessState = Literal[
    "waiting", "starting", "running", "restarting", "broken", "ended", "paused", "disabled", "stopped"
]


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """One camera, without credentials."""

    name: str
    settings: CameraSettings
    process: ProcessState
    words: str
    """The state of the source, or else of the process, for people."""
    pid: int
    """0 where no process runs."""
    restarts: int
    nice: int
    """Niceness of the process above the server's."""
    report: SessionReport | None
    """The newest; None where no session runs."""

    def to_json(self) -> dict[str, JsonValue]:
        """As the API gives it; without a session the report is empty."""
        values: dict[str, JsonValue] = to_jsonable_python(self)
        return values | {"report": self.report.to_json() if self.report is not None else {}}


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """A camera at one moment; values are None where it did not run."""

    at: float
    """Unix time, s."""
    delay_ms: float | None
    """Median delay of the last frames."""
    p95_ms: float | None
    load: float | None
    fps: float | None
    """Frames a second that went out."""


@dataclass(frozen=True, slots=True)
class RestorerStatus:
    """The restorer of all cameras."""

    pid: int
    """0 where no process runs."""
    restarts: int
    report: RestorerReport | None
    """The newest; None where none has come."""

    def to_json(self) -> dict[str, JsonValue]:
        """As the API gives it: the report's keys beside the others."""
        report: dict[str, JsonValue] = to_jsonable_python(self.report) if self.report is not None else {}
        return {"pid": self.pid, "restarts": self.restarts} | report
