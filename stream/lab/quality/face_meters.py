"""Figures of a face: do its landmarks stay where they were, and is it still the same person?

Nothing here is stored: a descriptor lives as long as the comparison that asks for it.
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

_SURE = 0.3
"""Score of a reference's face at least."""
_LEAST_SCORE = 0.05
"""Of a face that is looked for where it is known to be: what lies elsewhere does not count."""
_FARTHEST = 0.5
"""Eye distances that a face's landmarks may be off, on average, and still be this face's."""
_CHIP, _PADDING = 150, 0.25
"""Px, and share of the face: how dlib's network wants its pictures."""
_MODELS = {
    "shape_predictor_5_face_landmarks.dat": (
        "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888"
    ),
    "dlib_face_recognition_resnet_model_v1.dat": (
        "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
    ),
}
"""SHA-256 of the files as dlib's author published them; other packages carry them for him."""


class LandmarkMeter:
    """Distance of landmarks by CenterFace (Xu et al., 2019). One thread at a time may use it.

    The detector itself scatters by about 2.5 % of the eye distance: it tells a mouth that moved, not
    a hair's breadth.
    """

    def __init__(self, threads: int | None = 1) -> None:
        self._detector = CenterFace(_LEAST_SCORE, threads)
        self._last: tuple[np.ndarray, Detection | None] | None = None

    def find(self, picture: np.ndarray) -> Detection | None:
        """The surest face in RGB u8[H,W,3]; None where there is none."""
        found = self._detector.detect(picture.astype(np.float32) / 255)
        return found[0] if found and found[0].score >= _SURE else None

    def find_reference(self, reference: np.ndarray) -> Detection | None:
        """As `find`; the last picture's answer is kept, since many are compared with one reference."""
        if self._last is None or self._last[0] is not reference:
            self._last = reference, self.find(reference)
        return self._last[1]

    def distance(self, picture: np.ndarray, reference: np.ndarray) -> float | None:
        """Mean distance of the five landmarks in the pictures, over the reference's eye distance.

        The detection that is nearest counts, within half an eye distance. None where there is none, or
        none in the reference.
        """
        there = self.find_reference(reference)
        found = self._detector.detect(picture.astype(np.float32) / 255)
        if there is None or not found:
            return None
        eyes = np.linalg.norm(there.landmarks[1] - there.landmarks[0])
        apart = min(np.linalg.norm(hit.landmarks - there.landmarks, axis=1).mean() for hit in found) / eyes
        return float(apart) if apart <= _FARTHEST else None


class IdentityMeter:
    """Distance of dlib's face descriptors (King, 2017; a ResNet, He et al., 2016).

    Euclidean, of two vectors of 128 numbers: its author takes two pictures for one person's up to
    0.6. The extra `identity` installs it with its weights; nothing is fetched at run time. One thread
    at a time may use it.
    """

    def __init__(self, landmarks: LandmarkMeter | None = None) -> None:
        """`landmarks` finds the faces; one of its own by default. Raises ModelError where not installed."""
        self._shape, self._net = _dlib()
        self._landmarks = landmarks or LandmarkMeter()
        self._last: tuple[np.ndarray, dlib.full_object_detection, np.ndarray] | None = None

    def distance(self, picture: np.ndarray, reference: np.ndarray) -> float | None:
        """0 for equal faces; None where the reference shows none.

        Both pictures are cut at the reference's landmarks: what is compared is the face in one place,
        and no damaged picture is spared because a detector failed on it.
        """
        if self._last is None or self._last[0] is not reference:
            found = self._landmarks.find_reference(reference)
            if found is None:
                return None
            shape = self._shape_of(reference, found)
            self._last = reference, shape, self._descriptor(reference, shape)
        _, shape, theirs = self._last
        return float(np.linalg.norm(self._descriptor(picture, shape) - theirs))

    def _shape_of(self, reference: np.ndarray, found: Detection) -> dlib.full_object_detection:
        import dlib

        box = dlib.rectangle(*(round(float(edge)) for edge in found.box_xyxy))
        return self._shape(np.ascontiguousarray(reference), box)

    def _descriptor(self, picture: np.ndarray, shape: dlib.full_object_detection) -> np.ndarray:
        """f64[128]"""
        import dlib

        chip = dlib.get_face_chip(np.ascontiguousarray(picture), shape, _CHIP, _PADDING)
        return np.array(self._net.compute_face_descriptor(chip))


def identity_present() -> bool:
    """Whether the extra `identity` is installed."""
    return find_spec("dlib") is not None and find_spec("face_recognition_models") is not None


@cache
def _paths() -> tuple[str, ...]:
    """The weights' files, checked."""
    # find_spec: the older of the two packages that carry them cannot be imported any more.
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
    """Dlib's landmark predictor and descriptor network, new ones: they keep state."""
    shape, net = _paths()
    import dlib

    return dlib.shape_predictor(shape), dlib.face_recognition_model_v1(net)
