"""The stages of a live session for one model: those of a file, which follow a Control while they run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from stream.config import Config
from stream.errors import ConfigError
from stream.faces.assembly import Setup, assemble
from stream.faces.restore.restore_stage import CropRestorer
from stream.faces.track.tracker import Tracker
from stream.live.session.control import Control
from stream.models.engines import Engine
from stream.models.info import ModelInfo
from stream.picture.face import FrameWork
from stream.picture.frame import Frame
from stream.pipeline.stage import NamedStage, Stage

CreateEngine = Callable[[Config, ModelInfo], Engine]


class Graph:
    """All stages between inlet and outlet for one model. The constructor loads the model and runs it once.

    `on_trouble(text)` is called when the model begins to fail. `snapshots` is a stage that is put before
    those that change the picture. Raises ConfigError and ModelError.
    """

    def __init__(
        self,
        config: Config,
        control: Control,
        create_engine: CreateEngine | None,
        on_trouble: Callable[[str], None],
        snapshots: Stage[FrameWork, FrameWork] | None = None,
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
        self._detection_interval = config.detect.interval
        self.stages = _with_snapshots(
            [("track", LiveTracker(stages.detect, control)), *stages.in_line()[1:]], snapshots
        )
        self.apply(control)

    def apply(self, control: Control) -> None:
        """Let the stages work as `control` says from the next frame on; from any thread."""
        self.restore.set_mode(control.restore_mode(self._detection_interval))
        if self._stabilise is not None:
            self._stabilise.set_strength(control.stabilise_strength)

    def warm(self, frame: Frame) -> None:
        """Prepare the detector for pictures like this one; only before a pipeline runs the stages."""
        self._tracker.warm_up(frame)

    def discard(self) -> None:
        """Release the model of a graph whose stages no pipeline has run."""
        self._engine.close()


def _with_snapshots(
    stages: list[NamedStage], snapshots: Stage[FrameWork, FrameWork] | None
) -> list[NamedStage]:
    """The stages with `snapshots` just before those that change the picture."""
    if snapshots is None:
        return stages
    at = next(i for i, (name, _) in enumerate(stages) if name in ("upscale", "compose"))
    return [*stages[:at], ("tap", snapshots), *stages[at:]]


class LiveTracker(Stage[FrameWork, FrameWork]):
    """Stage: a tracker that is bypassed while nothing is restored, and that restarts with every epoch."""

    def __init__(self, tracker: Tracker, control: Control) -> None:
        self._tracker, self._control = tracker, control
        self._epoch: int | None = None
        """Epoch of the frames that are tracked; None while the tracker is bypassed."""

    def open(self) -> None:
        """See `Stage.open`."""
        self._tracker.open()

    def process(self, work: FrameWork) -> Iterable[FrameWork]:
        """See `Stage.process`."""
        bypasses = self._control.bypasses
        epoch = None if bypasses else work.frame.epoch
        if epoch != self._epoch:
            self._tracker.reset()
            self._epoch = epoch
        if bypasses:
            yield work
        else:
            yield from self._tracker.process(work)

    def flush(self) -> Iterable[FrameWork]:
        """See `Stage.flush`."""
        return self._tracker.flush()

    def close(self) -> None:
        """See `Stage.close`."""
        self._tracker.close()


class FailSafeEngine(CropRestorer):
    """An engine that returns NaN where the wrapped engine fails, so that the picture goes on unrestored.

    `on_trouble(text)` is called when it begins to fail. Which exceptions a library raises is not known.
    """

    def __init__(self, engine: Engine, on_trouble: Callable[[str], None]) -> None:
        self._engine, self._on_trouble = engine, on_trouble
        self._failing = False

    def restore(self, crops: np.ndarray) -> np.ndarray:
        """See `Engine.restore`."""
        try:
            restored = self._engine.restore(crops)
        except Exception as error:
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
