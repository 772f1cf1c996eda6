"""How a live session stands, as the API, the metrics and the pages read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import JsonValue
from pydantic_core import to_jsonable_python

from stream.live.session.live_settings import LiveSettings
from stream.live.status import ConnectionState, DelaySummary, DropCause

if TYPE_CHECKING:
    from stream.live.sinks.handle import SinkReport


@dataclass(frozen=True, slots=True)
class SessionReport:
    """How a session stands. Counts are since it began."""

    name: str
    source: str
    """The source's address without credentials."""
    state: ConnectionState
    """State of the source."""
    words: str
    """State of the source with its detail, in words."""
    detail: str
    """Why the source is in this state, or a note on it; may be empty."""
    take: int
    """`Frame.epoch` of the newest frame; the JSON key keeps its old name."""
    size: tuple[int, int] | None
    """Width and height of the stored picture, px; None before the first frame."""
    codec: str
    """Codec of the source; empty before the first picture."""
    fps_in: float
    """Frames a second from the source."""
    fps_out: float
    """Frames a second that were delivered."""
    delay: DelaySummary
    """Times from a frame's arrival to its delivery by a sink."""
    delay_stages: DelaySummary
    """Times from a frame's arrival to the last stage."""
    faces: int
    """Number of faces in the newest frame."""
    faces_restored: int
    """Faces that the network restored."""
    faces_carried: int
    """Faces restored from other frames of the track, without the network."""
    faces_left_alone: int
    """Faces that were too sharp to gain by restoration."""
    faces_not_finite: int
    """Faces left as they were because the network's output was not finite."""
    frames_in: int
    frames_out: int
    """Frames that were delivered."""
    level: int
    """Number of the level of degradation; 0: nothing is given up."""
    level_words: str
    """The meaning of that level."""
    idle: bool
    """Whether nothing moves, so that frames go out unrestored."""
    restoring: bool
    """Whether faces are being restored now."""
    drops: Mapping[DropCause, int]
    """Frames that were not delivered, by cause."""
    corrupt_packets: int
    """Packets of the source that were damaged."""
    connections: int
    """How often the source was connected."""
    sinks: tuple[SinkReport, ...]
    load: float
    """Share of the time in which the busiest stage is busy, 0..1."""
    stage_ms: Mapping[str, float]
    """Milliseconds that each stage needs for a frame."""
    cpu_cores: float
    """Cores' worth of CPU time that the process uses."""
    memory_mb: float
    """Resident memory of the process, MiB."""
    settings: LiveSettings
    """All settings as they hold now; `model` is the loaded model's name."""
    engine: str
    """Name of the engine; empty until the first model is loaded."""
    notes: tuple[str, ...]
    """Remarks for the user about the source, one line each."""
    uptime_s: float
    """Seconds since the session began to run."""

    def to_json(self) -> dict[str, JsonValue]:
        """The report as the API and `--report` give it: the settings are keys beside the others."""
        values: dict[str, JsonValue] = to_jsonable_python(self)
        settings: dict[str, JsonValue] = to_jsonable_python(self.settings)
        del values["settings"]
        return values | settings
