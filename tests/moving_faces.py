"""A portrait as an aligned crop that moves, is noisy and is covered, for tests of what happens over time."""

from __future__ import annotations

import sys

import cv2
import numpy as np
from conftest import SAMPLES

from stream.faces.restore.propagate import face_region
from stream.picture import geometry

sys.path.insert(0, str(SAMPLES))
from warps import FaceAxes, Pose, backward, mouth_shade

SIZE = 256
LANDMARKS = geometry.template("ffhq_512", SIZE)
PEOPLE = {  # landmarks of the clean pictures, as in samples/make_samples.py
    "C001092": [[112.49, 137.02], [176.62, 134.99], [147.47, 172.26], [116.58, 201.35], [173.15, 199.66]],
    "W000815": [[113.89, 134.78], [176.2, 136.27], [140.03, 170.84], [118.19, 198.73], [172.75, 199.4]],
}
GRID = np.stack(np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5), axis=-1)


def clean(pose: Pose | None = None, code="C001092", shift=(0.0, 0.0)) -> np.ndarray:
    """A portrait as an aligned crop f32[256,256,3], with the samples' motion and a `shift` in px."""
    image = cv2.imread(str(SAMPLES / "faces" / f"congress_{code}_0.jpg"))[..., ::-1]
    axes = FaceAxes(np.array(PEOPLE[code]))
    to_picture = geometry.similarity(LANDMARKS, axes.landmarks)
    points = backward(axes, pose or Pose())(geometry.apply(to_picture, GRID - shift))
    at = (points - 0.5).astype(np.float32)
    result = cv2.remap(np.float32(image) / 255, at, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    if pose and pose.mouth:
        result *= 1 - mouth_shade(axes, pose, points)[..., None].astype(np.float32)
    return np.clip(result, 0, 1)


def filmed(picture: np.ndarray, seed: int, noise=0.03) -> np.ndarray:
    """The picture as a camera gives it: soft, with noise of its own for each `seed`."""
    grain = np.random.default_rng(seed).normal(0, noise, picture.shape).astype(np.float32)
    return np.clip(cv2.GaussianBlur(picture, (0, 0), 1.2) + cv2.GaussianBlur(grain, (0, 0), 0.7), 0, 1)


def occluded(picture: np.ndarray, left: int, width=70) -> np.ndarray:
    """The picture with a striped board in front, from column `left` on."""
    result = picture.copy()
    board = np.where(np.arange(SIZE)[:, None] // 9 % 2, 0.75, 0.2)[..., None] * np.float32([1, 0.8, 0.6])
    result[:, max(left, 0) : max(left + width, 0)] = board
    return result


def visible(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference in the face, averaged over a few px, in levels of 255: what an eye would notice."""
    off = cv2.GaussianBlur((a - b).mean(axis=2), (0, 0), 2.5)
    return float(np.abs(off)[face_region(LANDMARKS, SIZE)].max() * 255)
