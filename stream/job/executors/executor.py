"""The protocol of what restores the segments of a plan."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import JsonValue

from stream.faces.assembly import Setup
from stream.job.plan.plan import PlannedSegment
from stream.job.plan.planned_job import PlannedJob
from stream.job.run_report import RunTimes
from stream.job.segments.segment_sink import UnfinishedPart
from stream.job.segments.work_folder import WorkFolder


@dataclass(frozen=True, slots=True)
class ExecutorState:
    """Progress of an executor with its segments."""

    frames_in: int
    """Frames decoded, those of warm-ups and tails too."""
    frames_out: int
    """Frames that have been encoded."""
    faces: int
    """Faces that have been restored."""
    segments_done: int
    """Segments that are finished."""
    workers: int
    """Processes that restore at the moment."""
    elapsed_s: float


@dataclass(slots=True)
class ExecutionResult:
    """How an executor ended."""

    times: RunTimes = field(default_factory=RunTimes)
    interrupt: KeyboardInterrupt | None = None
    """The Ctrl-C that ended it, if no `stop` came before."""
    unfinished: UnfinishedPart | None = None
    """The encoded part of a segment that was cut short."""


OnState = Callable[[ExecutorState], None]
"""Called about ten times a second."""


class Executor(Protocol):
    """Restores segments, in whatever order, so that each has its receipt in the folder."""

    def machine_facts(self, setup: Setup) -> dict[str, JsonValue]:
        """What decides the bits that are computed where this executor computes. Raises StreamError."""

    def run(
        self,
        job: PlannedJob,
        folder: WorkFolder,
        missing: Sequence[PlannedSegment],
        on_state: OnState,
        stop: threading.Event,
    ) -> ExecutionResult:
        """Restore the missing segments. Raises StreamError; finished segments stay."""

    def close(self) -> None:
        """Release what it holds."""
