"""A model on aligned faces: the bare network, and as the product would use it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from stream.config import Restore
from stream.errors import ConfigError
from stream.faces.restore.sharpness import SharpnessMeter, restoration_weight
from stream.lab.quality.portraits import SIDE
from stream.models.engines import create_engine
from stream.models.info import read_model_info
from stream.models.registry import require_licence_of, resolve
from stream.picture import geometry

_TEMPLATE = "ffhq_512"
"""How the faces are aligned."""


class Contender:
    """One model, ready to restore. One thread at a time may use it."""

    def __init__(
        self, model: str | Path, settings: Restore | None = None, threads: int | None = None
    ) -> None:
        """`settings` is where strength and skip_sharp come from, the defaults where left out.

        Computed in FP32, so that figures repeat. Raises ConfigError or ModelError.
        """
        path = resolve(model)
        self.info = read_model_info(path)
        """What is known of the model."""
        require_licence_of(self.info)
        if self.info.task != "restore":
            raise ConfigError(
                f"{self.info.name}: is for the task {self.info.task!r}; evaluate one that restores"
            )
        self.settings = settings or Restore()
        self._engine = create_engine("auto", path, threads=threads, precision="fp32", info=self.info)
        self._sharpness = SharpnessMeter(by_track=False)
        size = self.info.size
        self._to_picture = geometry.similarity(
            geometry.template(self.info.template, size), geometry.template(_TEMPLATE, SIDE)
        )
        """Crop px to picture px: models are aligned in different ways."""
        self._same = size == SIDE and self.info.template == _TEMPLATE
        self._last: tuple[np.ndarray, tuple[np.ndarray, np.ndarray, float]] | None = None

    def bare(self, picture: np.ndarray) -> np.ndarray:
        """The network's answer for RGB u8[256,256,3], alike."""
        return self._measured(picture)[0]

    def shipped(self, picture: np.ndarray) -> np.ndarray:
        """As `gpen-stream restore` would show it: sharp faces left alone, at the settings' strength.

        The picture itself, or what `bare` gave, where that is all.
        """
        bare, residual, sharpness = self._measured(picture)
        weight = self.settings.strength * restoration_weight(sharpness, self.settings.skip_sharp)
        if weight in (0, 1):
            return bare if weight else picture
        return _added(picture, residual * np.float32(weight))

    def close(self) -> None:
        """Release the network."""
        self._engine.close()

    def _measured(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """The restored picture, its residual f32[256,256,3] of 0..1, and the crop's sharpness.

        Kept for the last picture: the network runs once for both ways.
        """
        if self._last is None or self._last[0] is not picture:
            residual, sharpness = self._measure(picture)
            self._last = picture, (_added(picture, residual), residual, sharpness)
        return self._last[1]

    def _measure(self, picture: np.ndarray) -> tuple[np.ndarray, float]:
        values, size = picture.astype(np.float32) / 255, self.info.size
        crop = values
        if not self._same:
            crop = np.clip(
                geometry.warp(values, self._to_picture, (size, size), cv2.BORDER_REFLECT_101), 0, 1
            )
        sharpness = self._sharpness(crop, self._to_picture, None)
        shown: np.ndarray = crop
        if self.info.in_size != size:
            side = self.info.in_size
            shown = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
        residual = np.clip(self._engine.restore(np.ascontiguousarray(shown[None]))[0], 0, 1) - crop
        if not self._same:
            back = geometry.invert(self._to_picture)
            residual = geometry.warp(residual, back, (SIDE, SIDE), cv2.BORDER_CONSTANT)
        return residual, sharpness


def _added(picture: npt.NDArray[np.uint8], residual: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    values: npt.NDArray[np.float32] = picture + 255 * residual
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
