"""Finds the faces of a frame in the whole picture or in tiles, then refines each in a crop of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import TypeVar

import cv2
import numpy as np

from stream.config import Detect, Select
from stream.errors import ConfigError
from stream.faces.detect.detectors import CenterFace, Detector, Haar, RetinaFace, suppress
from stream.picture import geometry
from stream.picture.face import Detection, Face
from stream.picture.frame import Frame

_REFINE_SIDE = 128
"""Side of the crop in which a face is refined, px. A run of the detector on it costs 5 ms on two cores, and
each face needs three."""
_REFINE_EYES = 38.0
"""Distance of the eyes in that crop, px."""
_OVERLAP = 128
"""Overlap of tiles, px: faces up to this size are whole in one of them."""
_SAME_FACE = 0.35
"""A refined face farther from the first detection than this, in eye distances, is another face."""


def _refine_template() -> np.ndarray:
    mean = geometry.TEMPLATES["ffhq_512"]
    centred = mean - mean.mean(axis=0)
    placed: np.ndarray = centred * _REFINE_EYES / (mean[1, 0] - mean[0, 0]) + _REFINE_SIDE / 2
    return placed


_REFINE_TEMPLATE = _refine_template()
"""Landmarks f64[5,2] of the mean face in the crop for refinement, px."""
AnyFace = TypeVar("AnyFace", Detection, Face)


class FaceFinder:
    """Finds the faces of a frame by the detector that the settings name; for one thread at a time."""

    def __init__(self, settings: Detect, threads: int | None = None) -> None:
        """`threads` for inference, None: OpenVINO chooses. Raises ConfigError and ModelError."""
        if settings.tile and settings.pyramid != (1.0,):
            raise ConfigError("detect.pyramid: works on one picture; set detect.tile=0 or leave it out")
        self._settings = settings
        self._detector = _detector(settings, threads)
        # CenterFace keeps one compiled shape, so each size needs a detector of its own.
        one_shape = settings.detector == "centerface"
        others = [_detector(settings, threads) if one_shape else self._detector for _ in settings.pyramid[1:]]
        self._detectors = [self._detector, *others]
        self._threads = threads
        self._overview: Detector | None = None
        """Detector for the whole picture, if the picture is also searched in tiles."""
        refine = settings.refine and settings.detector == "centerface"
        self._refiner = CenterFace(settings.keep_score, threads) if refine else None

    def __call__(self, frame: Frame) -> list[Detection]:
        """Faces with a score of at least `keep_score`, upright px; those below `min_score` begin no track."""
        settings = self._settings
        found = self._tiled(frame) if settings.tile else self._pyramid(frame)
        if self._refiner is not None:
            refined = [_refined(self._refiner, frame, hit) for hit in found]
            found = suppress([hit for hit in refined if hit is not None], 0.45)
        return [hit for hit in found if hit.score >= settings.keep_score]

    def certain(self, frame: Frame) -> list[Detection]:
        """Faces with a score of at least `min_score`, for pictures that no other picture confirms."""
        return [hit for hit in self(frame) if hit.score >= self._settings.min_score]

    def _whole(self, frame: Frame, side: int, detector: Detector) -> list[Detection]:
        """The whole picture at a longer side of `side` px."""
        rgb, back = frame.thumbnail(side)
        return [_mapped(hit, back) for hit in detector.detect(frame.to_network(rgb))]

    def _pyramid(self, frame: Frame) -> list[Detection]:
        """The whole picture at each scale of `max_side`; a face found at several scales counts once."""
        settings = self._settings
        longer = min(settings.max_side, round(max(frame.view.upright_size)))
        found = []
        for scale, detector in zip(settings.pyramid, self._detectors, strict=True):
            side = max(1, round(longer * scale))
            rgb, back = frame.thumbnail(side)
            rgb = frame.to_network(rgb)
            enlargement = side / max(rgb.shape[:2])
            if enlargement > 1:  # thumbnails are never larger than the picture
                size = round(rgb.shape[1] * enlargement), round(rgb.shape[0] * enlargement)
                back = geometry.chain(back, np.diag([rgb.shape[1] / size[0], rgb.shape[0] / size[1], 1])[:2])
                rgb = np.clip(cv2.resize(rgb, size, interpolation=cv2.INTER_CUBIC), 0, 1)
            found += [_mapped(hit, back) for hit in detector.detect(rgb)]
        return suppress(found, 0.4) if len(self._detectors) > 1 else found

    def _tiled(self, frame: Frame) -> list[Detection]:
        """Tiles for faces up to their overlap, and the whole picture at a quarter for larger faces."""
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
        rows, tile_height = tiling(height, self._settings.tile)
        columns, tile_width = tiling(width, self._settings.tile)
        for y, x in product(rows, columns):
            tile = rgb[y : y + tile_height, x : x + tile_width]
            to_picture = np.array([[1.0, 0, x], [0, 1.0, y]])
            for hit in self._detector.detect(tile):
                if not _cut_off(hit.box_xyxy, (x, y), tile.shape, (width, height)):
                    found.append(_mapped(_mapped(hit, to_picture), back))
        return suppress(suppress(found, 0.3), 0.7, of_smaller=True)


def choose(faces: Sequence[AnyFace], select: Select, upright_size: tuple[float, float]) -> list[AnyFace]:
    """The faces to restore by the settings' size, score, regions and number; order is kept.

    `upright_size` is the upright picture's (width, height), px.
    """
    chosen = [face for face in faces if _wanted(face, select, upright_size)]
    if select.max_faces and len(chosen) > select.max_faces:
        largest = sorted(chosen, key=lambda face: -_box_height(face))[: select.max_faces]
        chosen = [face for face in chosen if any(face is kept for kept in largest)]
    return chosen


def tiling(length: int, side: int) -> tuple[list[int], int]:
    """First pixels and size of the fewest tiles of at most `side` px that overlap by at least 128."""
    side = max(side, 2 * _OVERLAP)
    if length <= side:
        return [0], length
    count = math.ceil((length - _OVERLAP) / (side - _OVERLAP))
    size = min(side, 32 * math.ceil((length + (count - 1) * _OVERLAP) / count / 32))
    return [round(i * (length - size) / (count - 1)) for i in range(count)], size


def _upright_crop(frame: Frame, to_upright: np.ndarray, size: int) -> np.ndarray | None:
    """The crop f32[size,size,3] RGB in 0..1 whose px map to upright px by `to_upright` f64[2,3].

    It is black beyond the picture. None where it misses the picture.
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


def _refined(refiner: CenterFace, frame: Frame, hit: Detection) -> Detection | None:
    """Detect a face again in two upright crops of fixed size; None if one of them shows no face.

    The first result places the second crop, which halves the scatter. The second crop's mirror image is
    used as well.
    """
    found = _detect_in_crop(refiner, frame, hit.landmarks, mirrored=False)
    if found is not None:
        found = _detect_in_crop(refiner, frame, found.landmarks, mirrored=True)
    if found is None:
        return None
    return replace(hit, landmarks=found.landmarks, score=float(np.sqrt(hit.score * found.score)))


def _detect_in_crop(
    refiner: CenterFace, frame: Frame, landmarks: np.ndarray, mirrored: bool
) -> Detection | None:
    """The face in a crop that `landmarks` place, without its box; `mirrored`: averaged with its mirror image.

    None where there is no face near them.
    """
    to_upright = geometry.similarity(_REFINE_TEMPLATE, landmarks)
    crop = _upright_crop(frame, to_upright, _REFINE_SIDE)
    if crop is None:
        return None
    marks, scores = [], []
    for flip in (False, True) if mirrored else (False,):
        hits = refiner.detect(np.ascontiguousarray(crop[:, ::-1]) if flip else crop)
        best = _best_near(hits, _REFINE_SIDE / 2, _SAME_FACE * _REFINE_EYES)
        if best is not None:
            marks.append(_mirrored(best, _REFINE_SIDE).landmarks if flip else best.landmarks)
            scores.append(best.score)
    if not marks:
        return None
    # A mirror image without a face counts as a score of 0.
    score = sum(scores) / (1 + mirrored)
    upright = geometry.apply(to_upright, np.mean(marks, axis=0)).astype(np.float32)
    return Detection(np.zeros(4, np.float32), upright, score)


def _mapped(hit: Detection, affine: np.ndarray) -> Detection:
    """A detection mapped by an affine f64[2,3] without rotation."""
    box = geometry.apply(affine, hit.box_xyxy.reshape(2, 2)).reshape(4)
    marks = geometry.apply(affine, hit.landmarks)
    return Detection(box.astype(np.float32), marks.astype(np.float32), hit.score)


def _mirrored(hit: Detection, width: int) -> Detection:
    """A detection of the mirror image of a picture of `width` px, in that picture."""
    x0, y0, x1, y1 = hit.box_xyxy
    marks = hit.landmarks[[1, 0, 2, 4, 3]] * (-1, 1) + (width, 0)
    return Detection(np.array([width - x1, y0, width - x0, y1], np.float32), marks, hit.score)


def _best_near(hits: list[Detection], centre: float, limit: float) -> Detection | None:
    """The best detection whose landmarks' centre is within `limit` px of (centre, centre)."""
    near = [hit for hit in hits if np.abs(hit.landmarks.mean(axis=0) - centre).max() < limit]
    return max(near, key=lambda hit: hit.score, default=None)


def _cut_off(box: np.ndarray, origin: tuple[int, int], shape: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Whether an inner edge of a tile cuts a box, px of the tile; another tile or the whole shows all of it.

    `origin` (x, y) and `shape` place the tile in the picture of (width, height) `size`.
    """
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
