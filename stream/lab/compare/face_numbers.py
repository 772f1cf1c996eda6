"""Faces of a clip's pictures. A face keeps its number from picture to picture."""

from __future__ import annotations

import numpy as np

from stream.config import Detect
from stream.faces.detect.finder import FaceFinder
from stream.lab.compare.medium import as_frame

_CROP_SIZE = 1.9
"""Side of a crop in heights of the face's box, so that it contains hair, chin and ears."""
_MOST = 6
"""Largest number of faces in a picture."""
Box = tuple[int, int, int, int]
"""x, y, width and height in px."""


class FaceNumbering:
    """Finds faces in the pictures of one clip, given in order, and numbers them by their positions.

    Only one thread may use it.
    """

    def __init__(self) -> None:
        self._find = FaceFinder(Detect(refine=False))
        self._last: dict[int, np.ndarray] = {}

    def __call__(self, *pictures: np.ndarray) -> dict[int, Box]:
        """Square crops by number, found in the first picture RGB u8[H,W,3] that shows a face."""
        for rgb in pictures:
            found = self._find.certain(as_frame(rgb))
            if found:
                boxes = sorted((hit.box_xyxy for hit in found), key=lambda box: box[1] - box[3])[:_MOST]
                return self._numbered(boxes, rgb.shape)
        return {}

    def _numbered(self, boxes: list[np.ndarray], shape: tuple[int, ...]) -> dict[int, Box]:
        """Crops by number. A box gets the number of the last box near it, else the lowest free number."""
        distances = sorted(
            (float(np.abs(last - box).max()) / float(box[3] - box[1]), number, i)
            for i, box in enumerate(boxes)
            for number, last in self._last.items()
        )
        numbers: dict[int, int] = {}
        for distance, number, i in distances:
            if distance < 1 and i not in numbers and number not in numbers.values():
                numbers[i] = number
        for i in range(len(boxes)):
            if i not in numbers:
                numbers[i] = next(n for n in range(2 * _MOST) if n not in numbers.values())
        crops = {}
        for i, box in enumerate(boxes):
            self._last[numbers[i]] = box
            side = float(max(box[2] - box[0], box[3] - box[1])) * _CROP_SIZE
            crops[numbers[i]] = _square(box, side, shape)
        return dict(sorted(crops.items()))


def _square(box: np.ndarray, side: float, shape: tuple[int, ...]) -> Box:
    """A square around the box's centre, moved and reduced as necessary to fit into the picture."""
    height, width = shape[:2]
    side = int(min(max(16, round(side)), width, height))
    left = int(np.clip(round((box[0] + box[2] - side) / 2), 0, width - side))
    top = int(np.clip(round((box[1] + box[3] - side) / 2), 0, height - side))
    return left, top, side, side
