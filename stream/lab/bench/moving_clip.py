"""The clip of `bench pipeline`: 1280x720, 24 fps, with one moving face, and the same clip undamaged.

It shows Eileen Collins (NASA's portrait, in the public domain, from scikit-image) in front of a drawn
wall. In the first half the head moves rigidly: it sways, tilts and comes nearer. In the second half it
also turns out of the plane and speaks, which is non-rigid. The clean clip is coded losslessly. The damaged
clip is the same seen through a soft lens, with sensor noise, coded by x264 at crf 28. Everything is
seeded: the same packages give the same pixels. Coordinates are continuous px; times are in frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import ColorRange, Colorspace

from stream.lab.bench.material import truth_of
from stream.lab.quality.fidelity import psnr
from stream.picture import geometry

SIZE = 1280, 720
FPS = 24
_SCALE = 1.36
"""Scale of the portrait of 512 px, with which the eyes are 60 px apart."""
_PERIOD = 60.0
"""Period of the swaying, in frames."""
_MOUTH = 1.05
"""Distance of the mouth's corners below the eyes, in eye distances."""


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """A clip and its truth."""

    path: Path
    clean: Path
    """The same frames undamaged, coded losslessly."""
    landmarks: np.ndarray
    """f64[n,5,2]: the landmarks in each frame, px; empty without a face."""

    @property
    def frames(self) -> int:
        """Number of frames; 0 without a face."""
        return len(self.landmarks)

    @property
    def rigid(self) -> range:
        """Numbers of the frames in which the face moves rigidly."""
        return range(self.frames // 2)

    @property
    def non_rigid(self) -> range:
        """Numbers of the frames in which the face also turns and speaks."""
        return range(self.frames // 2, self.frames)


def make_clip(folder: Path, seconds: float, face: bool = True) -> Clip:
    """Draw and write the clip `NAME.mp4` and the clean clip `NAME-clean.mp4`."""
    count, name = max(2, round(seconds * FPS)), "face" if face else "empty"
    path, clean = folder / f"{name}.mp4", folder / f"{name}-clean.mp4"
    rng = np.random.default_rng(20210601)
    wall = _wall(rng)
    actor = _Actor(count) if face else None
    grain = rng.normal(0, 12, (4, SIZE[1] + 64, SIZE[0] + 64, 1)).astype(np.float32)
    with (
        av.open(str(path), "w") as filmed,
        av.open(str(clean), "w") as kept,
    ):
        film = _stream(filmed, {"preset": "fast", "crf": "28"})
        keep = _stream(kept, {"preset": "ultrafast", "qp": "0"})
        for t in range(count):
            picture = actor.paint(t, wall) if actor else wall
            _write(kept, keep, picture, t)
            x, y = rng.integers(0, 64, 2)
            noise = grain[rng.integers(4), y : y + SIZE[1], x : x + SIZE[0]]
            _write(filmed, film, cv2.GaussianBlur(picture, (0, 0), 1.6) + noise, t)
        filmed.mux(film.encode())
        kept.mux(keep.encode())
    marks = [actor.landmarks(t) for t in range(count)] if actor else np.empty((0, 5, 2))
    return Clip(path, clean, np.array(marks))


def face_psnr(clip: Clip, result: Path, frames: range | None = None) -> float:
    """Mean PSNR of luma to the clean picture inside the face's mask in dB, over `frames` (None: all).

    The mask is the area around the true landmarks in which the product's mask exceeds one half.
    """
    wanted = range(clip.frames) if frames is None else frames
    values = [
        psnr(own, clean, _mask(clip.landmarks[i]))
        for i, (own, clean) in enumerate(zip(_luma(result), _luma(clip.clean), strict=False))
        if i in wanted
    ]
    return float(np.mean(values)) if values else float("nan")


def _mask(landmarks: np.ndarray) -> np.ndarray:
    size = 256
    to_picture = geometry.similarity(geometry.template("ffhq_512", size), landmarks)
    soft = np.array(geometry.feather_mask(size, 0.16))
    return geometry.warp(soft, geometry.invert(to_picture), SIZE, cv2.BORDER_CONSTANT) > 0.5


def _luma(path: Path) -> Iterator[np.ndarray]:
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray()[: SIZE[1]]


def _stream(container: OutputContainer, options: dict[str, str]) -> av.VideoStream:
    stream = container.add_stream("libx264", rate=FPS, options=options)
    stream.width, stream.height = SIZE
    stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, FPS)
    context = stream.codec_context
    context.color_range, context.colorspace = ColorRange.MPEG, Colorspace.ITU709
    context.color_primaries = context.color_trc = 1  # BT.709
    return stream


def _write(container: OutputContainer, stream: av.VideoStream, picture: np.ndarray, pts: int) -> None:
    rgb = av.VideoFrame.from_ndarray(np.clip(np.rint(picture), 0, 255).astype(np.uint8), "rgb24")
    frame = rgb.reformat(
        format="yuv420p",
        src_colorspace=Colorspace.ITU709,
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
    )
    frame.pts, frame.time_base = pts, Fraction(1, FPS)
    container.mux(stream.encode(frame))


def _wall(rng: np.random.Generator) -> np.ndarray:
    """A plaster wall, lit from one side, f32[h,w,3] of 0..255: noise of several scales."""
    wall = np.zeros((SIZE[1], SIZE[0], 1), np.float32)
    for octave in range(2, 8):
        cells = rng.normal(0, 1, (2 + SIZE[1] // 2**octave, 2 + SIZE[0] // 2**octave)).astype(np.float32)
        wall[..., 0] += cv2.resize(cells, SIZE, interpolation=cv2.INTER_CUBIC) * 1.3**octave
    light = np.linspace(150, 90, SIZE[0], dtype=np.float32)[None, :, None]
    tint = np.array([0.95, 1.0, 1.05], np.float32)
    return np.clip((light + 2.5 * wall) * tint, 0, 255)


class _Actor:
    """The portrait and its motion over `count` frames."""

    def __init__(self, count: int) -> None:
        from skimage import data

        rgb = data.astronaut().astype(np.float32)
        matte = np.array(geometry.feather_mask(512, 0.06))
        self._layers = np.dstack([rgb * matte[..., None], matte])
        truth = truth_of("portrait")["frames_truth"][0][0]
        to_clean = geometry.invert(np.array(truth["rigid"]))
        self._landmarks = geometry.apply(to_clean, np.array(truth["landmarks"]))
        self._origin = self._landmarks[:2].mean(axis=0)
        self._unit = float(np.linalg.norm(self._landmarks[1] - self._landmarks[0]))
        self._half = count // 2

    def place(self, t: float) -> np.ndarray:
        """The similarity from px of the portrait to px of the frame at time t."""
        phase = 2 * np.pi * t / _PERIOD
        scale = _SCALE * (1 + 0.05 * np.sin(phase / 2))
        angle = 0.08 * np.sin(phase)
        linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        at = np.array([640 + 60 * np.sin(phase * 0.7), 230 + 20 * np.sin(phase * 1.3)])
        return np.hstack([linear, (at - linear @ self._origin)[:, None]])

    def bend(self, t: float, points: np.ndarray) -> np.ndarray:
        """Points [...,2] of the clean portrait that appear at the given points of the posed face, px."""
        if t < self._half:
            return points
        since = t - self._half
        turn, jaw = 0.22 * np.sin(since / 9), 0.10 * np.sin(since / 3) ** 2
        x, y = np.moveaxis((points - self._origin) / self._unit, -1, 0)
        depth = np.exp(-((x / 1.25) ** 2) - ((y - 0.5) / 1.35) ** 2)
        below = np.clip((y - _MOUTH - 0.05) / 0.25, 0, 1) * np.exp(-((x / 0.5) ** 2) - (y - _MOUTH) ** 2)
        return points - self._unit * np.stack([turn * depth, jaw * below], axis=-1)

    def landmarks(self, t: float) -> np.ndarray:
        """The landmarks in the frame, f64[5,2].

        Fixed-point iteration inverts `bend`; it converges because the slope is below 1/3.
        """
        posed = self._landmarks
        for _ in range(30):
            posed = posed - (self.bend(t, posed) - self._landmarks)
        return geometry.apply(self.place(t), posed)

    def paint(self, t: float, behind: np.ndarray) -> np.ndarray:
        """The frame in front of the background `behind`, before the lens, f32[h,w,3] of 0..255."""
        to_portrait = geometry.invert(self.place(t))
        if t < self._half:
            layers = geometry.warp(self._layers, to_portrait, SIZE, cv2.BORDER_CONSTANT)
        else:
            x, y = np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5)
            points = geometry.apply(to_portrait, np.stack([x, y], axis=-1))
            source = (self.bend(t, points) - 0.5).astype(np.float32)
            no_map = np.empty(0, np.float32)  # `source` holds x and y
            layers = cv2.remap(self._layers, source, no_map, cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT)
        frame: np.ndarray = behind * (1 - np.clip(layers[..., 3:], 0, 1)) + layers[..., :3]
        return frame
