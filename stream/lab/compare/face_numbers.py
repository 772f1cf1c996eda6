"""Where faces are, from picture to picture under the same number."""

from __future__ import annotations

import numpy as np

from stream.config import Detect
from stream.faces.detect.finder import FaceFinder
from stream.lab.compare.medium import as_frame

_ROOM = 1.9
"""Height of a crop, in heights of the face's box: hair, chin and ears are in it."""
_MOST = 6
Box = tuple[int, int, int, int]


class Faces:
    """Finds faces and numbers them by place. One clip's pictures in order; one thread."""

    def __init__(self) -> None:
        self._find = FaceFinder(Detect(refine=False))
        self._last: dict[int, np.ndarray] = {}

    def __call__(self, *pictures: np.ndarray) -> dict[int, Box]:
        """Square crops (x, y, width, height) by number, in the first of RGB u8[H,W,3] that shows any face."""
        for rgb in pictures:
            found = self._find.certain(as_frame(rgb))
            if found:
                boxes = sorted((hit.box_xyxy for hit in found), key=lambda box: box[1] - box[3])[:_MOST]
                return self._numbered(boxes, rgb.shape)
        return {}

    def _numbered(self, boxes: list[np.ndarray], shape: tuple[int, ...]) -> dict[int, Box]:
        """A box takes the number of the last one at its place, else the lowest that is free."""
        apart = sorted(
            (float(np.abs(last - box).max()) / float(box[3] - box[1]), number, i)
            for i, box in enumerate(boxes)
            for number, last in self._last.items()
        )
        numbers: dict[int, int] = {}
        for distance, number, i in apart:
            if distance < 1 and i not in numbers and number not in numbers.values():
                numbers[i] = number
        for i in range(len(boxes)):
            if i not in numbers:
                numbers[i] = next(n for n in range(2 * _MOST) if n not in numbers.values())
        crops = {}
        for i, box in enumerate(boxes):
            self._last[numbers[i]] = box
            side = float(max(box[2] - box[0], box[3] - box[1])) * _ROOM
            crops[numbers[i]] = _square(box, side, shape)
        return dict(sorted(crops.items()))


def _square(box: np.ndarray, side: float, shape: tuple[int, ...]) -> Box:
    """The square of a side round a box's centre, moved into the picture as far as it fits."""
    height, width = shape[:2]
    side = int(min(max(16, round(side)), width, height))
    left = int(np.clip(round((box[0] + box[2] - side) / 2), 0, width - side))
    top = int(np.clip(round((box[1] + box[3] - side) / 2), 0, height - side))
    return left, top, side, side
