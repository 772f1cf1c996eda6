"""Pictures for the benches: portraits of the samples, damaged like the recipe's three kinds of input."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import TypedDict

import av
import cv2
import numpy as np
import numpy.typing as npt

from stream.lab.bench.worker import BenchError
from stream.lab.damage import compression
from stream.picture import geometry
from stream.picture.colour import Colour
from stream.picture.frame import Frame, Timestamp, View

_MARGIN = 16
"""px around the 256 px of a sample portrait's aligned crop."""
_SIDE = 256 + 2 * _MARGIN


def samples() -> Path:
    """The folder of sample clips and faces, in the package or in a clone. Raises BenchError if missing."""
    package = Path(str(resources.files("stream")))
    for folder in (package / "samples", package.parent / "samples"):
        if (folder / "faces").is_dir():
            return folder
    raise BenchError(f"{package / 'samples'}: the bench's samples are missing; install gpen-stream again")


class PersonTruth(TypedDict):
    """A face in one frame of a sample clip, in px of the frame. samples/README.md describes the truth."""

    id: int
    landmarks: list[list[float]]
    """x and y of the five landmarks."""
    rigid: list[list[float]]
    """Affine [2,3] from the person's clean portrait to the frame, without turn, mouth and blink."""
    visible: float
    """Share of the face that is in the frame and not covered, 0..1."""


class Phase(TypedDict):
    """A range of frames of a sample clip in which one thing happens."""

    name: str
    start: int
    end: int
    """The first frame after the phase."""


class Truth(TypedDict):
    """The contents of a sample clip; see samples/README.md."""

    frames: int
    phases: list[Phase]
    frames_truth: list[list[PersonTruth]]
    """The people in each frame."""


def truth_of(clip: str) -> Truth:
    """The truth of `samples/CLIP.mp4`. Raises BenchError if the samples are missing."""
    truth: Truth = json.loads((samples() / f"{clip}.truth.json").read_text())
    return truth


@dataclass(frozen=True, slots=True, eq=False)
class SamplePortrait:
    """A picture with one face and its landmarks."""

    name: str
    rgb: np.ndarray
    """The picture, RGB u8[h,w,3]."""
    landmarks: np.ndarray
    """f64[5,2], px: the template's landmarks, to which the samples are aligned."""


def faces() -> list[SamplePortrait]:
    """The samples' aligned portraits, 288 px."""
    landmarks = geometry.template("ffhq_512", 256) + _MARGIN
    return [
        SamplePortrait(path.stem, _read(path), landmarks)
        for path in sorted((samples() / "faces").glob("*.jpg"))
    ]


def _read(path: Path) -> np.ndarray:
    """Read a picture as RGB u8[h,w,3]."""
    bgr = cv2.imread(str(path))
    if bgr is None:
        raise BenchError(f"{path}: cannot be read; install gpen-stream again")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def placed(face: SamplePortrait, size: tuple[int, int]) -> SamplePortrait:
    """The portrait in the middle of a picture of (width, height), on a blurred copy of itself."""
    width, height = size
    scale = 0.85 * height / _SIDE
    to_picture = np.array([[scale, 0, (width - scale * _SIDE) / 2], [0, scale, (height - scale * _SIDE) / 2]])
    behind = cv2.resize(cv2.GaussianBlur(face.rgb, (0, 0), 24), size, interpolation=cv2.INTER_CUBIC)
    edge = geometry.feather_mask(_SIDE, 0.1)
    layers = np.dstack([face.rgb.astype(np.float32), edge])
    layers = geometry.warp(layers, geometry.invert(to_picture), size, cv2.BORDER_CONSTANT)
    matte = np.clip(layers[..., 3:], 0, 1)
    rgb = behind * (1 - matte) + layers[..., :3] * matte
    return SamplePortrait(face.name, _u8(rgb), geometry.apply(to_picture, face.landmarks))


def rgb_frame(rgb: np.ndarray) -> Frame:
    """The picture RGB u8[h,w,3] as a full-range frame."""
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24")
    view = View(rgb.shape[1], rgb.shape[0])
    return Frame(0, Timestamp(0, Fraction(1, 25)), picture, view, Colour(1, 1, 1, True))


# --- damage -----------------------------------------------------------------------------------


def old_scan(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A scan of a faded print: little colour and contrast, a soft lens, grain, dust and scratches."""
    height, width = rgb.shape[:2]
    image = cv2.GaussianBlur(rgb.astype(np.float32), (0, 0), height / 400)
    grey = image.mean(axis=2, keepdims=True)
    image = 60 + 0.62 * (grey + 0.35 * (image - grey)) * (1.06, 1.0, 0.86)
    grain = cv2.GaussianBlur(rng.normal(0, 1, (height, width, 1)).astype(np.float32), (0, 0), 0.7)
    image = _u8(image + 20 * grain[..., None])
    for _ in range(6):  # scratches run along the film
        x, drift = rng.uniform(0, width), rng.normal(0, width / 30)
        shade = int(rng.choice([40, 225]))
        ends = (int(x), 0), (int(x + drift), height)
        cv2.line(image, *ends, (shade, shade, shade - 10), 1, cv2.LINE_AA)
    for _ in range(30):
        at = int(rng.uniform(0, width)), int(rng.uniform(0, height))
        cv2.circle(image, at, int(rng.integers(1, 3)), (215, 210, 200), -1, cv2.LINE_AA)
    return image


def night_shot(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A phone's picture in the dark: camera shake, a third of the light, sensor noise."""
    reach = max(3, rgb.shape[0] // 60)
    shake = np.zeros((reach, reach), np.float32)
    angle = rng.uniform(0, np.pi)
    step = (reach - 1) / 2 * np.array([np.cos(angle), np.sin(angle)])
    start, end = ([int(v) for v in np.rint((reach - 1) / 2 + sign * step)] for sign in (-1, 1))
    cv2.line(shake, start, end, 1.0, 1)
    light = cv2.filter2D(rgb.astype(np.float32), -1, shake / shake.sum()) * 0.35
    return _u8(light + rng.normal(0, 1, rgb.shape) * np.sqrt(9 + 0.5 * light))


def compressed(rgb: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
    """A picture that was shared too often: reduced to half, JPEG of quality 10, enlarged."""
    height, width = rgb.shape[:2]
    small = cv2.resize(rgb, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    return cv2.resize(through_jpeg(small, 10), (width, height), interpolation=cv2.INTER_LINEAR)


DAMAGE: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "old scan": old_scan,
    "night shot": night_shot,
    "compressed": compressed,
}
"""Functions from u8[h,w,3] to u8[h,w,3] of the same size, by the recipe's name of the input."""


def through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """The picture RGB u8[h,w,3] after JPEG compression of `quality`.

    Red and blue are exchanged meanwhile, so that figures stay comparable with those in docs/bench.
    """
    return compression.jpeg(image[..., ::-1], quality)[..., ::-1]


def _u8(image: np.ndarray) -> npt.NDArray[np.uint8]:
    levels: np.ndarray = np.clip(np.rint(image), 0, 255)
    return levels.astype(np.uint8)
