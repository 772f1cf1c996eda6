"""Faces -> aligned crops: the only place where a region becomes RGB for the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import cv2
import numpy as np

from stream.picture import geometry
from stream.picture.face import Crop, Face, FrameWork
from stream.picture.frame import Frame

Measure = Callable[[np.ndarray, np.ndarray, int | None], float]
"""Crop f32[S,S,3], its affine to stored px, its track's number -> sharpness 0..1."""


def cut(frame: Frame, to_stored: np.ndarray, size: int) -> np.ndarray | None:
    """The crop f32[size,size,3] RGB 0..1 whose px map to stored px by `to_stored`.

    Only the covered region is converted; a face larger than the crop is averaged down first.
    What lies outside the picture is mirrored in. None where the crop misses the picture.
    """
    bounds = frame.view.width, frame.view.height
    x0, y0, x1, y1 = geometry.cover(to_stored, size, bounds, margin=4, grid=4)
    if x1 - x0 < 4 or y1 - y0 < 4:
        return None
    # Block averages alias; what is left of the shrink, 2 or more, goes through a better filter.
    shrink = max(1, int(geometry.scale_of(to_stored) / 2))
    region = frame.to_network(frame.region((x0, y0, x1, y1), shrink))
    to_region = to_stored.copy()
    to_region[:, 2] -= x0, y0
    image = geometry.warp(region, to_region / shrink, (size, size), cv2.BORDER_REFLECT_101)
    return np.clip(image, 0, 1, out=image)


class CropStage:
    """Stage: cuts the chosen faces of a frame out, aligned to the model's template.

    `choose` takes a frame's faces and the upright picture's size, and returns those to restore.
    `measure` fills the crops' sharpness.
    """

    def __init__(
        self,
        template: str,
        size: int,
        choose: Callable[[Sequence[Face], tuple[float, float]], Sequence[Face]],
        measure: Measure | None = None,
    ) -> None:
        self._landmarks, self._size, self._choose = geometry.template(template, size), size, choose
        self._measure = measure

    def open(self) -> None:
        """Nothing to acquire."""

    def process(self, work: FrameWork) -> Iterable[FrameWork]:
        """Fill `crops`, one for each chosen face that lies in the picture."""
        crops = []
        for face in self._choose(work.faces, work.frame.view.upright_size):
            to_upright = geometry.similarity(self._landmarks, face.landmarks)
            to_stored = geometry.chain(work.frame.view.to_stored, to_upright)
            image = cut(work.frame, to_stored, self._size)
            if image is not None:
                sharp = self._measure(image, to_stored, face.track_id) if self._measure else 0.0
                crops.append(Crop(face, image, to_stored, work.frame.view, sharp))
        yield replace(work, crops=tuple(crops))

    def flush(self) -> Iterable[FrameWork]:
        """Nothing is held back."""
        return ()

    def close(self) -> None:
        """Nothing to release."""


class WholeFrameStage:
    """Stage for `--aligned`: every frame is one crop already."""

    def __init__(self, size: int, measure: Measure | None = None) -> None:
        self._size, self._measure = size, measure

    def open(self) -> None:
        """Nothing to acquire."""

    def process(self, work: FrameWork) -> Iterable[FrameWork]:
        """Fill `crops` with the whole upright picture."""
        width, height = work.frame.view.upright_size
        to_upright = np.array([[width / self._size, 0, 0], [0, height / self._size, 0]])
        to_stored = geometry.chain(work.frame.view.to_stored, to_upright)
        image: np.ndarray | None
        if work.frame.layout.kind == "rgb" and width == height >= self._size:
            # Without chroma to place, an area average of the samples: 0.9 ms, 9 by way of `cut`.
            image = work.frame.to_network(work.frame.thumbnail(self._size)[0])
        else:
            image = cut(work.frame, to_stored, self._size)
        if image is None:
            yield replace(work, crops=())
            return
        sharp = self._measure(image, to_stored, None) if self._measure else 0.0
        yield replace(work, crops=(Crop(None, image, to_stored, work.frame.view, sharp),))

    def flush(self) -> Iterable[FrameWork]:
        """Nothing is held back."""
        return ()

    def close(self) -> None:
        """Nothing to release."""
