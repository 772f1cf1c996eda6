"""A video restored by a plan: what an earlier run finished is kept, the rest is restored, all is joined."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from stream.config import Config
from stream.errors import PlanChangedError, PlanError, SourceError
from stream.faces.assembly import Setup
from stream.faces.compose.upscale import require_progressive
from stream.job.counts import RunCounts
from stream.job.executors.executor import ExecutionResult, Executor, ExecutorState
from stream.job.interface import (
    SEGMENT_S,
    Options,
    Outcome,
    Progress,
    ProgressCallback,
    RunReport,
    SegmentReport,
    Status,
)
from stream.job.plan.borders import find_segments, read_times
from stream.job.plan.facts import job_facts
from stream.job.plan.plan import Facts, Plan, PlannedSegment, first_difference
from stream.job.plan.planned_job import PlannedJob, record_of
from stream.job.run import check_colour, video_source
from stream.job.run_report import make_report
from stream.job.segments.join import first_segments, join_segments, partial_name
from stream.job.segments.segment_check import segment_fault
from stream.job.segments.work_folder import Receipt, WorkFolder
from stream.media.container import window_pts
from stream.media.encode import FileSink, OutputOptions, check_destination
from stream.picture.frame import StreamInfo

_ATTEMPTS = 3
"""How often a segment is restored that is not what the plan asks for."""
_STITCHABLE = ("libx264", "libx264rgb")
"""Encoders that write the same headers for every segment only if they are told so."""


def needs_plan(info: StreamInfo, options: Options) -> bool:
    """Whether a video is restored by a plan: it is longer than a segment, as far as its container says."""
    longest_s = SEGMENT_S if options.segment_s is None else options.segment_s
    start_s = options.start_s or 0.0
    left_s = info.duration_s - start_s
    length_s = left_s if options.duration_s is None else min(left_s, options.duration_s)
    return bool(longest_s) and length_s > longest_s


class PlannedRun:
    """One run of a job that has, or gets, a plan."""

    def __init__(
        self, source: Path, destination: Path, config: Config, options: Options, executor: Executor
    ) -> None:
        self._source, self._destination = source, destination
        self._config, self._options, self._executor = config, options, executor
        self._folder = WorkFolder(destination)
        self._setup: Setup | None = None

    def run(
        self, info: StreamInfo, progress: ProgressCallback | None, stop: threading.Event | None
    ) -> Outcome | None:
        """Restore the video. None: it has no times by which it could be planned. Raises StreamError."""
        stop = stop or threading.Event()
        plan = self.plan(info)
        if plan is None:
            return None
        if not self._folder.has_plan() or self._options.restart:
            self._folder.begin(plan)
        job = PlannedJob.of(plan, self.setup)
        before = self._folder.finished(plan)
        self._folder.drop_parts()
        missing = [segment for segment in plan.segments if segment.index not in before]
        frames_before = sum(receipt.counts.frames_out for receipt in before.values())
        faces_before = sum(receipt.counts.faces for receipt in before.values())

        def on_state(state: ExecutorState) -> None:
            if progress is not None:
                progress(
                    Progress(
                        frames_before + state.frames_in,
                        frames_before + state.frames_out,
                        plan.frames,
                        faces_before + state.faces,
                        state.elapsed_s,
                        frames_before=frames_before,
                        segments_done=len(before) + state.segments_done,
                        segments_total=len(plan.segments),
                        workers=state.workers,
                    )
                )

        execution = self._restore(job, missing, on_state, stop)
        return self._conclude(job, execution, set(before))

    def _restore(
        self,
        job: PlannedJob,
        missing: Sequence[PlannedSegment],
        on_state: Callable[[ExecutorState], None],
        stop: threading.Event,
    ) -> ExecutionResult:
        """Have the missing segments restored, and those again that are not what the plan asks for."""
        result, fault = ExecutionResult(), ""
        for _ in range(_ATTEMPTS if missing else 0):
            result = self._executor.run(job, self._folder, missing, on_state, stop)
            if stop.is_set() or result.interrupt is not None:
                return result
            faulty = []
            for segment in missing:
                receipt = self._folder.receipt(segment)
                found = "its file is damaged" if receipt is None else segment_fault(job, segment, receipt)
                if found is not None:
                    self._folder.discard(segment)
                    faulty.append(segment)
                    fault = f"segment {segment.index}: {found}"
            missing = faulty
            if not missing:
                break
        if missing:
            raise PlanError(f"{self._destination}: {fault}, {_ATTEMPTS} times; report it with its input")
        return result

    def plan(self, info: StreamInfo) -> Plan | None:
        """The plan of an earlier run, if it fits, or a new one; None: the video cannot be planned.

        Nothing is stored. Raises StreamError.
        """
        folder, options = self._folder, self._options
        check_destination(self._source, self._destination, options.overwrite)
        longest_s = SEGMENT_S if options.segment_s is None else options.segment_s
        facts = job_facts(self._source, self.setup, options, longest_s, whole=options.verify_input)
        machine = self._executor.machine_facts(self.setup)
        if folder.has_plan() and not options.restart:
            plan = folder.read_plan()
            differs = first_difference(facts, plan.facts) or first_difference(machine, plan.machine)
            if differs is not None:
                raise PlanChangedError(
                    f"{self._destination}: an earlier run cannot be continued, since {differs}; "
                    "run it as before, or add --restart to begin again",
                    differs,
                )
            return plan
        return self._new_plan(info, facts, machine, longest_s)

    def _new_plan(self, info: StreamInfo, facts: Facts, machine: Facts, longest_s: float) -> Plan | None:
        options = self._options
        times = read_times(info)
        if times is None or not times.pts:
            return None
        window = window_pts(info, options.start_s, options.duration_s)
        segments = find_segments(info, times, self._config, window, longest_s)
        if not segments:
            raise SourceError(f"{self._source}: holds no frame in the part that is asked for; check --start")
        sink = self._trial_sink(info)
        return Plan(
            source=str(self._source.resolve()),
            destination=str(self._destination.resolve()),
            facts=dict(facts),
            machine=dict(machine),
            settings=self._config.model_dump(mode="json"),
            aligned=options.aligned,
            start_s=options.start_s,
            duration_s=options.duration_s,
            allow_loss=options.allow_loss,
            recipe=record_of(replace(sink.recipe, notes=tuple(sink.notes))),
            copy_parameters=sink.copies_parameters,
            encoder_threads=self.setup.threads.encoder,
            shift_pts=sink.first_pts,
            end_pts=sink.end_pts,
            segments=tuple(segments),
        )

    @property
    def setup(self) -> Setup:
        """Model, task and threads for the settings. Raises ConfigError and ModelError."""
        if self._setup is None:
            self._setup = Setup.of(self._config, aligned=self._options.aligned)
        return self._setup

    def _trial_sink(self, info: StreamInfo) -> FileSink:
        """A sink that was opened once: it has settled the recipe and knows what the output would lose."""
        upscale = self._config.compose.upscale
        if upscale > 1:
            require_progressive(info)
        shown = video_source(self.setup, info, (None, None)).info
        encode = self._config.encode.model_copy(update={"threads": self.setup.threads.encoder})
        sink = FileSink(shown, self._destination, encode, self._output_options())
        check_colour(self.setup, sink.recipe)
        if sink.recipe.encoder in _STITCHABLE:
            params = sink.recipe.options.get("x264-params", "")
            stitchable = f"{params}:stitchable=1".lstrip(":")
            sink.recipe = replace(sink.recipe, options=sink.recipe.options | {"x264-params": stitchable})
        try:
            sink.open()
        finally:
            sink.discard()
        return sink

    def _output_options(self) -> OutputOptions:
        options = self._options
        return OutputOptions(
            overwrite=options.overwrite,
            allow_loss=options.allow_loss,
            start_s=options.start_s,
            duration_s=options.duration_s,
            upscale=self._config.compose.upscale,
        )

    def _conclude(self, job: PlannedJob, execution: ExecutionResult, before: set[int]) -> Outcome:
        """Join what is finished: all of it as the output, or the first part of it as NAME.partial."""
        plan, folder = job.plan, self._folder
        receipts = folder.finished(plan)
        complete = len(receipts) == len(plan.segments)
        ready = first_segments(folder, plan, receipts)
        unfinished = execution.unfinished
        if not complete and unfinished is not None and unfinished.segment.index == len(ready):
            ready.append((unfinished.path, unfinished.packets))
        if not any(packets.pts for _, packets in ready):
            if complete:
                folder.remove()
                raise SourceError(
                    f"{self._source}: not one picture of its video can be decoded; is it whole?"
                )
            raise execution.interrupt or SourceError(
                f"{self._source}: stopped before its first segment was restored"
            )
        path = self._destination if complete else partial_name(self._destination)
        sink = join_segments(job, ready, path, complete=complete)
        folder.drop_parts()
        if complete:
            folder.remove_partial()
        else:
            folder.note_partial(path)
        if execution.interrupt is not None:
            raise execution.interrupt
        report = self._report(job, execution, sorted(receipts.values(), key=lambda r: r.index), before)
        notes = list(plan.recipe.notes)
        notes += [note for note in (*sink.notes, *_source_notes(receipts)) if note not in notes]
        status = Status.COMPLETE
        if not complete:
            status = Status.INTERRUPTED
            notes.append(
                f"{len(receipts)} of {len(plan.segments)} segments are done; the same command continues"
            )
        elif any(receipt.truncated for receipt in receipts.values()):
            status = Status.TRUNCATED
        report["notes"] = notes
        report["input"], report["output"] = str(self._source), str(path)
        report["encoder"], report["status"] = plan.recipe.encoder, status.value
        report["decoder"] = job.info.codec
        if complete and not self._options.keep_segments:
            folder.remove()
        return Outcome(path, status, report, tuple(notes))

    def _report(
        self, job: PlannedJob, execution: ExecutionResult, receipts: Sequence[Receipt], before: set[int]
    ) -> RunReport:
        counts = RunCounts()
        for receipt in receipts:
            counts = counts.plus(receipt.counts)
        report = make_report(job.setup, counts, execution.times, ())
        report["segments"] = [
            _segment_report(job, job.plan.segments[receipt.index], receipt, receipt.index in before)
            for receipt in receipts
        ]
        return report


def _segment_report(
    job: PlannedJob, segment: PlannedSegment, receipt: Receipt, earlier: bool
) -> SegmentReport:
    start = 0 if segment.start_pts is None else segment.start_pts - job.plan.shift_pts
    return {
        "index": receipt.index,
        "start_s": round(float(start * job.info.time_base), 3),
        "frames": receipt.counts.frames_out,
        "faces": receipt.counts.faces,
        "extra_frames": segment.extra_frames,
        "begins_at_cut": segment.begins_at_cut,
        "worker": receipt.worker,
        "seconds": receipt.seconds,
        "earlier": earlier,
    }


def _source_notes(receipts: dict[int, Receipt]) -> list[str]:
    notes: list[str] = []
    for receipt in receipts.values():
        notes += [note for note in receipt.notes if note not in notes]
    return notes
