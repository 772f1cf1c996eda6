"""Segments restored one after the other in this process, by one pipeline that never runs empty."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import cv2
import numpy as np
from pydantic import JsonValue

from stream.faces.assembly import Setup, assemble
from stream.job.counts import RunCounts, counts_of
from stream.job.executors.executor import ExecutionResult, ExecutorState, OnState
from stream.job.plan.facts import machine_facts
from stream.job.plan.plan import PlannedSegment
from stream.job.plan.planned_job import PlannedJob
from stream.job.run import watched
from stream.job.segments.segment_feed import SegmentEnd, SegmentFeed
from stream.job.segments.segment_sink import PlannedSegmentSink
from stream.job.segments.segment_stages import StagesBySegment, segment_stages
from stream.job.segments.work_folder import WorkFolder
from stream.models.engines import Engine
from stream.pipeline.pipeline import Pipeline


class SharedEngine:
    """An engine that the restore stages of several segments use, one after the other. Its owner closes it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def restore(self, crops: np.ndarray) -> np.ndarray:
        """See `Engine.restore`."""
        return self._engine.restore(crops)

    def close(self) -> None:
        """Leave the engine to the next segment."""


class LocalExecutor:
    """Restores segments in this process."""

    def __init__(self) -> None:
        self._engine: Engine | None = None

    def machine_facts(self, setup: Setup) -> dict[str, JsonValue]:
        """What decides the bits that this process computes; loads the network. Raises StreamError."""
        return machine_facts(self._loaded(setup))

    def run(
        self,
        job: PlannedJob,
        folder: WorkFolder,
        missing: Sequence[PlannedSegment],
        on_state: OnState,
        stop: threading.Event,
    ) -> ExecutionResult:
        """See `Executor.run`."""
        cv2.setNumThreads(job.setup.threads.cv2)
        engine = self._loaded(job.setup)
        stages = StagesBySegment(lambda: assemble(job.setup, create=lambda: SharedEngine(engine)))
        feed = SegmentFeed(missing, job.open_source)
        finished_faces = 0

        def counts(place: int, end: SegmentEnd) -> RunCounts:
            nonlocal finished_faces
            of_segment = counts_of(
                stages.of(place), frames_in=end.source.frames_in, corrupt=end.source.corrupt_packets
            )
            stages.forget(place)
            finished_faces += of_segment.faces
            return of_segment

        def tick(elapsed_s: float) -> None:
            faces = finished_faces + stages.faces()
            on_state(ExecutorState(feed.frames_in, sink.frames_out, faces, len(sink.finished), 1, elapsed_s))

        sink = PlannedSegmentSink(job.plan, iter(missing), folder, job.encoding, counts)
        windows = iter([(segment.start_pts, segment.end_pts) for segment in missing])
        pipeline = Pipeline(feed, [("decode", feed), *segment_stages(stages, windows), ("encode", sink)])
        result = ExecutionResult()
        result.times.engine = engine.name
        result.interrupt = watched(pipeline, result.times, tick, stop)
        result.times.frames = sink.frames_out
        result.unfinished = sink.unfinished
        return result

    def close(self) -> None:
        """Release the network."""
        if self._engine is not None:
            self._engine.close()
        self._engine = None

    def _loaded(self, setup: Setup) -> Engine:
        if self._engine is None:
            self._engine = setup.create_engine()
        return self._engine
