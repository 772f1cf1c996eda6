"""The state of cameras and of their restorer, as metrics, pages and API read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import JsonValue
from pydantic_core import to_jsonable_python

from stream.live.session.session_report import SessionReport
from stream.server.camera_config import CameraSettings
from stream.server.restorer_service.restorer_messages import RestorerReport

ProcessState = Literal[
    "waiting", "starting", "running", "restarting", "broken", "ended", "paused", "disabled", "stopped"
]
"""`waiting` for its turn to start, `restarting` after a crash, `broken` after many crashes, `ended` with its
source, `paused` by its schedule, `stopped` for good."""

NodeState = Literal["up", "silent", "unusable"]
"""`silent`: its cameras get other nodes soon. `unusable`: it can run no camera."""


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """One camera at one moment, without credentials."""

    name: str
    settings: CameraSettings
    process: ProcessState
    words: str
    """The state of the source, or of the process while no session runs, for people."""
    pid: int
    """0 while no process runs."""
    restarts: int
    nice: int
    """Niceness of the process above that of the server."""
    report: SessionReport | None
    """The newest report; None while no session runs."""
    node: str = ""
    """The node of the cluster that runs it; empty if it has none."""

    def to_json(self) -> dict[str, JsonValue]:
        """The camera as the API gives it; while no session runs, the report is empty."""
        values: dict[str, JsonValue] = to_jsonable_python(self)
        return values | {"report": self.report.to_json() if self.report is not None else {}}


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """A camera's figures at one moment; None while it did not run."""

    at: float
    """Unix time, s."""
    delay_ms: float | None
    """Median delay of the last frames."""
    p95_ms: float | None
    """95th percentile of their delay."""
    load: float | None
    """Share of the time for which the busiest stage is busy, 0 to 1."""
    fps: float | None
    """Frames delivered per second."""

    @classmethod
    def of(cls, report: SessionReport | None, now: float) -> Self:
        """The figures of a report, at `now` in Unix time (s)."""
        at = round(now, 1)
        if report is None:
            return cls(at, None, None, None, None)
        delay = report.delay
        return cls(at, delay["median_ms"], delay["p95_ms"], report.load, report.fps_out)


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node of a fleet at one moment."""

    name: str
    state: NodeState
    words: str
    """The state for people."""
    cores: float
    """Cores that it has for cameras."""
    used: float
    """Cores that its cameras need, as they are estimated."""
    cameras: tuple[str, ...]
    """Names of the cameras that it runs."""
    silence_s: float
    """Time since it was last heard of."""
    restorer: RestorerStatus | None = None
    """Its restorer; None if it is unknown."""

    def to_json(self) -> dict[str, JsonValue]:
        """The node as the API gives it."""
        values: dict[str, JsonValue] = to_jsonable_python(self)
        return values | {"restorer": self.restorer.to_json() if self.restorer is not None else {}}


@dataclass(frozen=True, slots=True)
class RestorerStatus:
    """The restorer of all cameras at one moment."""

    pid: int
    """0 while no process runs."""
    restarts: int
    report: RestorerReport | None
    """The newest report; None before the first one."""

    def to_json(self) -> dict[str, JsonValue]:
        """The restorer as the API gives it: the report's keys beside the others."""
        report: dict[str, JsonValue] = to_jsonable_python(self.report) if self.report is not None else {}
        return {"pid": self.pid, "restarts": self.restarts} | report
