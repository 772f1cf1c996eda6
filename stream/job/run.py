"""One run over files: its stages watched from the first frame to the last, and its report."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import cv2

from stream import __version__
from stream.errors import EncodeError
from stream.faces.assembly import Setup, assemble
from stream.job.counts import counts_of
from stream.job.interface import Progress, ProgressCallback, RunReport
from stream.job.run_report import RunTimes, make_report
from stream.media.codecs import EncoderRecipe
from stream.media.container import PtsWindow
from stream.media.decode import FileSource
from stream.media.images import Still, coloured_still
from stream.models.engines import Engine
from stream.picture.frame import StreamInfo, View
from stream.pipeline.meter import process_age_s
from stream.pipeline.pipeline import Pipeline
from stream.pipeline.stage import Sink, Source


def restored_note(setup: Setup) -> str:
    """Text for the metadata of what is written."""
    return f"faces restored by gpen-stream {__version__} ({setup.model.name})"


class Run:
    """One run over files."""

    def __init__(self, setup: Setup, *, still: bool = False) -> None:
        """`still`: the frames are pictures that have nothing to do with one another."""
        self.setup = setup
        self.stages = assemble(setup, still=still, create=self._create_engine)
        self._pipeline: Pipeline | None = None
        self._times = RunTimes()

    def was_cut_short(self) -> bool:
        """Whether the run was stopped before the end of its source; from any thread."""
        return self._pipeline is not None and self._pipeline.stopped

    def execute(
        self,
        source: Source,
        sink: Sink,
        total: int,
        progress: ProgressCallback | None = None,
        stop: threading.Event | None = None,
    ) -> KeyboardInterrupt | None:
        """Run to the end. Raises StreamError.

        total: frames to expect, 0 where nobody knows. After a Ctrl-C the frames in the pipeline are still
        written, and the KeyboardInterrupt is returned. A Ctrl-C after `stop` was set is not returned: it
        only ends the run sooner.
        """
        cv2.setNumThreads(self.setup.threads.cv2)
        stages = [*self.stages.in_line(), ("encode", sink)]
        self._pipeline = Pipeline.from_source(source, stages)
        counts = self.stages.restore.counts

        def tick(elapsed_s: float) -> None:
            if progress is not None:
                faces = counts.restored + counts.propagated
                progress(Progress(source.frames_in, sink.frames_out, total, faces, elapsed_s))

        return watched(self._pipeline, self._times, tick, stop)

    def report(self, source: Source, sink: Sink) -> RunReport:
        """The counts, times and settings of the run."""
        self._times.frames = sink.frames_out
        counts = counts_of(
            self.stages,
            frames_in=source.frames_in,
            frames_out=sink.frames_out,
            corrupt=source.corrupt_packets,
        )
        return make_report(self.setup, counts, self._times, [*source.notes, *sink.notes])

    def _create_engine(self) -> Engine:
        engine = self.setup.create_engine()
        self._times.engine = engine.name
        return engine


def watched(
    pipeline: Pipeline, times: RunTimes, tick: Callable[[float], None], stop: threading.Event | None
) -> KeyboardInterrupt | None:
    """Run a pipeline whose last stage is called "encode", and note its times. See `Run.execute`.

    `tick` is called ten times a second, and at the end, with the seconds since the beginning.
    """
    began, cpu_began = time.monotonic(), time.process_time()
    began_age = process_age_s()

    def on_tick() -> None:
        if stop is not None and stop.is_set():
            pipeline.stop()
        tick(time.monotonic() - began)

    try:
        pipeline.run(on_tick)
    except KeyboardInterrupt as interrupt:
        return None if stop is not None and stop.is_set() else interrupt
    finally:
        times.wall_s += time.monotonic() - began
        times.cpu_s += time.process_time() - cpu_began
        times.meters = pipeline.meters
        first = pipeline.meters["encode"].first_at
        times.first_frame_s = None if first is None else first - began + began_age
    on_tick()
    return None


def video_source(setup: Setup, info: StreamInfo, window: PtsWindow) -> FileSource:
    """The frames of a part of the video, in colour where the task needs it. Raises SourceError."""
    setup.task.check_size(info.path, info.view.upright_size)
    return FileSource(
        info,
        window,
        setup.threads.decoder,
        setup.config.decode.hardware == "auto",
        setup.task.in_colour,
    )


def prepared_still(setup: Setup, still: Still) -> Still:
    """The picture, in colour where the task needs it. Raises SourceError where the task cannot use it."""
    height, width = still.pixels.shape[:2]
    setup.task.check_size(still.path, View(width, height, turn=still.turn).upright_size)
    return coloured_still(still) if setup.task.in_colour else still


def check_colour(setup: Setup, recipe: EncoderRecipe) -> None:
    """Raise EncodeError where a result in colour would be written in grey."""
    if setup.task.in_colour and recipe.pix_fmt.startswith("gray"):
        raise EncodeError(
            f"encode.codec: {recipe.encoder} holds grey only, but {setup.model.name} gives colour; "
            "leave it out or name another"
        )
