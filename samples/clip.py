"""A sample clip: its contents, the drawing of its frames, and its truth.

Frame coordinates are pixels; pixel i covers [i, i + 1). Times are in frames.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from cutout import Layer
from warps import FaceAxes, Pose, backward, forward, mouth_shade, rigid

FPS = 25
SHUTTER = 0.6
"""Share of the frame interval for which the exposure lasts; it is centred on the frame's instant."""


@dataclass(slots=True)
class Actor:
    """A layer that moves: a person if `axes` is set, else an object."""

    layer: Layer
    place: Callable[[float], np.ndarray]
    """The similarity (2, 3) from picture pixels to frame pixels, by time."""
    axes: FaceAxes | None = None
    pose: Callable[[float], Pose] = lambda t: Pose()
    person_id: int | None = None
    """Set if the layer shows the face of a person of the truth."""
    light: Callable[[float], float] = lambda t: 0.0
    """Strength of the light from the side by time, -1..1."""
    bend: Callable[[float, np.ndarray], np.ndarray] | None = None
    """Backward map of an object that bends, in picture pixels."""

    def to_frame(self, t: float, points: np.ndarray) -> np.ndarray:
        """Map points (n, 2) of the posed picture to the frame."""
        matrix = self.place(t)
        return points @ matrix[:, :2].T + matrix[:, 2]

    def to_source(self, t: float) -> Callable[[np.ndarray], np.ndarray]:
        """The map from frame points (..., 2) to points of the clean picture."""
        inverse = cv2.invertAffineTransform(self.place(t))
        posed = backward(self.axes, self.pose(t)) if self.axes else lambda p: p
        if self.bend:
            posed = partial(self.bend, t)
        return lambda points: posed(points @ inverse[:, :2].T + inverse[:, 2])

    def extent(self, t: float, size: tuple[int, int]) -> tuple[slice, slice] | None:
        """Rows and columns of a frame of (width, height) `size` that the layer may cover, or None."""
        height, width = self.layer.rgba.shape[:2]
        corners = np.array([[0, 0], [width, 0], [0, height], [width, height]]) + self.layer.origin
        frame = self.to_frame(t, corners)
        low = np.clip(np.floor(frame.min(0)) - 40, 0, size).astype(int)
        high = np.clip(np.ceil(frame.max(0)) + 40, 0, size).astype(int)
        return None if (high <= low).any() else (slice(low[1], high[1]), slice(low[0], high[0]))

    def paint(self, t: float, points: np.ndarray) -> np.ndarray:
        """Premultiplied RGBA at frame points (h, w, 2)."""
        source = self.to_source(t)(points)
        painted = self.layer.sample(source, float(np.hypot(*self.place(t)[:, 0])))
        if self.axes and (shade := self.pose(t)).mouth:
            dark = mouth_shade(self.axes, shade, source)[..., None]
            painted[..., :3] *= 1 - dark * np.array([0.85, 1.0, 1.0], np.float32)
        if self.axes and (side := self.light(t)):
            across = np.tanh(self.axes.to_face(source)[..., :1])
            painted[..., :3] *= 1 + side * across
        return painted


@dataclass(slots=True)
class Clip:
    """Everything that a clip shows, and facts about it."""

    size: tuple[int, int]
    frames: int
    people: list[dict]
    phases: list[tuple[str, int, int]]
    scene: Callable[[int], tuple[Callable[[float], np.ndarray], list[Actor]]]
    """Background (h, w, 3) by time, and actors from back to front, by the number of the frame."""
    gain: Callable[[float], float] = lambda t: 1.0
    cuts: list[int] = field(default_factory=list)
    noise: float = 0.03
    """Strength of the noise; 1 is full scale."""
    lens_px: float = 1.0
    """Standard deviation of the lens's blur."""


def exposures(actors: list[Actor], frame: int) -> np.ndarray:
    """Instants of the exposure: 4, or more if something moves fast, so that no ghosts appear."""
    open_, shut = frame - SHUTTER / 2, frame + SHUTTER / 2
    fastest = 0.0
    for actor in actors:
        ends = []
        for t in (open_, shut):
            moved = rigid(actor.axes, actor.pose(t)) if actor.axes else np.eye(2, 3)
            spots = actor.axes.landmarks if actor.axes else np.array([[0.0, 0.0], [200.0, 200.0]])
            ends.append(actor.to_frame(t, spots @ moved[:, :2].T + moved[:, 2]))
        fastest = max(fastest, float(np.abs(ends[1] - ends[0]).max()))
    count = max(4, int(np.ceil(fastest / 1.2)))
    return open_ + (np.arange(count) + 0.5) / count * SHUTTER


def render(clip: Clip, frame: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """The frame before lens and noise (h, w, 3), and each actor's coverage (h, w)."""
    background, actors = clip.scene(frame)
    width, height = clip.size
    grid = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    total = np.zeros((height, width, 3), np.float32)
    cover = [np.zeros((height, width), np.float32) for _ in actors]
    times = exposures(actors, frame)
    for i, t in enumerate(times):
        # Sub-pixel offsets turn the same samples into an area average.
        jitter = np.array([(i * 0.618 + 0.5) % 1 - 0.5, (i * 0.382 + 0.25) % 1 - 0.5]) * 0.8
        picture = background(float(t)).copy()
        for actor, covered in zip(actors, cover, strict=True):
            if (part := actor.extent(t, clip.size)) is None:
                continue
            rgba = actor.paint(t, grid[part] + jitter)
            picture[part] = picture[part] * (1 - rgba[..., 3:]) + rgba[..., :3]
            covered[part] += rgba[..., 3] / len(times)
        total += picture * clip.gain(t) / len(times)
    return total, cover


def filmed(clip: Clip, picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture u8 after a soft lens and noise, which is new in each frame and stronger in the dark."""
    picture = cv2.GaussianBlur(picture, (0, 0), clip.lens_px)
    grain = rng.standard_normal((*picture.shape[:2], 4)).astype(np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), 0.6) * 2.0
    noise = (0.8 * grain[..., :1] + 0.45 * grain[..., 1:]) * clip.noise * (1.25 - 0.5 * picture)
    return np.round(np.clip(picture + noise, 0, 1) * 255).astype(np.uint8)


# --- truth ------------------------------------------------------------------------------------


def face_grid(axes: FaceAxes) -> np.ndarray:
    """Points (n, 2) all over the face in picture pixels, by which its visible share is measured."""
    x, y = np.meshgrid(np.linspace(-1, 1, 17), np.linspace(-1, 1, 17))
    inside = x**2 + y**2 < 1
    return axes.to_picture(np.column_stack([x[inside] * 1.05, 0.55 + y[inside] * 1.35]))


def truth_of(actor: Actor, t: float, above: np.ndarray, size: tuple[int, int]) -> dict | None:
    """One person's entry of the truth, or None if the face is outside of the frame.

    `above` (h, w) is the coverage by actors in front of the person.
    """
    place, pose, axes = actor.place(t), actor.pose(t), actor.axes
    unturned = Pose(pose.tilt_rad, pose.shift, pose.zoom)
    spots = actor.to_frame(t, forward(axes, unturned, face_grid(axes)))
    within = ((spots >= 0) & (spots < size)).all(axis=1)
    column, row = spots[within].astype(int).T
    visible = float((1 - np.clip(above[row, column], 0, 1)).sum() / len(spots))
    if not within.any():
        return None
    landmarks = actor.to_frame(t, forward(axes, pose, axes.landmarks))
    scale = float(np.hypot(*place[:, 0]))
    miss = np.abs(actor.to_source(t)(landmarks) - axes.landmarks).max() * scale
    assert miss < 0.01, f"landmarks are {miss:.4f} px off their warp at frame {t}"
    whole = place @ np.vstack([rigid(axes, pose), [0, 0, 1]])
    return {"id": actor.person_id, "landmarks": landmarks.round(3).tolist(),
            "rigid": whole.round(5).tolist(), "visible": round(visible, 3)}  # fmt: skip


def frame_truth(clip: Clip, frame: int, cover: list[np.ndarray]) -> list[dict]:
    """The truth of a frame, given each actor's coverage."""
    _, actors = clip.scene(frame)
    entries = []
    for i, actor in enumerate(actors):
        if actor.person_id is None:
            continue
        above = 1 - np.prod([1 - np.clip(c, 0, 1) for c in cover[i + 1 :]] or [0 * cover[0] + 1], 0)
        entries.append(truth_of(actor, float(frame), above, clip.size))
    return sorted((e for e in entries if e), key=lambda e: e["id"])


def write_truth(clip: Clip, frames: list[list[dict]], path: Path) -> None:
    """Write the truth as JSON with one line for each frame."""
    head = {
        "width": clip.size[0], "height": clip.size[1], "fps": FPS, "frames": clip.frames,
        "convention": "pixel i covers [i, i+1); centres at +0.5",
        "people": clip.people,
        "phases": [{"name": n, "start": a, "end": b} for n, a, b in clip.phases],
        "cuts": clip.cuts,
    }  # fmt: skip
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in frames)
    start = json.dumps(head, separators=(",", ":"), ensure_ascii=False)[:-1]
    path.write_text(f'{start},"frames_truth":[\n{lines}\n]}}\n', encoding="utf-8")
