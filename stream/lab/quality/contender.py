"""A model applied to aligned faces: the network alone, and as the pipeline uses it."""

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
"""Template to which the faces are aligned."""


class Contender:
    """One model, ready to restore. Only one thread may use it at a time."""

    def __init__(
        self, model: str | Path, settings: Restore | None = None, threads: int | None = None
    ) -> None:
        """Load a model. `settings` give strength and skip_sharp; without it their defaults apply.

        The network runs in FP32, so that figures are reproducible. Raises ConfigError or ModelError.
        """
        path = resolve(model)
        self.info = read_model_info(path)
        """Facts about the model."""
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
        """Affine f64[2,3] from crop px to picture px; models use different templates."""
        self._crop_is_picture = size == SIDE and self.info.template == _TEMPLATE
        self._last: tuple[np.ndarray, tuple[np.ndarray, np.ndarray, float]] | None = None

    def bare(self, picture: np.ndarray) -> np.ndarray:
        """The network's output for a picture, both RGB u8[256,256,3]."""
        return self._measured(picture)[0]

    def shipped(self, picture: np.ndarray) -> np.ndarray:
        """The result of `gpen-stream restore` with the settings' strength and skip_sharp.

        It is the given array itself if nothing is restored, and the result of `bare` for full strength.
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
        """The restored picture, the residual f32[256,256,3] in units of 0..1, and the crop's sharpness.

        The result for the last picture is cached, so that `bare` and `shipped` run the network once.
        """
        if self._last is None or self._last[0] is not picture:
            residual, sharpness = self._measure(picture)
            self._last = picture, (_added(picture, residual), residual, sharpness)
        return self._last[1]

    def _measure(self, picture: np.ndarray) -> tuple[np.ndarray, float]:
        values, size = picture.astype(np.float32) / 255, self.info.size
        crop = values
        if not self._crop_is_picture:
            crop = np.clip(
                geometry.warp(values, self._to_picture, (size, size), cv2.BORDER_REFLECT_101), 0, 1
            )
        sharpness = self._sharpness(crop, self._to_picture, None)
        network_input: np.ndarray = crop
        if self.info.in_size != size:
            side = self.info.in_size
            network_input = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
        residual = np.clip(self._engine.restore(np.ascontiguousarray(network_input[None]))[0], 0, 1) - crop
        if not self._crop_is_picture:
            back = geometry.invert(self._to_picture)
            residual = geometry.warp(residual, back, (SIDE, SIDE), cv2.BORDER_CONSTANT)
        return residual, sharpness


def _added(picture: npt.NDArray[np.uint8], residual: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """The picture plus the residual, rounded and clipped."""
    values: npt.NDArray[np.float32] = picture + 255 * residual
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
