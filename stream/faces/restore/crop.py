"""Faces -> aligned crops: the only module that converts a region of a frame to RGB for the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import cv2
import numpy as np

from stream.picture import geometry
from stream.picture.face import Crop, Face, FrameWork
from stream.picture.frame import Frame
from stream.pipeline.stage import Stage

MeasureSharpness = Callable[[np.ndarray, np.ndarray, int | None], float]
"""Crop f32[S,S,3], its affine to stored px and its track's number -> sharpness 0..1."""


def cut(frame: Frame, to_stored: np.ndarray, size: int) -> np.ndarray | None:
    """The crop f32[size,size,3] RGB in 0..1 whose px map to stored px by `to_stored` f64[2,3].

    Only the region that the crop covers is converted. A face larger than the crop is first averaged down.
    The picture is mirrored beyond its edges. None where the crop misses the picture.
    """
    bounds = frame.view.width, frame.view.height
    x0, y0, x1, y1 = geometry.cover(to_stored, size, bounds, margin=4, grid=4)
    if x1 - x0 < 4 or y1 - y0 < 4:
        return None
    # Block averages alias, so the last shrink, by 2 or more, is left to a better filter.
    shrink = max(1, int(geometry.scale_of(to_stored) / 2))
    region = frame.to_network(frame.region((x0, y0, x1, y1), shrink))
    to_region = to_stored.copy()
    to_region[:, 2] -= x0, y0
    image = geometry.warp(region, to_region / shrink, (size, size), cv2.BORDER_REFLECT_101)
    return np.clip(image, 0, 1, out=image)


class CropStage(Stage[FrameWork, FrameWork]):
    """Stage: fills `crops` with the chosen faces of a frame, aligned to the model's template.

    `choose` takes a frame's faces and the upright picture's (width, height), and returns the faces to
    restore. `measure` gives the crops their sharpness; None: it is 0.
    """

    def __init__(
        self,
        template: str,
        size: int,
        choose: Callable[[Sequence[Face], tuple[float, float]], Sequence[Face]],
        measure: MeasureSharpness | None = None,
    ) -> None:
        self._landmarks, self._size = geometry.template(template, size), size
        self._choose, self._measure = choose, measure

    def process(self, work: FrameWork) -> Iterable[FrameWork]:
        """Fill `crops`, one for each chosen face that lies in the picture."""
        crops = []
        for face in self._choose(work.faces, work.frame.view.upright_size):
            to_upright = geometry.similarity(self._landmarks, face.landmarks)
            to_stored = geometry.chain(work.frame.view.to_stored, to_upright)
            image = cut(work.frame, to_stored, self._size)
            if image is not None:
                sharpness = self._measure(image, to_stored, face.track_id) if self._measure else 0.0
                crops.append(Crop(face, image, to_stored, work.frame.view, sharpness))
        yield replace(work, crops=tuple(crops))


class WholeFrameStage(Stage[FrameWork, FrameWork]):
    """Stage for `--aligned`: fills `crops` with the whole frame, which is an aligned crop already.

    `size` is the side of the crop, px; `measure` is as for `CropStage`.
    """

    def __init__(self, size: int, measure: MeasureSharpness | None = None) -> None:
        self._size, self._measure = size, measure

    def process(self, work: FrameWork) -> Iterable[FrameWork]:
        """Fill `crops` with the upright picture."""
        width, height = work.frame.view.upright_size
        to_upright = np.array([[width / self._size, 0, 0], [0, height / self._size, 0]])
        to_stored = geometry.chain(work.frame.view.to_stored, to_upright)
        image: np.ndarray | None
        if work.frame.layout.kind == "rgb" and width == height >= self._size:
            # Without chroma to place, an average over areas will do: 0.9 ms, where `cut` takes 9.
            image = work.frame.to_network(work.frame.thumbnail(self._size)[0])
        else:
            image = cut(work.frame, to_stored, self._size)
        if image is None:
            yield replace(work, crops=())
            return
        sharpness = self._measure(image, to_stored, None) if self._measure else 0.0
        yield replace(work, crops=(Crop(None, image, to_stored, work.frame.view, sharpness),))
