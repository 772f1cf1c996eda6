"""The stages of a live picture: those of a file, with what changes while they run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from stream.config import Config
from stream.errors import ConfigError
from stream.faces.assembly import Setup, assemble
from stream.faces.detect.finder import choose
from stream.faces.restore.schedule import RestoreMode
from stream.faces.track.tracker import Tracker
from stream.live.session.degradation import LEVELS, DegradationLevel
from stream.live.session.inlet import Inlet
from stream.live.status import Delays
from stream.models.engines import Engine
from stream.models.info import ModelInfo
from stream.picture.face import Face, FrameWork
from stream.picture.frame import Frame
from stream.pipeline.stage import NamedStage, Stage

CreateEngine = Callable[[Config, ModelInfo], Engine]
_STICKY = 1.25
"""A face that is restored already counts as so much larger: two of a size must not take turns."""


@dataclass(slots=True)
class Control:
    """What the stages are told while they run. Written by the session, read by their threads."""

    settings: Config
    """Strengths, interval and regions as they hold now."""
    keyframes: int
    """Frames from detection to detection."""
    passing: bool = False
    """As the user asked."""
    idle: bool = False
    """As the motion gate says."""
    level: DegradationLevel = LEVELS[0]
    wanted: int = 0
    """Faces of the last frame that would be restored if nothing had to give way."""
    _kept: set[int] = field(default_factory=set)

    @property
    def untouched(self) -> bool:
        """Whether frames go out as they came."""
        return self.passing or self.idle or self.level.passing

    @property
    def restore_mode(self) -> RestoreMode:
        """How restorations are spared now."""
        sparing, restore = self.level.sparing, self.settings.restore
        interval = max(restore.interval, self.keyframes) if sparing else restore.interval
        return RestoreMode(restore.strength, interval, strict=sparing)

    @property
    def steadiness(self) -> float:
        """Strength of the stabiliser now: what is restored on keyframes only hardly flickers."""
        return 0.0 if self.level.sparing else self.settings.stabilise.strength

    def chosen(self, faces: Sequence[Face], size: tuple[float, float]) -> list[Face]:
        """The faces to restore, in their order; for the crop stage's thread only."""
        wanted, most = choose(faces, self.settings.select, size), self.level.faces
        self.wanted = len(wanted)
        if most is not None and len(wanted) > most:
            largest = sorted(wanted, key=self._weight, reverse=True)[:most]
            wanted = [face for face in wanted if any(face is kept for kept in largest)]
        self._kept = {face.track_id for face in wanted}
        return wanted

    def _weight(self, face: Face) -> float:
        height = float(face.box_xyxy[3] - face.box_xyxy[1])
        return height * (_STICKY if face.track_id in self._kept else 1.0)


class Graph:
    """Everything between inlet and outlet for one model, loaded and warm before its first frame.

    `on_trouble(text)` is told when the model begins to fail. Raises ConfigError and ModelError.
    """

    def __init__(
        self,
        config: Config,
        control: Control,
        create_engine: CreateEngine | None,
        on_trouble: Callable[[str], None],
        tap: Stage[FrameWork, FrameWork] | None = None,
    ) -> None:
        causal = config.track.model_copy(update={"lookahead": False})
        setup = Setup.of(config.model_copy(update={"track": causal}))
        setup = replace(setup, threads=setup.threads.for_live())
        self.model = setup.model
        engine = create_engine(config, setup.model) if create_engine is not None else setup.create_engine()
        side = setup.model.in_size
        engine.restore(np.zeros((1, side, side, 3), np.float32))  # the first call is the slowest
        self.engine_name = engine.name
        stages = assemble(
            setup, choose_faces=control.chosen, create=lambda: FailSafeEngine(engine, on_trouble)
        )
        if not isinstance(stages.detect, Tracker):
            raise ConfigError("a live picture is no aligned crop: its faces have to be found")
        self.restore, self._stabilise = stages.restore, stages.stabilise
        self._engine, self._tracker = engine, stages.detect
        self.stages = _with_tap([("track", LiveTracker(stages.detect, control)), *stages.in_line()[1:]], tap)
        self.follow(control)

    def follow(self, control: Control) -> None:
        """Work from the next frame on as `control` says now; from any thread."""
        self.restore.set_mode(control.restore_mode)
        if self._stabilise is not None:
            self._stabilise.set_strength(control.steadiness)

    def warm(self, frame: Frame) -> None:
        """Have the detector made ready for pictures like this one; before a pipeline runs the stages."""
        self._tracker.warm_up(frame)

    def discard(self) -> None:
        """Release what was loaded, where no pipeline has run the stages."""
        self._engine.close()


def _with_tap(stages: list[NamedStage], tap: Stage[FrameWork, FrameWork] | None) -> list[NamedStage]:
    """The stages with `tap` just before those that change the picture."""
    if tap is None:
        return stages
    at = next(i for i, (name, _) in enumerate(stages) if name in ("upscale", "compose"))
    return [*stages[:at], ("tap", tap), *stages[at:]]


class LiveTracker(Stage[FrameWork, FrameWork]):
    """Stage: a tracker that lets frames pass while nothing is to be restored, and begins anew with a take."""

    def __init__(self, tracker: Tracker, control: Control) -> None:
        self._tracker, self._control = tracker, control
        self._take: int | None = None

    def open(self) -> None:
        """See `Stage.open`."""
        self._tracker.open()

    def process(self, work: FrameWork) -> Iterable[FrameWork]:
        """See `Stage.process`."""
        passes = self._control.untouched
        take = None if passes else work.frame.take
        if take != self._take:
            self._tracker.reset()
            self._take = take
        if passes:
            yield work
        else:
            yield from self._tracker.process(work)

    def flush(self) -> Iterable[FrameWork]:
        """See `Stage.flush`."""
        return self._tracker.flush()

    def close(self) -> None:
        """See `Stage.close`."""
        self._tracker.close()


class FailSafeEngine:
    """An engine whose failures cost a restoration, not the picture: what it cannot do becomes NaN."""

    def __init__(self, engine: Engine, on_trouble: Callable[[str], None]) -> None:
        self._engine, self._on_trouble = engine, on_trouble
        self._failing = False

    def restore(self, crops: np.ndarray) -> np.ndarray:
        """See `Engine.restore`."""
        try:
            restored = self._engine.restore(crops)
        except Exception as error:  # whatever a library may raise: the frames go out as they came
            if not self._failing:
                reason = " ".join(str(error).split())[:200]
                self._on_trouble(
                    f"the model fails ({type(error).__name__}: {reason}); faces stay as they are"
                )
            self._failing = True
            side = self._engine.model.size
            return np.full((len(crops), side, side, 3), np.nan, np.float32)
        self._failing = False
        return restored

    def close(self) -> None:
        """See `Engine.close`."""
        self._engine.close()


class DeliveryStage(Stage[FrameWork, None]):
    """The last stage: the outlet, which outlives the pipeline, and the count of what came out.

    `then(work)` is called when the frame has been handed to the sinks: it delays none.
    """

    def __init__(
        self, outlet: Stage[FrameWork, None], inlet: Inlet, budget_s: float, then: Callable[[FrameWork], None]
    ) -> None:
        self.delivered = self.late = 0
        """Frames, and those of them that were older than the budget."""
        self.ages = Delays(kept=500)
        """From arrival to here."""
        self._outlet, self._inlet, self._budget_s, self._then = outlet, inlet, budget_s, then

    def process(self, work: FrameWork) -> Iterable[None]:
        """Encode and hand out one frame. The session opens, flushes and closes the outlet."""
        for _ in self._outlet.process(work):
            pass
        self._inlet.done()
        age_s = time.monotonic() - work.frame.arrived_at_s
        self.delivered += 1
        self.late += age_s > self._budget_s
        self.ages.add(1e3 * age_s)
        self._then(work)
        return ()
