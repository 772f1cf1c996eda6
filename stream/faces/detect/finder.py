"""Find the faces of a frame: the picture as a whole or in tiles, then a closer look at each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import cv2
import numpy as np

from stream.config import Detect, Select
from stream.errors import ConfigError
from stream.faces.detect.detectors import CenterFace, Detector, Haar, RetinaFace, suppress
from stream.picture import geometry
from stream.picture.face import Detection, Face
from stream.picture.frame import Frame

REFINE_SIDE = 128
"""px; a pass costs 5 ms on two cores, and a closer look takes three."""
REFINE_EYES = 38.0
"""Distance of the eyes in the closer look, px."""
OVERLAP = 128
"""Of tiles, px: faces up to this size are whole in one of them."""
_SAME_FACE = 0.35
"""A closer look that lands further than this from the first, in eye distances, saw another face."""


def _close_up() -> np.ndarray:
    mean = geometry.TEMPLATES["ffhq_512"]
    centred = mean - mean.mean(axis=0)
    placed: np.ndarray = centred * REFINE_EYES / (mean[1, 0] - mean[0, 0]) + REFINE_SIDE / 2
    return placed


_CLOSE_UP = _close_up()
"""The mean face's landmarks in the closer look, px."""
AnyFace = TypeVar("AnyFace", Detection, Face)


class FaceFinder:
    """Frame -> detections in upright px, best first. Not for use by several threads at once."""

    def __init__(self, settings: Detect, threads: int | None = None) -> None:
        if settings.tile and settings.pyramid != (1.0,):
            raise ConfigError("detect.pyramid: works on one picture; set detect.tile=0 or leave it out")
        self._settings = settings
        self._detector = _detector(settings, threads)
        # CenterFace keeps one compiled shape: one for each size.
        own = settings.detector == "centerface"
        others = [_detector(settings, threads) if own else self._detector for _ in settings.pyramid[1:]]
        self._detectors = [self._detector, *others]
        refine = settings.refine and settings.detector == "centerface"
        self._threads = threads
        self._overview: Detector | None = None
        self._closer = CenterFace(settings.keep_score, threads) if refine else None

    def __call__(self, frame: Frame) -> list[Detection]:
        """Faces with a score of `keep_score` or more; those below `min_score` start no track."""
        settings = self._settings
        found = self._tiled(frame) if settings.tile else self._pyramid(frame)
        if self._closer is not None:
            looked = [_look_closer(self._closer, frame, hit) for hit in found]
            found = suppress([hit for hit in looked if hit is not None], 0.45)
        return [hit for hit in found if hit.score >= settings.keep_score]

    def certain(self, frame: Frame) -> list[Detection]:
        """Faces with a score of `min_score` or more, for pictures that no other one confirms."""
        return [hit for hit in self(frame) if hit.score >= self._settings.min_score]

    def _whole(self, frame: Frame, side: int, detector: Detector) -> list[Detection]:
        rgb, back = frame.thumbnail(side)
        return [_mapped(hit, back) for hit in detector.detect(frame.to_network(rgb))]

    def _pyramid(self, frame: Frame) -> list[Detection]:
        """The whole picture at each scale of `max_side`; a face seen at several counts once."""
        settings = self._settings
        longer = min(settings.max_side, round(max(frame.view.upright_size)))
        found = []
        for scale, detector in zip(settings.pyramid, self._detectors, strict=True):
            side = max(1, round(longer * scale))
            rgb, back = frame.thumbnail(side)
            rgb = frame.to_network(rgb)
            grow = side / max(rgb.shape[:2])
            if grow > 1:  # thumbnails are never larger than the picture
                size = round(rgb.shape[1] * grow), round(rgb.shape[0] * grow)
                back = geometry.chain(back, np.diag([rgb.shape[1] / size[0], rgb.shape[0] / size[1], 1])[:2])
                rgb = np.clip(cv2.resize(rgb, size, interpolation=cv2.INTER_CUBIC), 0, 1)
            found += [_mapped(hit, back) for hit in detector.detect(rgb)]
        return suppress(found, 0.4) if len(self._detectors) > 1 else found

    def _tiled(self, frame: Frame) -> list[Detection]:
        """Tiles for faces up to their overlap, and the whole at a quarter for the larger ones."""
        width, height = (round(v) for v in frame.view.upright_size)
        longer = min(max(width, height), self._settings.max_side)
        if longer <= self._settings.tile * 1.25:
            return self._whole(frame, longer, self._detector)
        if self._overview is None:
            self._overview = _detector(self._settings, self._threads)
        found = self._whole(frame, max(longer // 4, 320), self._overview)
        rgb, back = frame.thumbnail(longer)
        rgb = frame.to_network(rgb)
        height, width = rgb.shape[:2]
        rows, tall = tiling(height, self._settings.tile)
        columns, wide = tiling(width, self._settings.tile)
        for y in rows:
            for x in columns:
                tile = rgb[y : y + tall, x : x + wide]
                cut = np.array([[1.0, 0, x], [0, 1.0, y]])
                for hit in self._detector.detect(tile):
                    if not _cut_off(hit.box_xyxy, (x, y), tile.shape, (width, height)):
                        found.append(_mapped(_mapped(hit, cut), back))
        return suppress(suppress(found, 0.3), 0.7, of_smaller=True)


def choose(faces: Sequence[AnyFace], select: Select, upright_size: tuple[float, float]) -> list[AnyFace]:
    """The faces that are to be restored, by size, score, region and number; order is kept."""
    chosen = [face for face in faces if _wanted(face, select, upright_size)]
    if select.max_faces and len(chosen) > select.max_faces:
        largest = sorted(chosen, key=lambda face: -_box_height(face))[: select.max_faces]
        chosen = [face for face in chosen if any(face is kept for kept in largest)]
    return chosen


def tiling(length: int, side: int) -> tuple[list[int], int]:
    """First pixels and common size of the fewest tiles up to `side` px that overlap by 128 or more."""
    side = max(side, 2 * OVERLAP)
    if length <= side:
        return [0], length
    count = math.ceil((length - OVERLAP) / (side - OVERLAP))
    size = min(side, 32 * math.ceil((length + (count - 1) * OVERLAP) / count / 32))
    return [round(i * (length - size) / (count - 1)) for i in range(count)], size


def cut_out(frame: Frame, to_upright: np.ndarray, size: int) -> np.ndarray | None:
    """RGB f32[size,size,3] of 0..1 as a network sees it; `to_upright` maps its px to upright ones.

    Black beyond the picture; None where no part of it lies inside.
    """
    view = frame.view
    to_stored = geometry.chain(view.to_stored, to_upright)
    box = geometry.cover(to_stored, size, (view.width, view.height), margin=4, grid=4)
    if box[2] <= box[0] or box[3] <= box[1]:
        return None
    shrink = max(1, int(geometry.scale_of(to_stored)))
    signal = frame.to_network(frame.region(box, shrink))
    to_region = to_stored.copy()
    to_region[:, 2] -= box[:2]
    return geometry.warp(signal, to_region / shrink, (size, size), cv2.BORDER_CONSTANT)


def _detector(settings: Detect, threads: int | None) -> Detector:
    if settings.detector == "haar":
        return Haar()
    if settings.detector == "retinaface":
        return RetinaFace(settings.weights, settings.keep_score, threads)
    return CenterFace(settings.keep_score, threads)


def _look_closer(closer: CenterFace, frame: Frame, hit: Detection) -> Detection | None:
    """The face again in two upright crops of fixed size; None if one of them shows no face.

    The first look places the second crop, which halves the scatter. The second looks at the mirror
    image as well.
    """
    seen = _look(closer, frame, hit.landmarks, mirrored=False)
    if seen is not None:
        seen = _look(closer, frame, seen.landmarks, mirrored=True)
    if seen is None:
        return None
    return replace(hit, landmarks=seen.landmarks, score=float(np.sqrt(hit.score * seen.score)))


def _look(closer: CenterFace, frame: Frame, landmarks: np.ndarray, mirrored: bool) -> Detection | None:
    """The face in a crop placed by `landmarks`; averaged with the mirror image if asked for."""
    to_upright = geometry.similarity(_CLOSE_UP, landmarks)
    crop = cut_out(frame, to_upright, REFINE_SIDE)
    if crop is None:
        return None
    marks, scores = [], []
    for flip in (False, True) if mirrored else (False,):
        hits = closer.detect(np.ascontiguousarray(crop[:, ::-1]) if flip else crop)
        best = _nearest(hits, REFINE_SIDE / 2, _SAME_FACE * REFINE_EYES)
        if best is not None:
            marks.append(_mirrored(best, REFINE_SIDE).landmarks if flip else best.landmarks)
            scores.append(best.score)
    if not marks:
        return None
    # A mirror image that shows no face counts as a score of 0.
    score = sum(scores) / (1 + mirrored)
    seen = geometry.apply(to_upright, np.mean(marks, axis=0)).astype(np.float32)
    return Detection(np.zeros(4, np.float32), seen, score)


def _mapped(hit: Detection, affine: np.ndarray) -> Detection:
    """A detection through an affine without rotation."""
    box = geometry.apply(affine, hit.box_xyxy.reshape(2, 2)).reshape(4)
    marks = geometry.apply(affine, hit.landmarks)
    return Detection(box.astype(np.float32), marks.astype(np.float32), hit.score)


def _mirrored(hit: Detection, width: int) -> Detection:
    x0, y0, x1, y1 = hit.box_xyxy
    marks = hit.landmarks[[1, 0, 2, 4, 3]] * (-1, 1) + (width, 0)
    return Detection(np.array([width - x1, y0, width - x0, y1], np.float32), marks, hit.score)


def _nearest(hits: list[Detection], centre: float, limit: float) -> Detection | None:
    near = [hit for hit in hits if np.abs(hit.landmarks.mean(axis=0) - centre).max() < limit]
    return max(near, key=lambda hit: hit.score, default=None)


def _cut_off(box: np.ndarray, origin: tuple[int, int], shape: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Whether a tile's inner edge cuts a box (tile px): a neighbour or the whole sees all of it."""
    margin = 2
    right, bottom = origin[0] + shape[1] < size[0], origin[1] + shape[0] < size[1]
    return bool(
        (origin[0] > 0 and box[0] < margin)
        or (origin[1] > 0 and box[1] < margin)
        or (right and box[2] > shape[1] - margin)
        or (bottom and box[3] > shape[0] - margin)
    )


def _box_height(face: Detection | Face) -> float:
    return float(face.box_xyxy[3] - face.box_xyxy[1])


def _wanted(face: Detection | Face, select: Select, size: tuple[float, float]) -> bool:
    if not select.min_size <= _box_height(face) <= select.max_size or face.score < select.min_score:
        return False
    centre = (face.box_xyxy[:2] + face.box_xyxy[2:]) / 2 / size

    def inside(region: tuple[float, float, float, float]) -> bool:
        x, y, w, h = region
        return bool(x <= centre[0] < x + w and y <= centre[1] < y + h)

    if select.include and not any(inside(region) for region in select.include):
        return False
    return not any(inside(region) for region in select.exclude)
