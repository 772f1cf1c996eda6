"""Levels of damage as ranges, recipes drawn from them, and the damage that a recipe describes.

The steps follow a camera: the lens, a sensor of the face's own size, noise, sometimes an analogue tape,
a codec, and finally the enlargement by which the pipeline cuts out a face.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from stream.lab.damage import compression, noise, optics, tape

LEVELS = ("near-clean", "mild", "medium", "heavy")
"""Names of the levels, from the least damage to the most."""
_FRAMES = 5
"""Frames of the synthetic clip that a video codec compresses."""


@dataclass(frozen=True, slots=True)
class DamageLevel:
    """The ranges (least, most) from which a recipe is drawn uniformly."""

    scale: tuple[float, float]
    """Crop px that one camera px covers; drawn on a logarithmic scale."""
    blur: tuple[float, float]
    """Standard deviation of the blur, camera px."""
    noise: tuple[float, float]
    """Standard deviation of the noise at mid grey, levels of 0..255."""
    jpeg: tuple[int, int]
    """Quality of JPEG, 1..100."""
    crf: tuple[int, int]
    """CRF of x264 and x265; for MPEG-2 it is converted to a scale of similar quality."""
    rare: float
    """Share of pictures with motion blur. The shares of tape artefacts and of unfiltered reduction are
    the same."""


RANGES = {
    "near-clean": DamageLevel((1.0, 1.15), (0.0, 0.4), (0.0, 1.5), (88, 98), (14, 21), 0.0),
    "mild": DamageLevel((1.0, 2.0), (0.2, 0.8), (0.5, 5.0), (60, 90), (20, 28), 0.05),
    "medium": DamageLevel((1.5, 3.0), (0.3, 1.2), (1.0, 9.0), (30, 70), (25, 34), 0.12),
    "heavy": DamageLevel((2.4, 5.6), (0.3, 1.2), (1.0, 14.0), (25, 65), (27, 38), 0.12),
}


@dataclass(frozen=True, slots=True)
class DamageRecipe:
    """Everything that is done to one picture, except for the random values of the noise."""

    scale: float
    """Crop px that one camera px covers."""
    shrinking: str
    """Kernel of the reduction, one of `optics.SHRINKING`."""
    blur: str
    """gaussian, defocus or motion."""
    blur_px: float
    """Standard deviation of the blur, camera px, whatever its shape."""
    angle: float
    """Direction of motion blur and of the chroma shift, rad."""
    noise: str
    """sensor or grain."""
    noise_level: float
    """Standard deviation at mid grey, levels of 0..255."""
    colour: float
    """Share of sensor noise that differs between the channels, 0..1."""
    coding: str
    """jpeg, or one of `compression.CODECS`."""
    rate: int
    """JPEG quality or the video codec's quantiser."""
    frame: int
    """Number of the picture in the clip that a video codec compresses."""
    move: tuple[float, float, float, float]
    """Motion from one frame to the next: dx and dy in camera px, rotation in rad, scale factor."""
    tape: str
    """"", combed, bobbed or chroma."""


def draw(level: str, rng: np.random.Generator) -> DamageRecipe:
    """Draw a recipe of a level. Raises KeyError for a name that is not in `LEVELS`."""
    ranges = RANGES[level]
    blur = rng.choice(("gaussian", "defocus"), p=(0.7, 0.3))
    blur = "motion" if rng.random() < ranges.rare else blur
    blur_px = rng.uniform(*ranges.blur) * (1.8 if blur == "motion" else 1.0)
    coding = str(rng.choice(("jpeg", *compression.CODECS), p=(0.40, 0.36, 0.12, 0.12)))
    crf = int(rng.integers(ranges.crf[0], ranges.crf[1] + 1))
    rate = {"jpeg": int(rng.integers(ranges.jpeg[0], ranges.jpeg[1] + 1)), "mpeg2": max(2, (crf - 13) // 2)}
    tapes = ("combed", "bobbed", "chroma")
    shrinking = str(rng.choice(optics.SHRINKING[:-1], p=(0.4, 0.2, 0.3, 0.1)))
    return DamageRecipe(
        scale=float(np.exp(rng.uniform(*np.log(ranges.scale)))),
        shrinking="nearest" if rng.random() < ranges.rare else shrinking,
        blur=str(blur),
        blur_px=float(blur_px),
        angle=float(rng.uniform(0, np.pi)),
        noise=str(rng.choice(("sensor", "grain"), p=(0.75, 0.25))),
        noise_level=float(rng.uniform(*ranges.noise)),
        colour=float(rng.uniform(0.1, 0.9)),
        coding=coding,
        rate=rate.get(coding, crf),
        frame=int(rng.integers(0, _FRAMES)),
        move=(
            float(rng.normal(0, 0.8)),
            float(rng.normal(0, 0.5)),
            float(rng.normal(0, 0.004)),
            float(np.exp(rng.normal(0, 0.004))),
        ),
        tape=str(rng.choice(tapes)) if rng.random() < ranges.rare else "",
    )


def damage(clean: np.ndarray, level: str | DamageRecipe, rng: np.random.Generator) -> np.ndarray:
    """The picture RGB u8[H,W,3] after damage by a recipe, which may be drawn from a level.

    The face keeps its place and size.
    """
    recipe = draw(level, rng) if isinstance(level, str) else level
    height, width = clean.shape[:2]
    size = tuple(2 * max(8, round(side / recipe.scale / 2)) for side in (width, height))
    if recipe.coding == "jpeg":
        shot = _shot(clean, recipe, 0, size, rng)
        small = compression.jpeg(_levels(shot), recipe.rate)
    else:
        shots = [_levels(_shot(clean, recipe, i - recipe.frame, size, rng)) for i in range(_FRAMES)]
        small = compression.video(shots, recipe.coding, recipe.rate)[recipe.frame]
    if size == (width, height):
        return small
    return _levels(optics.enlarged(small.astype(np.float32), (width, height)))


def _shot(
    clean: np.ndarray, recipe: DamageRecipe, step: int, size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """The sensor's picture `step` frames after the wanted one, RGB f32[h,w,3] of 0..255."""
    early, late = (step - 0.25, step + 0.25) if recipe.tape == "combed" else (step, None)
    small = _sampled(clean, recipe, early, size)
    if late is not None:
        small = tape.combed(small, _sampled(clean, recipe, late, size))
    if recipe.noise == "sensor":
        small = noise.sensor(small, recipe.noise_level, recipe.colour, rng)
    else:
        small = noise.grain(small, recipe.noise_level, rng)
    if recipe.tape == "bobbed":
        return tape.bobbed(small)
    if recipe.tape == "chroma":
        return tape.chroma_shifted(small, 2.0 * np.cos(recipe.angle), 0.7 * np.sin(recipe.angle), 1.0)
    return small


def _sampled(clean: np.ndarray, recipe: DamageRecipe, step: float, size: tuple[int, int]) -> np.ndarray:
    image = _lens(_moved(clean, recipe, step).astype(np.float32), recipe)
    return image if size == image.shape[1::-1] else optics.shrunk(image, size, recipe.shrinking)


def _lens(image: np.ndarray, recipe: DamageRecipe) -> np.ndarray:
    sigma = recipe.blur_px * recipe.scale
    if recipe.blur == "defocus":
        return (
            optics.defocus(image, 2 * sigma) if sigma > 0.25 else image
        )  # a disc of radius r has a standard deviation of r / 2
    if recipe.blur == "motion":
        return optics.motion(image, np.sqrt(12) * sigma, recipe.angle)
    return optics.gaussian(image, sigma)


def _moved(clean: np.ndarray, recipe: DamageRecipe, step: float) -> np.ndarray:
    if step == 0:
        return clean
    height, width = clean.shape[:2]
    dx, dy, angle, growth = recipe.move
    rotation = cv2.getRotationMatrix2D((width / 2, height / 2), np.degrees(angle * step), growth**step)
    affine = np.asarray(rotation, np.float64)
    affine[:, 2] += np.array((dx, dy)) * recipe.scale * step
    return cv2.warpAffine(
        clean, affine, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )


def _levels(image: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
