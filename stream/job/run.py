"""One run over files: its stages watched from the first frame to the last, and its report."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

import cv2

from stream import __version__
from stream.errors import ConfigError, EncodeError
from stream.faces.assembly import Setup, assemble
from stream.faces.track.tracker import Tracker
from stream.media.codecs import EncoderRecipe
from stream.media.coloured import coloured_still, coloured_stream
from stream.media.decode import FileSource
from stream.media.images import Still
from stream.models.engines import Engine
from stream.picture.frame import StreamInfo, View
from stream.pipeline.cpu_budget import available_cores
from stream.pipeline.meter import peak_rss_mb, process_age_s
from stream.pipeline.pipeline import Pipeline
from stream.pipeline.stage import Sink, Source

_LONGEST_S = 1e7  # what lies beyond overflows the timestamps of some containers


@dataclass(frozen=True, slots=True)
class Options:
    """What concerns one run rather than the way of working."""

    aligned: bool = False
    """Every frame already is an aligned crop: no detection, no mask."""
    start_s: float | None = None
    duration_s: float | None = None
    overwrite: bool = False
    allow_loss: bool = False
    """Streams that the output's container cannot hold may be left out."""

    def __post_init__(self) -> None:
        for name, value, low in (("start", self.start_s, 0.0), ("duration", self.duration_s, 1e-3)):
            if value is not None and not low <= value <= _LONGEST_S:
                raise ConfigError(f"--{name} {value:g}: write seconds, {low:g} to {_LONGEST_S:g}")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is; `frames_total` 0 where the container does not say."""

    frames_in: int
    frames_done: int
    frames_total: int
    faces: int
    elapsed_s: float


ProgressCallback = Callable[[Progress], None]


class RunReport(TypedDict, total=False):
    """What `--report` writes. A file that could not be begun has `input`, `output` and `failures` only."""

    input: str
    output: str
    frames_in: int
    frames_out: int
    faces_restored: int
    """Crops that went through the network."""
    faces_left_alone: int
    """Crops too sharp to gain."""
    faces_carried: int
    """Crops made from restored ones of the same track."""
    restorations_forced: int
    """Of those restored: out of turn, because their neighbours did not explain them."""
    faces_not_finite: int
    """Crops that went out unchanged, because the network's output held NaN or infinity."""
    faces_stabilised: int
    faces_guarded: int
    faces_parsed: int
    detections_run: int
    frames_tracked: int
    tracks: int
    scene_cuts: int
    corrupt_packets: int
    wall_s: float
    cpu_s: float
    """Of all threads of this process, while the pipeline ran."""
    first_frame_s: float | None
    """From the process's start to the first encoded frame."""
    fps: float
    stage_ms: dict[str, dict[str, float]]
    """By stage: median, p95, calls, busy_s, cpu_s."""
    peak_rss_mb: float
    cores: int
    threads: dict[str, int]
    engine: str
    model: str
    model_sha256: str
    notes: list[str]
    config: dict[str, Any]
    """The settings in force."""
    decoder: str
    encoder: str
    status: str
    """complete, interrupted or truncated."""
    failures: list[str]
    """Files of a folder that could not be restored, one line each."""


class Run:
    """One run over files. Raises StreamError in `execute`."""

    def __init__(self, setup: Setup, *, still: bool = False) -> None:
        """`still`: the frames are pictures that have nothing to do with one another."""
        self.setup = setup
        self.stages = assemble(setup, still=still, create=self._create_engine)
        self.note = f"faces restored by gpen-stream {__version__} ({setup.model.name})"
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
        """Run to the end; a Ctrl-C is handed back once what was on its way has been written.

        `total`: frames to expect, 0 where nobody knows. A Ctrl-C that comes after `stop` was set only
        hurries, and is not handed back.
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
    """A video's frames, as the task wants them; its `info` says what they are like. Raises SourceError."""
    setup.task.check_size(info.path, info.view.upright_size)
    return FileSource(
        coloured_stream(info) if setup.task.in_colour else info,
        options.start_s,
        options.duration_s,
        setup.threads.decoder,
        setup.config.decode.hardware == "auto",
        setup.task.in_colour,
    )


def adapted(setup: Setup, still: Still) -> Still:
    """A picture as the task wants it; SourceError where it cannot do with it."""
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
