"""The Python interface: a video or pictures in, the same with restored faces out."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2

from stream.config import Config
from stream.errors import HardwareError, SourceError, StreamError
from stream.faces.assembly import Setup, assemble
from stream.faces.compose.upscale import require_progressive
from stream.job.executors.executor import Executor
from stream.job.executors.local_executor import LocalExecutor
from stream.job.executors.ray_executor import RayExecutor
from stream.job.executors.segment_worker import WorkerSettings
from stream.job.interface import Options, Outcome, ProgressCallback, RunReport, Status
from stream.job.planned_run import PlannedRun, needs_plan
from stream.job.run import Run, check_colour, prepared_still, restored_note, video_source
from stream.media.container import window_pts
from stream.media.encode import FileSink, OutputOptions, check_destination, claim_destination
from stream.media.image_stages import ImageSink, ImageSource
from stream.media.images import is_image
from stream.media.probe import probe
from stream.picture.face import FrameWork
from stream.picture.frame import StreamInfo
from stream.pipeline.pipeline import Pipeline


def restore_file(
    src: str | Path,
    dst: str | Path,
    config: Config | None = None,
    *,
    options: Options | None = None,
    progress: ProgressCallback | None = None,
    stop: threading.Event | None = None,
) -> Outcome:
    """Restore the faces of a video or a picture. Everything else stays as it is.

    Returns when it is done. To stop early, set `stop` from another thread or from `progress`: the part
    that was restored is kept. Ctrl-C does the same, and is then raised again as KeyboardInterrupt.
    Raises a StreamError, whose message is one line, and writes no `dst` then; an EncodeError while another
    run writes `dst`.
    """
    src, dst = Path(src), Path(dst)
    config, options = config or Config(), options or Options()
    check_destination(src, dst, options.overwrite)
    if is_image(src):
        outcome = restore_images([(src, dst)], config, options=options, progress=progress, stop=stop)
        if outcome.failures:
            raise outcome.failures[0]
        return replace(outcome, report={"input": str(src), "output": str(dst), **outcome.report})
    claim = claim_destination(src, dst, options.overwrite)
    try:
        return _restore_video(src, dst, config, options, progress, stop)
    except HardwareError as error:
        encode = config.encode.model_copy(update={"hardware": "off"})
        config = config.model_copy(update={"encode": encode})
        options = replace(options, restart=True)
        outcome = _restore_video(src, dst, config, options, progress, stop)
        note = f"{src}: made again by {outcome.report['encoder']} ({error})"
        outcome.report["notes"].append(note)
        return replace(outcome, notes=(*outcome.notes, note))
    finally:
        claim.release()


def _executor(options: Options) -> Executor:
    """What restores the segments of a plan. Raises ClusterError."""
    if options.on is None:
        return LocalExecutor()
    return RayExecutor(options.on, WorkerSettings(options.worker_cores, options.allow_mixed))


def _restore_video(
    src: Path,
    dst: Path,
    config: Config,
    options: Options,
    progress: ProgressCallback | None,
    stop: threading.Event | None,
) -> Outcome:
    info = probe(src)
    if needs_plan(info, options):
        executor = _executor(options)
        try:
            outcome = PlannedRun(src, dst, config, options, executor).run(info, progress, stop)
        finally:
            executor.close()
        if outcome is not None:
            return outcome
    if info.duration_s and (options.start_s or 0.0) >= info.duration_s:
        raise SourceError(_no_frames(src, info, options, stopped=False))
    if config.compose.upscale > 1:
        require_progressive(info)
    setup = Setup.of(config, aligned=options.aligned)
    run = Run(setup)
    source = video_source(setup, info, window_pts(info, options.start_s, options.duration_s))
    output = OutputOptions(
        overwrite=options.overwrite,
        allow_loss=options.allow_loss,
        start_s=options.start_s,
        duration_s=options.duration_s,
        restored_note=restored_note(setup),
        upscale=config.compose.upscale,
        cut_short=run.was_cut_short,
    )
    encode = config.encode.model_copy(update={"threads": setup.threads.encoder})
    sink = FileSink(source.info, dst, encode, output)
    check_colour(setup, sink.recipe)
    try:
        interrupt = run.execute(source, sink, _expected_frames(source.info, options), progress, stop)
        if not sink.frames_out:
            raise interrupt or SourceError(_no_frames(src, source.info, options, run.was_cut_short()))
    except BaseException:
        sink.discard()
        raise
    complete = not run.was_cut_short()
    path = sink.finish(complete)
    if interrupt is not None:
        raise interrupt
    status = Status.COMPLETE if complete else Status.INTERRUPTED
    if complete and source.truncated:
        status = Status.TRUNCATED
    report: RunReport = {
        "input": str(src),
        "output": str(path),
        **run.report(source, sink),
        "decoder": source.decoder,
        "encoder": sink.recipe.encoder,
        "status": status.value,
    }
    return Outcome(path, status, report, tuple(source.notes + sink.notes))


def restore_images(
    jobs: Sequence[tuple[Path, Path]],
    config: Config | None = None,
    *,
    options: Options | None = None,
    progress: ProgressCallback | None = None,
    stop: threading.Event | None = None,
) -> Outcome:
    """Restore pictures as one batch.

    jobs: (source, destination) of each. One that cannot be read or written, or that another run writes, is
    listed in the outcome's `failures`, and the others are restored. `stop` and Ctrl-C work as in
    `restore_file`.
    """
    setup = Setup.of(config or Config(), aligned=(options or Options()).aligned)
    run = Run(setup, still=True)
    overwrite = (options or Options()).overwrite
    source = ImageSource(jobs, lambda still: prepared_still(setup, still), overwrite=overwrite)
    sink = ImageSink(source, restored_note(setup))
    try:
        interrupt = run.execute(source, sink, len(jobs), progress, stop)
    finally:
        source.release()
    if interrupt is not None:
        raise interrupt
    failures: tuple[StreamError, ...] = (*source.failures, *sink.failures)
    whole = sink.frames_out + len(failures) == len(jobs)
    status = Status.COMPLETE if whole else Status.INTERRUPTED
    report: RunReport = {
        **run.report(source, sink),
        "status": status.value,
        "failures": [str(failure) for failure in failures],
    }
    return Outcome(jobs[0][1], status, report, tuple(source.notes), failures)


def restored_frames(
    src: str | Path, config: Config | None = None, *, options: Options | None = None
) -> Iterator[FrameWork]:
    """Iterate over a video's restored frames in order, for callers that write or show them themselves.

    Each item's `frame.picture` is an `av.VideoFrame` in the input's pixel format, `frame.time` its
    timestamp, and `faces` are the faces found. Leaving the loop early stops the pipeline. Raises
    StreamError.
    """
    options = options or Options()
    setup, info = Setup.of(config or Config(), aligned=options.aligned), probe(src)
    source = video_source(setup, info, window_pts(info, options.start_s, options.duration_s))
    cv2.setNumThreads(setup.threads.cv2)
    yield from Pipeline.from_source(source, assemble(setup).in_line())


def _no_frames(src: Path, info: StreamInfo, options: Options, stopped: bool) -> str:
    """The message for a run in which no frame was written."""
    if stopped:
        return f"{src}: stopped before its first frame was written"
    if options.start_s is None:
        return f"{src}: not one picture of its video can be decoded; is it whole?"
    return f"{src}: no frame from {options.start_s:g} s on; it lasts {info.duration_s:.2f} s, lower --start"


def _expected_frames(info: StreamInfo, options: Options) -> int:
    if options.start_s is None and options.duration_s is None and info.frames:
        return info.frames
    length = max(info.duration_s - (options.start_s or 0.0), 0.0)
    length = length if options.duration_s is None else min(length, options.duration_s)
    return round(length * float(info.rate))
