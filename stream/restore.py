"""Crops -> patches: the network's one call, batched across frames, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

import numpy as np

from stream.face import Crop, FrameWork, Patch
from stream.sharpness import keep
from stream.tasks import Restoration

_MAX_HELD = 32
"""Frames without a face ride along while a batch fills; more than this many are not held back."""


class Restorer(Protocol):
    """What an engine offers; see `stream.engines`."""

    def restore(self, crops: np.ndarray) -> np.ndarray:
        """RGB f32[N,in,in,3] in 0..1 -> the restored crops, f32[N,S,S,3], not clipped."""

    def close(self) -> None:
        """Release the network."""


class RestoreStage:
    """Stage: gathers crops of several frames into one batch and hands the frames on in order.

    `task` says what the network is shown of a crop and what comes of its answer.
    """

    def __init__(
        self,
        create: Callable[[], Restorer],
        batch_size: int,
        strength: float,
        skip_sharp: float = 1.0,
        task: Restoration | None = None,
    ) -> None:
        self.faces_restored = 0
        self.faces_left_alone = 0
        """Crops too sharp to gain: the network never saw them."""
        self.not_finite = 0
        """Crops whose output held NaN or infinity: they went through unchanged."""
        self._create, self._engine = create, None
        self._batch_size, self._strength = batch_size, np.float32(strength)
        self._task = task or Restoration()
        self._skip_sharp = skip_sharp
        self._waiting: deque[FrameWork] = deque()

    def open(self) -> None:
        """Load the network, in this thread."""
        self._engine = self._create()

    def process(self, work: FrameWork) -> Iterable[FrameWork]:
        """Hold the frame until the batch is full; a frame alone with no face passes at once."""
        self._waiting.append(self._without_sharp(work))
        crops = sum(len(held.crops) for held in self._waiting)
        if crops == 0 or crops >= self._batch_size or len(self._waiting) >= _MAX_HELD:
            yield from self.flush()

    def flush(self) -> Iterable[FrameWork]:
        """Restore what is held back."""
        waiting, self._waiting = self._waiting, deque()
        patches = deque(self._patches([crop for work in waiting for crop in work.crops]))
        for work in waiting:
            yield replace(work, patches=tuple(patches.popleft() for _ in work.crops))

    def close(self) -> None:
        """Release the network."""
        if self._engine is not None:
            self._engine.close()

    def _without_sharp(self, work: FrameWork) -> FrameWork:
        worth = tuple(crop for crop in work.crops if keep(crop.sharpness, self._skip_sharp) > 0)
        self.faces_left_alone += len(work.crops) - len(worth)
        return work if len(worth) == len(work.crops) else replace(work, crops=worth)

    def _patches(self, crops: list[Crop]) -> Iterable[Patch]:
        for at in range(0, len(crops), self._batch_size):
            batch = crops[at : at + self._batch_size]
            restored = self._engine.restore(np.stack([self._task.prepare(crop) for crop in batch]))
            for crop, image in zip(batch, restored, strict=True):
                yield Patch(crop, self._residual(crop, image), opacity=self._task.opacity(crop))

    def _residual(self, crop: Crop, image: np.ndarray) -> np.ndarray:
        if not np.isfinite(image).all():
            self.not_finite += 1
            return np.zeros_like(crop.image)
        self.faces_restored += 1
        weight = self._strength * np.float32(keep(crop.sharpness, self._skip_sharp))
        return (self._task.finish(crop, image) - crop.image) * weight
