"""Segments restored by the processes of a Ray cluster: paths cross the network, frames never do."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue, ValidationError

from stream.errors import ClusterError, EncodeError, PlanError, StreamError
from stream.faces.assembly import Setup
from stream.job.cluster import connect
from stream.job.executors import segment_worker
from stream.job.executors.executor import ExecutionResult, ExecutorState, OnState
from stream.job.executors.segment_worker import Beat, WorkerSettings
from stream.job.plan.plan import PlannedSegment
from stream.job.plan.planned_job import PlannedJob
from stream.job.segments.work_folder import WorkFolder

if TYPE_CHECKING:
    import ray

_ATTEMPTS = 3
"""How often a segment is tried before the job stops."""
_LOADING_S = 120.0
"""Longest time for a worker to load its network, or to be scheduled again by a cluster that is busy."""
_LEASE_S = 15.0
"""Longest time without a sign of a worker that has begun."""
_TICK_S = 0.2


@dataclass(slots=True)
class Attempt:
    """A segment that a worker restores, or waits to restore."""

    segment: PlannedSegment
    lease: Path
    task: ray.ObjectRef[None]
    beat: Beat = field(default_factory=Beat)
    seen_s: float = field(default_factory=time.monotonic)
    """When the beat last changed, by this machine's clock."""

    def renew(self) -> None:
        """Read the lease."""
        try:
            beat = Beat.model_validate_json(self.lease.read_bytes())
        except (OSError, ValidationError):
            return
        if beat.count != self.beat.count:
            self.beat, self.seen_s = beat, time.monotonic()

    def is_silent(self) -> bool:
        """Whether the worker has begun and shows no sign of life any more."""
        limit = _LEASE_S if self.beat.frames_in else _LOADING_S
        return self.beat.count > 0 and time.monotonic() - self.seen_s > limit


class RayExecutor:
    """Restores segments as tasks of a Ray cluster.

    Each task is one segment and holds `worker.cores` cores. A task whose worker dies, or shows no sign of
    life, is given to another; the attempt that was given up may still end, since all attempts write the
    same bytes under names of their own. Leases are files that the workers rewrite; only whether they change
    counts, so that the clocks of the machines need not agree.
    """

    def __init__(self, address: str, worker: WorkerSettings) -> None:
        """`address`: see `stream.job.cluster.connect`. Raises ClusterError."""
        self._address, self._worker = address, worker
        self._connection = connect(address, "--on")
        import ray

        self._ray = ray
        self._failures: dict[int, list[str]] = {}
        self._done = self._frames_done = self._faces_done = 0

    def machine_facts(self, setup: Setup) -> dict[str, JsonValue]:
        """What decides the bits that the first free worker computes. Raises StreamError."""
        self._check_room()
        settings = setup.config.model_dump(mode="json")
        remote = self._ray.remote(num_cpus=self._worker.cores, max_retries=2)(segment_worker.machine_of)
        try:
            facts: dict[str, JsonValue] = self._ray.get(remote.remote(settings, setup.aligned, self._worker))
        except self._ray.exceptions.RayError as error:
            raise _as_stream_error(error, self._address) from None
        return facts

    def run(
        self,
        job: PlannedJob,
        folder: WorkFolder,
        missing: Sequence[PlannedSegment],
        on_state: OnState,
        stop: threading.Event,
    ) -> ExecutionResult:
        """See `Executor.run`."""
        began, result = time.monotonic(), ExecutionResult()
        waiting, running = list(missing), list[Attempt]()
        try:
            while (waiting or running) and not stop.is_set():
                self._start(job, folder, waiting, running)
                self._collect(job, folder, waiting, running)
                result.times.wall_s = time.monotonic() - began
                on_state(self._state(running, result.times.wall_s))
        except KeyboardInterrupt as interrupt:
            result.interrupt = interrupt
        finally:
            for attempt in running:
                self._give_up(attempt)
        result.times.frames = self._frames_done
        result.times.engine = str(job.plan.machine.get("engine", ""))
        return result

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        self._connection.close()

    def _start(
        self, job: PlannedJob, folder: WorkFolder, waiting: list[PlannedSegment], running: list[Attempt]
    ) -> None:
        """Hand out segments: as many as there is room for, and one more that waits for it."""
        cores = sum(cores_of(node) for node in self._nodes())
        room = max(1, int(cores // self._worker.cores)) + 1
        while waiting and len(running) < room:
            segment = waiting.pop(0)
            lease = folder.new_lease(segment.index)
            remote = self._ray.remote(num_cpus=self._worker.cores, max_retries=0)(
                segment_worker.restore_segment
            )
            task = remote.remote(str(folder.destination), segment.index, lease.name, self._worker)
            running.append(Attempt(segment, lease, task))

    def _collect(
        self, job: PlannedJob, folder: WorkFolder, waiting: list[PlannedSegment], running: list[Attempt]
    ) -> None:
        """Wait a moment, and take what has ended or fallen silent out of `running`."""
        ready, _ = self._ray.wait([attempt.task for attempt in running], num_returns=1, timeout=_TICK_S)
        for attempt in list(running):
            attempt.renew()
            if attempt.task in ready:
                failure = self._failure(attempt)
            elif attempt.is_silent():
                self._give_up(attempt)
                failure = f"{attempt.beat.worker} shows no sign of life"
            else:
                continue
            running.remove(attempt)
            attempt.lease.unlink(missing_ok=True)
            receipt = folder.receipt(attempt.segment) if failure is None else None
            if receipt is not None:
                self._done += 1
                self._frames_done += receipt.counts.frames_out
                self._faces_done += receipt.counts.faces
                continue
            self._count_failure(job, attempt.segment, failure or "its file is damaged")
            waiting.insert(0, attempt.segment)

    def _failure(self, attempt: Attempt) -> str | None:
        """Why a task failed; None: it did not. Raises StreamError for what no other worker can mend."""
        try:
            self._ray.get(attempt.task)
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, EncodeError):
                raise cause from None
            return str(cause)
        except self._ray.exceptions.RayError as error:
            return f"its worker died ({type(error).__name__})"
        return None

    def _count_failure(self, job: PlannedJob, segment: PlannedSegment, failure: str) -> None:
        failures = self._failures.setdefault(segment.index, [])
        failures.append(failure)
        if len(failures) >= _ATTEMPTS:
            raise PlanError(
                f"{job.plan.destination}: segment {segment.index} failed {_ATTEMPTS} times, "
                f"the last time because {failure}"
            )

    def _give_up(self, attempt: Attempt) -> None:
        """Have Ray kill the attempt's worker, if it still runs."""
        attempt.lease.unlink(missing_ok=True)
        with suppress(self._ray.exceptions.RayError, ValueError):  # it has ended by itself
            self._ray.cancel(attempt.task, force=True)

    def _state(self, running: Sequence[Attempt], elapsed_s: float) -> ExecutorState:
        beats = [attempt.beat for attempt in running if attempt.beat.count]
        return ExecutorState(
            frames_in=self._frames_done + sum(beat.frames_in for beat in beats),
            frames_out=self._frames_done + sum(beat.frames_out for beat in beats),
            faces=self._faces_done + sum(beat.faces for beat in beats),
            segments_done=self._done,
            workers=len(beats),
            elapsed_s=elapsed_s,
        )

    def _check_room(self) -> None:
        """Raise ClusterError where no machine of the cluster has the cores of one worker."""
        largest = max((cores_of(node) for node in self._nodes()), default=0.0)
        if largest < self._worker.cores:
            raise ClusterError(
                f"--on {self._address}: no machine of the cluster has {self._worker.cores} cores, the "
                f"largest has {largest:g}; lower --worker-cores, or add machines"
            )

    def _nodes(self) -> list[Mapping[str, Mapping[str, float]]]:
        """The machines of the cluster that are alive."""
        nodes = self._ray.nodes()  # Ray's own function has no types
        return [node for node in nodes if node["Alive"]]


def cores_of(node: Mapping[str, Mapping[str, float]]) -> float:
    """The cores of a node, as Ray lists it."""
    return node["Resources"].get("CPU", 0.0)


def _as_stream_error(error: Exception, address: str) -> StreamError:
    """The error of a task as a line."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, StreamError):
        return cause
    return ClusterError(f"--on {address}: a worker failed ({type(error).__name__}: {error})".splitlines()[0])
