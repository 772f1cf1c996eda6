"""One run over files: its stages watched from the first frame to the last, and its report."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict

import cv2

from stream import __version__
from stream.errors import EncodeError
from stream.faces.assembly import Setup, assemble
from stream.faces.track.tracker import Tracker
from stream.job.interface import Options, Progress, ProgressCallback, RunReport
from stream.media.codecs import EncoderRecipe
from stream.media.decode import FileSource
from stream.media.images import Still, coloured_still
from stream.models.engines import Engine
from stream.picture.frame import StreamInfo, View
from stream.pipeline.cpu_budget import available_cores
from stream.pipeline.meter import peak_rss_mb, process_age_s
from stream.pipeline.pipeline import Pipeline
from stream.pipeline.stage import Sink, Source


class Run:
    """One run over files."""

    def __init__(self, setup: Setup, *, still: bool = False) -> None:
        """`still`: the frames are pictures that have nothing to do with one another."""
        self.setup = setup
        self.stages = assemble(setup, still=still, create=self._create_engine)
        self.note = f"faces restored by gpen-stream {__version__} ({setup.model.name})"
        """Text for the metadata of what is written."""
        self._pipeline: Pipeline | None = None
        self._engine_name = ""
        self._wall_s = self._cpu_s = 0.0
        self._first_s: float | None = None

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
        began, cpu_began = time.monotonic(), time.process_time()
        began_age = process_age_s()
        stages = [*self.stages.in_line(), ("encode", sink)]
        self._pipeline = pipeline = Pipeline.from_source(source, stages)
        counts = self.stages.restore.counts

        def tick() -> None:
            if stop is not None and stop.is_set():
                pipeline.stop()
            if progress is not None:
                faces = counts.restored + counts.propagated
                elapsed = time.monotonic() - began
                progress(Progress(source.frames_in, sink.frames_out, total, faces, elapsed))

        try:
            pipeline.run(tick)
        except KeyboardInterrupt as interrupt:
            return None if stop is not None and stop.is_set() else interrupt
        finally:
            self._wall_s = time.monotonic() - began
            self._cpu_s = time.process_time() - cpu_began
            first = pipeline.meters["encode"].first_at
            self._first_s = None if first is None else first - began + began_age
        tick()
        return None

    def report(self, source: Source, sink: Sink) -> RunReport:
        """The counts, times and settings of the run."""
        stages, setup = self.stages, self.setup
        counts, detect = stages.restore.counts, stages.detect
        tracker = detect if isinstance(detect, Tracker) else None
        meters = self._pipeline.meters if self._pipeline is not None else {}
        return {
            "frames_in": source.frames_in,
            "frames_out": sink.frames_out,
            "faces_restored": counts.restored,
            "faces_left_alone": counts.left_alone,
            "faces_carried": counts.propagated,
            "restorations_forced": counts.forced,
            "faces_not_finite": counts.not_finite,
            "faces_stabilised": stages.stabilise.faces_stabilised if stages.stabilise is not None else 0,
            "faces_guarded": stages.mask.faces_guarded,
            "faces_parsed": stages.mask.faces_parsed,
            "detections_run": detect.detections_run if detect is not None else 0,
            "frames_tracked": tracker.frames_tracked if tracker is not None else 0,
            "tracks": tracker.tracks if tracker is not None else 0,
            "scene_cuts": tracker.scene_cuts if tracker is not None else 0,
            "corrupt_packets": source.corrupt_packets,
            "wall_s": round(self._wall_s, 3),
            "cpu_s": round(self._cpu_s, 3),
            "first_frame_s": None if self._first_s is None else round(self._first_s, 3),
            "fps": round(sink.frames_out / self._wall_s, 2) if self._wall_s else 0.0,
            "stage_ms": {name: meter.summary() for name, meter in meters.items()},
            "peak_rss_mb": peak_rss_mb(),
            "cores": available_cores(),
            "threads": asdict(setup.threads),
            "engine": self._engine_name,
            "model": setup.model.name,
            "model_sha256": setup.model.sha256,
            "notes": list(source.notes) + list(sink.notes),
            "config": setup.config.model_dump(mode="json"),
        }

    def _create_engine(self) -> Engine:
        engine = self.setup.create_engine()
        self._engine_name = engine.name
        return engine


def video_source(setup: Setup, options: Options, info: StreamInfo) -> FileSource:
    """The frames of the video `info`, in colour where the task needs it. Raises SourceError."""
    setup.task.check_size(info.path, info.view.upright_size)
    return FileSource(
        info,
        options.start_s,
        options.duration_s,
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
