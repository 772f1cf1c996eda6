"""Crops -> patches: runs the network in batches of crops from several frames, frames in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Protocol

import numpy as np

from stream.faces.restore.schedule import Interval, PendingCrop, RestorationSchedule, RestoreMode
from stream.faces.restore.sharpness import restoration_weight
from stream.faces.restore.tasks import Restoration
from stream.picture.face import Crop, FrameWork, Patch
from stream.pipeline.stage import Stage

_MAX_HELD = 32
"""Most frames held back while a batch fills, besides those that wait for the end of a segment."""


class CropRestorer(Protocol):
    """The part of an engine that the stage uses; see `stream.models.engines`."""

    def restore(self, crops: np.ndarray) -> np.ndarray:
        """RGB f32[N,in,in,3] in 0..1 -> the restored crops, f32[N,S,S,3], not clipped."""

    def close(self) -> None:
        """Release the network."""


@dataclass(slots=True)
class RestoreCounts:
    """Crops that a restore stage has handled so far."""

    restored: int = 0
    """Crops that went through the network."""
    left_alone: int = 0
    """Crops that were too sharp to gain: the network never saw them."""
    propagated: int = 0
    """Crops that were made from restored crops of the same track."""
    forced: int = 0
    """Crops among `restored` that came out of turn, because their neighbours did not explain them."""
    not_finite: int = 0
    """Crops left unchanged, because the network's output for them or for a source held NaN or infinity."""

    def plus(self, other: RestoreCounts) -> RestoreCounts:
        """The sums of these counts and other ones."""
        return RestoreCounts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


class RestoreStage(Stage[FrameWork, FrameWork]):
    """Stage: fills `patches`, one for each crop; frames leave in order.

    With an interval of N, a track's first, every N-th and last crop are restored, and those that their
    neighbours cannot explain; the others are propagated (`stream.faces.restore.propagate`). With
    look-ahead at most N frames wait for a track's next restoration; without, no frame waits.

    `skip_sharp` is the sharpness above which a crop is left alone (`stream.faces.restore.sharpness`).
    `task` prepares the network's input and turns its output into the restored crop.
    """

    def __init__(
        self,
        create: Callable[[], CropRestorer],
        batch_size: int,
        strength: float,
        interval: Interval | None = None,
        skip_sharp: float = 1.0,
        task: Restoration | None = None,
    ) -> None:
        """`create` makes the engine, in the stage's own thread."""
        self.counts = RestoreCounts()
        self._create = create
        self._engine: CropRestorer | None = None
        self._wanted_mode = RestoreMode(strength, interval.frames if interval else 1)
        self._mode = self._wanted_mode
        """The mode of the frame in hand."""
        self._batch_size = batch_size
        self._task, self._skip_sharp = task or Restoration(), skip_sharp
        self._schedule = RestorationSchedule(interval)
        self._held: deque[tuple[FrameWork, list[PendingCrop]]] = deque()

    @property
    def mode(self) -> RestoreMode:
        """The mode in which the next frame is restored."""
        return self._wanted_mode

    def set_mode(self, mode: RestoreMode) -> None:
        """Change the mode from the next frame on; from any thread.

        An interval above 1 needs the constructor's `interval`, whatever its `frames`.
        """
        self._wanted_mode = mode

    def open(self) -> None:
        """Load the network, in this thread."""
        self._engine = self._create()

    def process(self, work: FrameWork) -> Iterable[FrameWork]:
        """Hold the frame until its crops are restored; a frame that waits for nothing passes at once."""
        self._mode = self._wanted_mode
        work = self._without_sharp(work)
        crops = [PendingCrop(crop) for crop in work.crops]
        self._held.append((work, crops))
        self._schedule.add(crops, self._mode)
        self._restore_due(partial=not self._schedule.lookahead or len(self._held) >= _MAX_HELD)
        yield from self._finished()

    def flush(self) -> Iterable[FrameWork]:
        """Restore what is held back."""
        self._schedule.finish()
        self._restore_due(partial=True)
        yield from self._finished()

    def close(self) -> None:
        """Release the network."""
        self._held.clear()
        if self._engine is not None:
            self._engine.close()

    def _without_sharp(self, work: FrameWork) -> FrameWork:
        soft = tuple(crop for crop in work.crops if restoration_weight(crop.sharpness, self._skip_sharp) > 0)
        self.counts.left_alone += len(work.crops) - len(soft)
        return work if len(soft) == len(work.crops) else replace(work, crops=soft)

    def _restore_due(self, partial: bool) -> None:
        """Run the network on the due crops; without `partial` only on those that fill whole batches."""
        self.counts.forced = self._schedule.forced
        due = self._schedule.pop_due(self._batch_size, partial)
        for pending, image in zip(due, self._restored([pending.crop for pending in due]), strict=True):
            pending.complete(image)

    def _restored(self, crops: Sequence[Crop]) -> Iterable[np.ndarray | None]:
        """The network's picture of each crop, f32[S,S,3] in 0..1; None where its output is not finite."""
        for at in range(0, len(crops), self._batch_size):
            batch = crops[at : at + self._batch_size]
            assert self._engine is not None, "a frame came before open()"
            outputs = self._engine.restore(np.stack([self._task.prepare(crop) for crop in batch]))
            for crop, output in zip(batch, outputs, strict=True):
                yield self._task.finish(crop, output) if np.isfinite(output).all() else None

    def _finished(self) -> Iterable[FrameWork]:
        """Remove and return the held frames whose crops are all ready, up to the first that is not."""
        while self._held and all(pending.ready for pending in self._held[0][1]):
            work, crops = self._held.popleft()
            yield replace(work, patches=tuple(self._patch(pending) for pending in crops))

    def _patch(self, pending: PendingCrop) -> Patch:
        crop, image = pending.crop, self._picture(pending)
        if image is None:
            self.counts.not_finite += 1
            return Patch(crop, np.zeros_like(crop.image), weight=0.0)
        kept = restoration_weight(crop.sharpness, self._skip_sharp)
        weight = np.float32(self._mode.strength) * np.float32(kept)
        residual = (image - crop.image) * weight
        return Patch(crop, residual, opacity=self._task.opacity(crop), weight=float(weight))

    def _picture(self, pending: PendingCrop) -> np.ndarray | None:
        """The restored picture f32[S,S,3] of a crop that is ready; None: leave the crop as it is."""
        if pending.propagation is None:
            self.counts.restored += pending.restored is not None
            return pending.restored
        pictures = [source.restored for source in pending.sources if source.restored is not None]
        if len(pictures) < len(pending.sources):
            return None
        self.counts.propagated += 1
        return self._schedule.propagator.propagate(pending.crop.image, pending.propagation, pictures)
