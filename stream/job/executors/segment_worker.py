"""A segment restored by a process of a cluster. Input, model and folder lie on storage that it sees."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, JsonValue

from stream.config import parse_config
from stream.errors import PlanError
from stream.faces.assembly import Setup
from stream.job.executors.executor import ExecutorState
from stream.job.executors.local_executor import LocalExecutor
from stream.job.plan.facts import version_facts
from stream.job.plan.plan import Plan, first_difference
from stream.job.plan.planned_job import PlannedJob
from stream.job.segments.segment_check import segment_fault
from stream.job.segments.work_folder import WorkFolder
from stream.pipeline.cpu_budget import budget

_BEAT_S = 0.5
"""Shortest time between two writings of a lease."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Settings of a worker that are not in the plan."""

    cores: int
    """Processor cores that it may use."""
    allow_mixed: bool
    """Whether a machine may compute whose bits differ from the plan's."""


class Beat(BaseModel, frozen=True):
    """Content of a lease's file, which changes while the worker works."""

    count: int = 0
    """Number of times that it was written."""
    frames_in: int = 0
    frames_out: int = 0
    faces: int = 0
    worker: str = ""
    """Host and process."""


class _Loaded:
    """The job that this process restored last: its network stays loaded from segment to segment."""

    job: PlannedJob | None = None
    executor: LocalExecutor | None = None
    written: str = ""
    """The plan's file, as it was read."""


def machine_of(
    settings: Mapping[str, JsonValue], aligned: bool, worker: WorkerSettings
) -> dict[str, JsonValue]:
    """What decides the bits that this process computes. Raises StreamError."""
    executor = LocalExecutor()
    try:
        return executor.machine_facts(_setup(settings, aligned, worker))
    finally:
        executor.close()


def restore_segment(destination: str, index: int, lease: str, worker: WorkerSettings) -> None:
    """Restore a segment of the plan beside `destination`; its receipt is there afterwards.

    lease: name of the file, in the job's folder, that shows that this process works. Raises StreamError.
    """
    folder = WorkFolder(Path(destination))
    beat = _Lease(folder.path / lease)
    beat.renew(ExecutorState(0, 0, 0, 0, 1, 0.0))
    job, executor = _load(folder, worker)
    segment = job.plan.segments[index]
    executor.run(job, folder, [segment], beat.renew, threading.Event())
    receipt = folder.receipt(segment)
    fault = "its file is damaged" if receipt is None else segment_fault(job, segment, receipt)
    if fault is not None:
        folder.discard(segment)
        raise PlanError(f"{destination}: segment {index}: {fault}")


class _Lease:
    """A file whose content changes while its worker works. No clock is compared with another machine's."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._renewed_s = -_BEAT_S
        self._count = 0

    def renew(self, state: ExecutorState) -> None:
        """Write how far the worker is, at most twice a second."""
        if state.elapsed_s - self._renewed_s < _BEAT_S:
            return
        self._renewed_s = state.elapsed_s
        self._count += 1
        beat = Beat(
            count=self._count,
            frames_in=state.frames_in,
            frames_out=state.frames_out,
            faces=state.faces,
            worker=f"{platform.node()}:{os.getpid()}",
        )
        part = self._path.with_name(f"{self._path.name}.part")
        with suppress(OSError):  # the driver has given the segment to another, or the disk is full
            part.write_text(beat.model_dump_json(), encoding="utf-8")
            part.replace(self._path)


def _load(folder: WorkFolder, worker: WorkerSettings) -> tuple[PlannedJob, LocalExecutor]:
    """The job of a folder, with the network loaded; kept for the next segment."""
    written = folder.plan_path.read_text(encoding="utf-8")
    if _Loaded.job is not None and _Loaded.executor is not None and _Loaded.written == written:
        return _Loaded.job, _Loaded.executor
    if _Loaded.executor is not None:
        _Loaded.executor.close()
    plan, executor = folder.read_plan(), LocalExecutor()
    setup = _setup(plan.settings, plan.aligned, worker)
    _check_machine(plan, executor, setup, worker)
    _Loaded.job, _Loaded.executor, _Loaded.written = PlannedJob.of(plan, setup), executor, written
    return _Loaded.job, executor


def _setup(settings: Mapping[str, JsonValue], aligned: bool, worker: WorkerSettings) -> Setup:
    setup = Setup.of(parse_config(settings), aligned=aligned)
    return replace(setup, threads=budget(worker.cores))


def _check_machine(plan: Plan, executor: LocalExecutor, setup: Setup, worker: WorkerSettings) -> None:
    """Raise PlanError where this machine would compute other bits than the plan's."""
    here = platform.node()
    differs = first_difference(version_facts(), {key: plan.facts[key] for key in version_facts()})
    if differs is not None:
        raise PlanError(f"{here}: {differs}; install the same versions on every machine")
    differs = first_difference(executor.machine_facts(setup), plan.machine)
    if differs is not None and not worker.allow_mixed:
        raise PlanError(f"{here}: {differs}; leave this machine out, or add --allow-mixed")
