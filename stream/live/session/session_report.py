"""What a live session tells of itself, once a second."""

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
    """Without credentials."""
    state: ConnectionState
    """Of the source, as `words` and `detail`."""
    words: str
    detail: str
    take: int
    """`Frame.epoch` of the newest frame; the JSON key keeps its old name."""
    size: tuple[int, int] | None
    """Width and height of the picture, px; None before the first frame."""
    codec: str
    fps_in: float
    fps_out: float
    delay: DelaySummary
    """From arrival to delivery."""
    delay_stages: DelaySummary
    """From arrival to the last stage."""
    faces: int
    """In the newest frame."""
    faces_restored: int
    faces_carried: int
    faces_left_alone: int
    faces_not_finite: int
    frames_in: int
    frames_out: int
    level: int
    """How far restoration has given way; 0: not at all."""
    level_words: str
    idle: bool
    """Whether nothing moves, so that frames go out unrestored."""
    restoring: bool
    drops: Mapping[DropCause, int]
    corrupt_packets: int
    connections: int
    sinks: tuple[SinkReport, ...]
    load: float
    """Part of the time for which the busiest stage is busy, 0 to 1."""
    stage_ms: Mapping[str, float]
    """What each stage takes for a frame."""
    cpu_cores: float
    memory_mb: float
    settings: LiveSettings
    """All of them; `model` is the loaded model's name."""
    engine: str
    """Empty until the first model is loaded."""
    notes: tuple[str, ...]
    uptime_s: float

    def to_json(self) -> dict[str, JsonValue]:
        """As the API and `--report` give it: the settings stand among the other keys."""
        values: dict[str, JsonValue] = to_jsonable_python(self)
        settings: dict[str, JsonValue] = to_jsonable_python(self.settings)
        del values["settings"]
        return values | settings
