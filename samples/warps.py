"""The known warps of the sample clips: closed-form backward maps of a face, and their inverse.

A backward map gives, for a point of the frame, the point of the clean picture that it shows. Each map here
has a closed form. Landmarks need the opposite direction, which `invert` finds by Newton's method with an
error far below a hundredth of a pixel.

Points are float arrays (..., 2), x then y, in pixels of the clean picture; pixel i covers [i, i + 1). A face
also has its own axes: the origin lies midway between the eyes, x runs along the line of the eyes, y down
the face, and the unit is the distance of the eyes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

Map = Callable[[np.ndarray], np.ndarray]

NECK = (0.0, 2.6)
"""Pivot of the head's motion, in face axes."""
CHIN_Y, COLLAR_Y = 1.95, 3.4
"""The head moves rigidly above CHIN_Y; the motion fades out down to COLLAR_Y."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Pose of a head at one instant, relative to the clean picture."""

    tilt_rad: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    """Shift of the head against the shoulders, in eye distances."""
    zoom: float = 1.0
    yaw_rad: float = 0.0
    pitch_rad: float = 0.0
    blink: float = 0.0
    """0: open; 1: closed."""
    mouth: float = 0.0
    """0: as in the picture; 1: jaw dropped."""


class FaceAxes:
    """Conversion between picture pixels and the axes of the face with these landmarks (5, 2)."""

    def __init__(self, landmarks: np.ndarray) -> None:
        self.landmarks = np.asarray(landmarks, np.float64)
        left, right = self.landmarks[:2]
        along = (right - left) / np.hypot(*(right - left))
        self.unit_px = float(np.hypot(*(right - left)))
        self.origin = (left + right) / 2
        self.axes = np.array([along, [-along[1], along[0]]])

    def to_face(self, points: np.ndarray) -> np.ndarray:
        return (points - self.origin) @ self.axes.T / self.unit_px

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        return points @ self.axes * self.unit_px + self.origin


def smooth_step(x: np.ndarray | float) -> np.ndarray | float:
    """0 below 0, 1 above 1, and a cubic between."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3 - 2 * x)


def rigid(axes: FaceAxes, pose: Pose) -> np.ndarray:
    """Forward similarity (2, 3) of the rigid part of `pose`, in pixels of both pictures."""
    cos, sin = np.cos(pose.tilt_rad) * pose.zoom, np.sin(pose.tilt_rad) * pose.zoom
    linear = np.array([[cos, -sin], [sin, cos]])
    pivot = axes.to_picture(np.array(NECK))
    moved = axes.to_picture(np.array(NECK) + pose.shift)
    return np.column_stack([linear, moved - linear @ pivot])


def _undo_head_motion(p: np.ndarray, pose: Pose) -> np.ndarray:
    weight = 1 - smooth_step((p[..., 1] - CHIN_Y) / (COLLAR_Y - CHIN_Y))
    x = p[..., 0] - NECK[0] - weight * pose.shift[0]
    y = p[..., 1] - NECK[1] - weight * pose.shift[1]
    cos, sin = np.cos(weight * pose.tilt_rad), np.sin(weight * pose.tilt_rad)
    scale = pose.zoom**-weight
    return np.stack([NECK[0] + scale * (cos * x + sin * y), NECK[1] + scale * (cos * y - sin * x)], axis=-1)


def _undo_turn(p: np.ndarray, pose: Pose, nose: np.ndarray) -> np.ndarray:
    """Undo the turn of the head: the orthographic view of a smooth bump with a smaller one, the nose.

    The depth is that of the turned surface, so the backward map has a closed form. Its slope stays above
    0.3 up to 20 degrees, so the map does not fold.
    """
    x, y = p[..., 0], p[..., 1]
    depth = 1.05 * np.exp(-((x / 1.25) ** 2) - ((y - 0.5) / 1.35) ** 2)
    depth += 0.22 * np.exp(-(((x - nose[0]) ** 2 + (y - nose[1] + 0.05) ** 2) / 0.28**2))
    return np.stack([x - np.sin(pose.yaw_rad) * depth, y - np.sin(pose.pitch_rad) * depth], -1)


def _lip_line(x: np.ndarray) -> np.ndarray:
    """Depth of the lower lip's edge below the corners of the mouth, at distance `x` from their middle."""
    return 0.11 * np.exp(-((x / 0.32) ** 2))


def _undo_mouth(p: np.ndarray, pose: Pose, mouth: np.ndarray) -> np.ndarray:
    """Undo the opening of the mouth: lip and chin move down, the line above the lip becomes a gap."""
    x = p[..., 0] - mouth[0]
    below = p[..., 1] - mouth[1] - _lip_line(x)
    drop = 0.17 * pose.mouth * smooth_step((below + 0.05) / 0.27)
    drop = drop * (1 - smooth_step((below - 0.45) / 0.9)) * np.exp(-((x / 0.45) ** 2))
    return np.stack([p[..., 0], p[..., 1] - drop], axis=-1)


def _undo_blink(p: np.ndarray, pose: Pose, eye: np.ndarray) -> np.ndarray:
    """Undo a blink: both lids meet on the line of the eye, whose centre, the landmark, does not move."""
    x, y = p[..., 0] - eye[0], p[..., 1] - eye[1]
    opened = 0.11 * pose.blink * np.tanh(y / 0.018)
    opened = opened * np.exp(-((y / 0.2) ** 2) - (x / 0.31) ** 4)
    return np.stack([p[..., 0], p[..., 1] + opened], axis=-1)


def backward(axes: FaceAxes, pose: Pose) -> Map:
    """The map from the posed picture to the clean one, in pixels."""
    eye_l, eye_r, nose, corner_l, corner_r = axes.to_face(axes.landmarks)
    mouth = (corner_l + corner_r) / 2

    def apply(points: np.ndarray) -> np.ndarray:
        p = axes.to_face(points)
        if pose.tilt_rad or pose.zoom != 1 or any(pose.shift):
            p = _undo_head_motion(p, pose)
        if pose.yaw_rad or pose.pitch_rad:
            p = _undo_turn(p, pose, nose)
        if pose.mouth:
            p = _undo_mouth(p, pose, mouth)
        if pose.blink:
            p = _undo_blink(_undo_blink(p, pose, eye_l), pose, eye_r)
        return axes.to_picture(p)

    return apply


def mouth_shade(axes: FaceAxes, pose: Pose, points: np.ndarray) -> np.ndarray:
    """Darkness of the open mouth, 0..1, at points of the clean picture."""
    p = axes.to_face(points)
    corners = axes.to_face(axes.landmarks[3:])
    x, y = np.moveaxis(p - corners.mean(0), -1, 0)
    return 0.9 * pose.mouth * np.exp(-((x / 0.24) ** 4) - ((y - _lip_line(x)) / 0.028) ** 2)


def invert(to_source: Map, source: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """The points (n, 2) that `to_source` maps to `source`, by Newton's method from `guess`."""
    points, step = np.array(guess, np.float64), 1e-4
    for _ in range(25):
        here = to_source(points)
        dx = (to_source(points + (step, 0)) - here) / step
        dy = (to_source(points + (0, step)) - here) / step
        jacobian = np.stack([dx, dy], axis=-1)
        points -= np.linalg.solve(jacobian, (here - source)[..., None])[..., 0]
    return points


def forward(axes: FaceAxes, pose: Pose, source: np.ndarray) -> np.ndarray:
    """The positions in the posed picture, in pixels, of points (n, 2) of the clean picture.

    The lids are added last: Newton's method starts at the solution for open eyes.
    """
    moved = rigid(axes, pose)
    guess = source @ moved[:, :2].T + moved[:, 2]
    open_eyed = invert(backward(axes, replace(pose, blink=0.0)), source, guess)
    return invert(backward(axes, pose), source, open_eyed) if pose.blink else open_eyed
