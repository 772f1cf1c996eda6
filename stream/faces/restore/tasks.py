"""Tasks that models are trained for: how each prepares the network's input and uses its output.

`prepare` runs before the engine, `finish` and `opacity` after it. All take the whole `Crop`, since a hole
that is drawn in the picture has to be found in the crop. Crops have the model's size; the network of a
super-resolution variant takes a smaller input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from stream.config import Restore
from stream.errors import ConfigError, SourceError
from stream.models.info import ModelInfo
from stream.picture import colour, geometry
from stream.picture.face import Crop

EDGE = 4
"""Width of the soft edge round an inpainted hole, px of the crop or of the picture, whichever are larger."""
KEY_MARGIN = 2
"""Width of the border that is added to pixels of the key's colour, px as for EDGE: there colours mix."""


class Restoration:
    """Blind restoration, and what all tasks share: the network's input is the crop itself.

    `in_size` is the side of the network's input, px; None: the crop's own.
    """

    in_colour = False
    """Whether the result has colours that a grey picture cannot hold."""

    def __init__(self, in_size: int | None = None) -> None:
        self._in_size = in_size

    def prepare(self, crop: Crop) -> np.ndarray:
        """The network's input: RGB f32[in,in,3] in 0..1, averaged down where it is smaller."""
        image = self._input(crop)
        size = self._in_size or image.shape[0]
        if image.shape[0] == size:
            return image
        return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)

    def finish(self, crop: Crop, output: np.ndarray) -> np.ndarray:
        """The restored crop, RGB f32[S,S,3] in 0..1, from the network's output f32[S,S,3]."""
        clipped: np.ndarray = np.clip(output, 0, 1)
        return clipped

    def opacity(self, crop: Crop) -> np.ndarray | None:
        """How far the restored crop replaces the picture, f32[S,S] in 0..1; None: its residual is added."""
        return None

    def check_size(self, name: str | Path, size: tuple[float, float]) -> None:
        """Raise SourceError where the task cannot work on an upright picture of (width, height) px."""

    def _input(self, crop: Crop) -> np.ndarray:
        """The network's input at the crop's size, RGB f32[S,S,3] in 0..1."""
        return crop.image


class Colorization(Restoration):
    """Colorization: the input is grey (luma of BT.601).

    The crop keeps its L* and gets the a* and b* of the output; `colour.with_lightness` has the formula.
    """

    in_colour = True

    def finish(self, crop: Crop, output: np.ndarray) -> np.ndarray:
        """See `Restoration.finish`."""
        return colour.with_lightness(np.clip(output, 0, 1), of=crop.image)

    def _input(self, crop: Crop) -> np.ndarray:
        return cv2.cvtColor(cv2.cvtColor(crop.image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


class Inpainting(Restoration, ABC):
    """Inpainting: the hole is white in the input, as in the published model's training.

    The output replaces the picture in the hole and is blended with it EDGE px round it. Farther out the
    picture keeps every bit.
    """

    def opacity(self, crop: Crop) -> np.ndarray:
        """1 in the hole and a pixel round it, then a smoothstep to 0; 0 at the border of a face's crop."""
        size, unit = crop.image.shape[0], _unit(crop)
        t = np.clip((unit * (1 + EDGE) - self._distance(crop)) / (unit * EDGE), 0, 1)
        soft = np.asarray(t * t * (3 - 2 * t), np.float32)
        return soft if crop.face is None else soft * geometry.feather_mask(size, EDGE / size)

    def _input(self, crop: Crop) -> np.ndarray:
        return np.where(self._distance(crop)[..., None] <= 0, np.float32(1), crop.image)

    def _distance(self, crop: Crop) -> npt.NDArray[np.float32]:
        """Distance of every pixel from the hole, f32[S,S] px; 0 or less in it."""
        hole, margin = self._hole(crop)
        if not hole.any():
            return np.full(hole.shape, np.inf, np.float32)
        away = cv2.distanceTransform((~hole).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return np.subtract(away, np.float32(margin), dtype=np.float32)

    @abstractmethod
    def _hole(self, crop: Crop) -> tuple[npt.NDArray[np.bool_], float]:
        """The hole's pixels bool[S,S], and the margin by which the hole exceeds them, px of the crop."""


class MaskInpainting(Inpainting):
    """Inpainting where `mask` (u8[H,W], of the upright picture's size) is at least 128.

    `name` stands for the mask in errors.
    """

    def __init__(self, in_size: int | None, mask: np.ndarray, name: str = "the mask") -> None:
        super().__init__(in_size)
        self._mask, self._name = (mask >= 128).astype(np.float32), name

    def check_size(self, name: str | Path, size: tuple[float, float]) -> None:
        """See `Restoration.check_size`."""
        (height, width), wanted = self._mask.shape, (round(size[0]), round(size[1]))
        if (width, height) != wanted:
            raise SourceError(
                f"{self._name}: is {width}x{height}, but {name} is {wanted[0]}x{wanted[1]} upright; "
                "make the mask as large as the picture"
            )

    def _hole(self, crop: Crop) -> tuple[npt.NDArray[np.bool_], float]:
        size = crop.image.shape[0]
        to_upright = geometry.chain(crop.view.to_upright, crop.to_stored)
        drawn = geometry.warp(self._mask, to_upright, (size, size), cv2.BORDER_CONSTANT)
        return drawn > 0.05, 0.0  # every pixel that the hole touches, but no ringing of the filter


class KeyInpainting(Inpainting):
    """Inpainting where a crop differs from `key` by at most `tolerance` in each channel.

    `key` is f32[3] RGB in 0..255; the tolerance has the same unit.
    """

    def __init__(self, in_size: int | None, key: np.ndarray, tolerance: int = 24) -> None:
        super().__init__(in_size)
        self._key, self._tolerance = key, tolerance

    def _hole(self, crop: Crop) -> tuple[npt.NDArray[np.bool_], float]:
        apart = np.abs(crop.image * 255 - self._key).max(axis=2)
        return apart <= self._tolerance, KEY_MARGIN * _unit(crop)


class Segmentation(Restoration):
    """Face synthesis: the crop is a label map, and the output replaces all of it."""

    in_colour = True

    def opacity(self, crop: Crop) -> np.ndarray:
        """An opacity of 1 everywhere."""
        return np.ones(crop.image.shape[:2], np.float32)


def create(model: ModelInfo, settings: Restore, aligned: bool) -> Restoration:
    """The task of a model. Raises ConfigError where the settings or `aligned` do not fit it."""
    task = model.task if settings.task == "auto" else settings.task
    where = "set restore.model to one that can"
    if task != model.task:
        raise ConfigError(f"restore.task {task}: {model.name} was trained to {model.task}; {where} {task}")
    if task == "inpaint":
        return _inpainting(model, settings)
    if settings.inpaint_mask is not None or settings.inpaint_key is not None:
        switch = "--inpaint-key" if settings.inpaint_mask is None else "--inpaint-mask"
        raise ConfigError(f"{switch}: {model.name} was trained to {task}; {where} inpaint")
    if task == "segment" and not aligned:
        raise ConfigError(f"{model.name}: takes label maps that are whole aligned crops; add --aligned")
    kinds = {"restore": Restoration, "colorize": Colorization, "segment": Segmentation}
    return kinds[task](model.in_size)


def _inpainting(model: ModelInfo, settings: Restore) -> Inpainting:
    path, key = settings.inpaint_mask, settings.inpaint_key
    if path is not None and key is None:
        return MaskInpainting(model.in_size, _read_mask(path), path)
    if key is not None and path is None:
        rgb = np.frombuffer(bytes.fromhex(key.removeprefix("#")), np.uint8)
        return KeyInpainting(model.in_size, rgb.astype(np.float32), settings.inpaint_tolerance)
    what = "where is the hole? give" if path is None else "two holes are given; keep one of"
    raise ConfigError(f"{model.name}: {what} --inpaint-mask FILE or --inpaint-key RRGGBB")


def _read_mask(path: str) -> np.ndarray:
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise ConfigError(
            f"--inpaint-mask {path}: cannot be read ({error.strerror}); check the path"
        ) from None
    mask = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if data.size else None
    if mask is None:
        raise ConfigError(f"--inpaint-mask {path}: not a picture; give a PNG that is white where to fill")
    return mask


def _unit(crop: Crop) -> float:
    """Side of a pixel of the crop or of the picture, whichever is larger, in px of the crop."""
    return max(1.0, 1 / geometry.scale_of(crop.to_stored))
