"""Settings -> the stages between decoding and encoding. Starts no thread and writes no file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stream.config import Config, Detect, Restore
from stream.errors import ModelError
from stream.faces.compose.compose_stage import ComposeStage
from stream.faces.compose.masks import MaskStage, face_parser
from stream.faces.compose.upscale import UpscaleStage, background_net
from stream.faces.detect.finder import FaceFinder, choose
from stream.faces.detect.stills import DetectStage
from stream.faces.restore import tasks
from stream.faces.restore.crop import CropStage, WholeFrameStage, cut
from stream.faces.restore.restore_stage import CropRestorer, RestoreStage
from stream.faces.restore.schedule import Interval
from stream.faces.restore.sharpness import SharpnessMeter
from stream.faces.restore.stabilise import StabiliseStage
from stream.faces.restore.tasks import Restoration
from stream.faces.track.tracker import Tracker
from stream.models import registry
from stream.models.engines import Engine, create_engine
from stream.models.info import ModelInfo, read_model_info
from stream.picture.face import Face
from stream.picture.geometry import TEMPLATES, template
from stream.pipeline.cpu_budget import ThreadBudget, available_cores, budget
from stream.pipeline.stage import NamedStage

ChooseFaces = Callable[[Sequence[Face], tuple[float, float]], Sequence[Face]]
"""A frame's faces and the upright picture's (width, height), px -> the faces to restore, order kept."""


def find_model(settings: Restore) -> tuple[Path, ModelInfo]:
    """The weights file that the settings name, and the model information in it.

    Raises ModelError where the file is missing or broken, or its template is unknown. Raises ConfigError
    for an unknown name, and for a licence that was not accepted.
    """
    path = registry.resolve(settings.model, accept_licence=settings.accept_licence)
    info = read_model_info(path)
    if info.template not in TEMPLATES:
        known = ", ".join(TEMPLATES)
        raise ModelError(f"{path}: its template {info.template!r} is unknown; known: {known}")
    registry.require_licence_of(info, settings.accept_licence)
    return path, info


@dataclass(frozen=True, slots=True)
class Setup:
    """The settings with the model, the task and the numbers of threads that they lead to on this machine."""

    config: Config
    model_path: Path
    model: ModelInfo
    task: Restoration
    threads: ThreadBudget
    aligned: bool = False
    """Whether every frame is an aligned crop already, without detection and parsing."""

    @classmethod
    def of(cls, config: Config, *, aligned: bool = False) -> Setup:
        """Find the model and divide the cores. Raises ConfigError and ModelError."""
        threads = budget(
            available_cores(), config.restore.threads, config.decode.threads, config.encode.threads
        )
        path, model = find_model(config.restore)
        return cls(config, path, model, tasks.create(model, config.restore, aligned), threads, aligned)

    def create_engine(self) -> Engine:
        """The engine that the settings ask for, with the model loaded."""
        settings = self.config.restore
        return create_engine(
            settings.engine,
            self.model_path,
            device=settings.device,
            batch_size=settings.batch_size,
            threads=self.threads.inference,
            precision=settings.precision,
            fidelity=settings.fidelity,
            info=self.model,
        )


@dataclass(frozen=True, slots=True)
class FaceStages:
    """The stages between decoding and encoding; None: the settings leave the stage out."""

    detect: Tracker | DetectStage | None
    crop: CropStage | WholeFrameStage
    restore: RestoreStage
    stabilise: StabiliseStage | None
    mask: MaskStage
    upscale: UpscaleStage | None
    compose: ComposeStage

    def in_line(self) -> list[NamedStage]:
        """The stages with their names, in the order in which a frame passes them."""
        stages: list[NamedStage] = [] if self.detect is None else [("track", self.detect)]
        stages += [("crop", self.crop), ("restore", self.restore)]
        if self.stabilise is not None:
            stages.append(("stabilise", self.stabilise))
        stages.append(("mask", self.mask))
        if self.upscale is not None:
            stages.append(("upscale", self.upscale))
        return [*stages, ("compose", self.compose)]


def assemble(
    setup: Setup,
    *,
    still: bool = False,
    choose_faces: ChooseFaces | None = None,
    create: Callable[[], CropRestorer] | None = None,
) -> FaceStages:
    """The stages between source and sink, for unrelated pictures (`still`) or for the frames of a video.

    `choose_faces` replaces the settings' choice of the faces to restore. `create` replaces
    `setup.create_engine`; the restore stage calls it in its own thread.
    """
    config, model = setup.config, setup.model
    settings, compose, threads = config.restore, config.compose, setup.threads
    restores = model.task == "restore"  # the other tasks change a face on purpose
    landmarks = template(model.template, model.size)
    measure = SharpnessMeter(by_track=not still) if settings.skip_sharp < 1 and restores else None
    interval = Interval(
        # Unrelated pictures cannot be propagated, and neither can a face onto a hole in the next frame.
        frames=1 if still or not restores else settings.interval,
        lookahead=config.track.lookahead or still,
        landmarks=landmarks,
        size=model.size,
    )
    parser = face_parser(compose, threads.inference) if restores else None
    stabilise = None
    if restores and not still:
        stabilise = StabiliseStage(landmarks, model.size, config.stabilise.strength, config.track.lookahead)
    upscale = None
    if compose.upscale > 1:
        background = background_net(compose, settings.device, threads.inference)
        upscale = UpscaleStage(compose.upscale, cut, background)
    detect: Tracker | DetectStage | None = None
    crop: CropStage | WholeFrameStage = WholeFrameStage(model.size, measure)
    if not setup.aligned:
        finder = FaceFinder(_with_weights(config.detect), threads.detector)
        detect = DetectStage(finder.certain) if still else Tracker(finder, config.detect, config.track)
        crop = CropStage(model.template, model.size, choose_faces or _by_settings(config), measure)
    return FaceStages(
        detect=detect,
        crop=crop,
        restore=RestoreStage(
            create or setup.create_engine,
            settings.batch_size,
            settings.strength,
            interval,
            settings.skip_sharp,
            setup.task,
        ),
        stabilise=stabilise,
        mask=MaskStage(parser, 1 if still else compose.mask_interval, compose.guard and restores),
        upscale=upscale,
        compose=ComposeStage(compose.feather, compose.label, compose.upscale),
    )


def _by_settings(config: Config) -> ChooseFaces:
    return lambda faces, size: choose(faces, config.select, size)


def _with_weights(detect: Detect) -> Detect:
    """The settings with the catalogue's weights where the detector needs weights and none are named."""
    if detect.detector != "retinaface" or detect.weights is not None:
        return detect
    return detect.model_copy(update={"weights": str(registry.resolve("retinaface-resnet50"))})
