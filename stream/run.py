"""One run: settings -> stages in line, watched from the first frame to the last, and its report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2

from stream import __version__, metrics, tasks, zoo
from stream.codecs import Recipe
from stream.coloured import coloured_still, coloured_stream
from stream.compose import ComposeStage
from stream.config import Config, Detect
from stream.cores import available_cores, budget
from stream.crop import CropStage, WholeFrameStage, cut
from stream.decode import FileSource
from stream.detect import FaceFinder, choose
from stream.engines import Engine, create_engine
from stream.errors import ConfigError, EncodeError, ModelError
from stream.face import Face
from stream.frame import StreamInfo, View
from stream.geometry import TEMPLATES, template
from stream.images import DetectStage, Still
from stream.masks import MaskStage, face_parser
from stream.model import ModelInfo, read_model_info
from stream.pipeline import Pipeline
from stream.restore import Interval, Restorer, RestoreStage
from stream.sharpness import Gauge
from stream.stabilise import StabiliseStage
from stream.track import Tracker
from stream.upscale import UpscaleStage, background_net

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


class Run:
    """One run: builds the stages, watches them, and reports."""

    def __init__(self, config: Config, options: Options) -> None:
        self.config, self.options = config, options
        self.cores = available_cores()
        self.threads = budget(
            self.cores, config.restore.threads, config.decode.threads, config.encode.threads
        )
        cv2.setNumThreads(self.threads.cv2)
        accept = config.restore.accept_licence
        self._model_path = zoo.resolve(config.restore.model, accept_licence=accept)
        self.model = _usable(self._model_path)
        zoo.require_licence_of(self.model, accept)
        self.task = tasks.create(self.model, config.restore, options.aligned)
        self.note = f"faces restored by gpen-stream {__version__} ({self.model.name})"
        self.stopped = False
        self._engine_name = ""
        self._track: Any = None
        self._restore: RestoreStage | None = None
        self._stabilise: StabiliseStage | None = None
        self._mask: MaskStage | None = None
        self._pipeline: Pipeline | None = None
        self._wall_s = self._cpu_s = 0.0
        self._first_s: float | None = None

    def source(self, info: StreamInfo) -> tuple[StreamInfo, FileSource]:
        """A video's frames, as the task wants them, and the facts about them."""
        self.task.check_size(info.path, info.view.upright_size)
        options, in_colour = self.options, self.task.in_colour
        info = coloured_stream(info) if in_colour else info
        hardware = self.config.decode.hardware == "auto"
        return info, FileSource(
            info, options.start_s, options.duration_s, self.threads.decoder, hardware, in_colour
        )

    def adapt(self, still: Still) -> Still:
        """A picture as the task wants it; SourceError where it cannot do with it."""
        height, width = still.pixels.shape[:2]
        self.task.check_size(still.path, View(width, height, turn=still.turn).upright_size)
        return coloured_still(still) if self.task.in_colour else still

    def check_colour(self, recipe: Recipe) -> None:
        """Raise EncodeError where a result in colour would be written in grey."""
        if self.task.in_colour and recipe.pix_fmt.startswith("gray"):
            raise EncodeError(
                f"encode.codec: {recipe.encoder} holds grey only, but {self.model.name} gives colour; "
                "leave it out or name another"
            )

    def stages(
        self,
        still: bool,
        chosen: Callable[[Sequence[Face], tuple[float, float]], Sequence[Face]] | None = None,
        create: Callable[[], Restorer] | None = None,
    ) -> list[tuple[str, Any]]:
        """Everything between source and sink.

        `chosen` picks the faces to restore in place of the settings' own choice, `create` makes the
        engine in place of `create_engine`.
        """
        config, model = self.config, self.model
        settings, compose = config.restore, config.compose
        restores = model.task == "restore"  # other tasks change what a face looks like on purpose
        gauge = Gauge(steady=not still) if settings.skip_sharp < 1 and restores else None
        interval = Interval(
            # Pictures do not follow from each other, nor do a hole and the face behind it.
            frames=1 if still or not restores else settings.interval,
            lookahead=config.track.lookahead or still,
            landmarks=template(model.template, model.size),
            size=model.size,
        )
        self._restore = RestoreStage(
            create or self.create_engine,
            settings.batch_size,
            settings.strength,
            interval,
            settings.skip_sharp,
            self.task,
        )
        parser = face_parser(compose, self.threads.inference) if restores else None
        self._mask = MaskStage(parser, 1 if still else compose.mask_interval, compose.guard and restores)
        tail = [("restore", self._restore)]
        if restores and not still:
            self._stabilise = StabiliseStage(
                interval.landmarks, model.size, config.stabilise.strength, config.track.lookahead
            )
            tail.append(("stabilise", self._stabilise))
        tail.append(("mask", self._mask))
        if compose.upscale > 1:
            background = background_net(compose, settings.device, self.threads.inference)
            tail.append(("upscale", UpscaleStage(compose.upscale, cut, background)))
        tail.append(("compose", ComposeStage(compose.feather, compose.label, compose.upscale)))
        if self.options.aligned:
            return [("crop", WholeFrameStage(model.size, gauge)), *tail]
        find = FaceFinder(_with_weights(config.detect), self.threads.detector)
        self._track = DetectStage(find.certain) if still else Tracker(find, config.detect, config.track)

        def by_settings(faces, size):
            return choose(faces, config.select, size)

        crop = CropStage(model.template, model.size, chosen or by_settings, gauge)
        return [("track", self._track), ("crop", crop), *tail]

    def execute(self, source, stages, sink, total, progress, stop) -> KeyboardInterrupt | None:
        """Run to the end; a Ctrl-C is handed back once what was on its way has been written.

        One that comes after `stop` was set only hurries, and is not handed back.
        """
        began, cpu_began = time.monotonic(), time.process_time()
        began_age = metrics.process_age_s()
        self._pipeline = pipeline = Pipeline(source, [*stages, ("encode", sink)])
        sink.interrupted = lambda: pipeline.stopped

        def tick() -> None:
            if stop is not None and stop.is_set():
                pipeline.stop()
            if progress is not None:
                faces = self._restore.faces_restored + self._restore.faces_carried
                elapsed = time.monotonic() - began
                progress(Progress(source.frames_in, sink.frames_out, total, faces, elapsed))

        try:
            pipeline.run(tick)
        except KeyboardInterrupt as interrupt:
            return None if stop is not None and stop.is_set() else interrupt
        finally:
            self.stopped = pipeline.stopped
            self._wall_s = time.monotonic() - began
            self._cpu_s = time.process_time() - cpu_began
            first = pipeline.meters["encode"].first_at
            self._first_s = None if first is None else first - began + began_age
        tick()
        return None

    def report(self, source, sink) -> dict[str, Any]:
        """What `--report` writes."""
        track, restore = self._track, self._restore
        return {
            "frames_in": source.frames_in,
            "frames_out": sink.frames_out,
            "faces_restored": restore.faces_restored,
            "faces_left_alone": restore.faces_left_alone,
            "faces_carried": restore.faces_carried,
            "restorations_forced": restore.restorations_forced,
            "faces_not_finite": restore.not_finite,
            "faces_stabilised": getattr(self._stabilise, "faces_stabilised", 0),
            "faces_guarded": self._mask.guarded,
            "faces_parsed": self._mask.parsed,
            "detections_run": getattr(track, "detections_run", 0),
            "frames_tracked": getattr(track, "frames_tracked", 0),
            "tracks": getattr(track, "tracks", 0),
            "scene_cuts": getattr(track, "scene_cuts", 0),
            "corrupt_packets": source.corrupt_packets,
            "wall_s": round(self._wall_s, 3),
            "cpu_s": round(self._cpu_s, 3),
            "first_frame_s": None if self._first_s is None else round(self._first_s, 3),
            "fps": round(sink.frames_out / self._wall_s, 2) if self._wall_s else 0.0,
            "stage_ms": {name: meter.summary() for name, meter in self._pipeline.meters.items()},
            "peak_rss_mb": metrics.peak_rss_mb(),
            "cores": self.cores,
            "threads": asdict(self.threads),
            "engine": self._engine_name,
            "model": self.model.name,
            "model_sha256": self.model.sha256,
            "notes": list(source.notes) + list(sink.notes),
            "config": self.config.model_dump(mode="json"),
        }

    def create_engine(self) -> Engine:
        """The engine that the settings ask for."""
        settings = self.config.restore
        engine = create_engine(
            settings.engine,
            self._model_path,
            device=settings.device,
            batch_size=settings.batch_size,
            threads=self.threads.inference,
            precision=settings.precision,
            fidelity=settings.fidelity,
            info=self.model,
        )
        self._engine_name = engine.name
        return engine


def _with_weights(detect: Detect) -> Detect:
    """The settings with the zoo's weights where the detector needs some and none are named."""
    if detect.detector != "retinaface" or detect.weights is not None:
        return detect
    return detect.model_copy(update={"weights": str(zoo.resolve("retinaface-resnet50"))})


def _usable(path: Path) -> ModelInfo:
    model = read_model_info(path)
    if model.template not in TEMPLATES:
        known = ", ".join(TEMPLATES)
        raise ModelError(f"{path}: its template {model.template!r} is unknown; known: {known}")
    return model
