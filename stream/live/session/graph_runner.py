"""Runs the graphs of a live session one after another."""

from __future__ import annotations

import time
from collections.abc import Callable

from stream.errors import StageError
from stream.faces.restore.restore_stage import RestoreCounts
from stream.live.session.control import Control
from stream.live.session.delivery import DeliveryStage
from stream.live.session.graph import Graph
from stream.live.session.inlet import Inlet
from stream.pipeline.pipeline import Pipeline

_MAX_FAILURES, _FAILURES_WITHIN_S = 3, 60.0
"""The session ends when its stages fail more often than this within a minute."""


class GraphRunner:
    """Runs a graph, or no stages at all, between the inlet and the delivery; one pipeline at a time.

    `on_event(kind, text)` is called when a stage fails.
    """

    def __init__(
        self, inlet: Inlet, delivery: DeliveryStage, control: Control, on_event: Callable[[str, str], None]
    ) -> None:
        self._inlet, self._delivery, self._control = inlet, delivery, control
        self._on_event = on_event
        self._running: tuple[Graph | None, RestoreCounts] = None, RestoreCounts()
        """The graph that runs and the counts of those before it, changed together for other threads."""
        self._failed_at_s: list[float] = []

    @property
    def graph(self) -> Graph | None:
        """The graph that runs; None while frames pass straight to the delivery."""
        return self._running[0]

    @property
    def faces(self) -> RestoreCounts:
        """Counts over all graphs; from any thread."""
        graph, counts = self._running
        return counts if graph is None else counts.plus(graph.restore.counts)

    def apply(self) -> None:
        """Let the running graph work as the control says now; from any thread."""
        if (graph := self.graph) is not None:
            graph.apply(self._control)

    def run(self, graph: Graph | None, on_tick: Callable[[Pipeline], None]) -> bool:
        """Run a graph's stages until the pipeline is stopped, a stage fails or the source ends.

        `on_tick` is called ten times a second in this thread. Returns False where a stage failed, so that the
        graph has to be loaded again. Raises StageError at the fourth failure within a minute.
        """
        self._running = graph, self._running[1]
        self.apply()  # settings may have changed since the graph was loaded
        stages = graph.stages if graph is not None else []
        pipeline = Pipeline(self._inlet, [*stages, ("outlet", self._delivery)])
        try:
            pipeline.run(lambda: on_tick(pipeline))
        except StageError as error:
            self._note_failure(error)
            return False
        finally:
            self._running = None, self.faces  # the graph's stages are closed
        return True

    def _note_failure(self, error: StageError) -> None:
        now = time.monotonic()
        recent = [at_s for at_s in self._failed_at_s if now - at_s < _FAILURES_WITHIN_S]
        self._failed_at_s = [*recent, now]
        if len(self._failed_at_s) > _MAX_FAILURES:
            raise error
        self._on_event("stage_failed", f"{error}; frames go out as they came until it is built anew")
