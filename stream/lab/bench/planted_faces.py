"""Pictures with faces of known sizes, and pictures without faces, for `bench detect`."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from stream.lab.bench.material import faces, through_jpeg
from stream.picture import geometry

BOX = 2.2
"""Height of a face's box, in eye distances."""

# --- planted faces ----------------------------------------------------------------------------


@cache
def portraits() -> list[tuple[np.ndarray, np.ndarray]]:
    """Portraits f32[288,288,4], RGB premultiplied by a soft oval matte, with their landmarks."""
    y, x = np.mgrid[0:288, 0:288] + 0.5
    distance = np.hypot((x - 144) / 92, (y - 148) / 132)
    matte = np.clip((1.06 - distance) / 0.12, 0, 1).astype(np.float32)[..., None]
    return [(np.dstack([face.rgb * matte, matte]), face.landmarks) for face in faces()]


def planted(
    rng: np.random.Generator, size: float, extent: tuple[int, int]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """A picture u8[h,w,3] with up to eight faces of height `size` in px, and the landmarks of the faces.

    `extent` is the picture's width and height.
    """
    picture = clutter(rng, extent).astype(np.float32)
    cell = max(80, int(size * 2.4))
    columns, rows = extent[0] // cell, extent[1] // cell
    places = rng.permutation(columns * rows)[:8]
    truth = []
    for place in places:
        image, landmarks = portraits()[rng.integers(len(portraits()))]
        scale = size / (BOX * np.linalg.norm(landmarks[1] - landmarks[0]))
        angle = rng.normal(0, 0.1)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        cell_at = np.array([place % columns, place // columns])
        centre = (cell_at + 0.5) * cell + rng.uniform(-0.5, 0.5, 2) * 3
        to_picture = np.hstack([turn, (centre - turn @ (144, 148))[:, None]])
        _paste(picture, image, to_picture, rng.uniform(0.75, 1.1))
        truth.append(geometry.apply(to_picture, landmarks))
    noisy = np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)
    return through_jpeg(noisy, 85), truth


def _paste(picture: np.ndarray, image: np.ndarray, to_picture: np.ndarray, gain: float) -> None:
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = geometry.cover(to_picture, 288, (width, height), margin=2)
    to_image = geometry.invert(to_picture)
    to_image[:, 2] += to_image[:, :2] @ (x0, y0)
    layer = geometry.warp(image, to_image, (x1 - x0, y1 - y0), cv2.BORDER_CONSTANT)
    matte = np.clip(layer[..., 3:], 0, 1)
    picture[y0:y1, x0:x1] = picture[y0:y1, x0:x1] * (1 - matte) + gain * layer[..., :3]


# --- pictures without faces -------------------------------------------------------------------


@cache
def sources() -> list[np.ndarray]:
    """Pictures u8[h,w,3] without a face from scikit-image."""
    from skimage import data

    names = ("brick", "grass", "gravel", "coffee", "rocket", "page", "clock", "moon", "text",
             "hubble_deep_field", "immunohistochemistry", "colorwheel", "motorcycle")  # fmt: skip
    result = []
    for name in names:
        try:
            image = getattr(data, name)()
        except Exception:  # some pictures would be downloaded, which can fail in any way
            continue
        image = image[0] if isinstance(image, tuple) else image
        image = np.asarray(image)
        if image.dtype != np.uint8:
            continue
        result.append(np.dstack([image] * 3) if image.ndim == 2 else image[..., :3])
    return result


def clutter(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A random picture u8[h,w,3] without a face, of (width, height) `size`."""
    kind = rng.integers(4)
    if kind == 0:
        return _shapes(rng, size)
    if kind == 1:
        return _clouds(rng, size)
    image = sources()[rng.integers(len(sources()))]
    if kind == 2:
        tiles = [[_cutting(rng, (size[0] // 4, size[1] // 4)) for _ in range(4)] for _ in range(4)]
        return np.vstack([np.hstack(row) for row in tiles])[: size[1], : size[0]]
    return _cutting(rng, size, image)


def _cutting(rng: np.random.Generator, size: tuple[int, int], image: np.ndarray | None = None) -> np.ndarray:
    """A part of a picture, randomly rotated, scaled and recoloured."""
    image = sources()[rng.integers(len(sources()))] if image is None else image
    scale = np.exp(rng.uniform(np.log(0.5), np.log(3))) * max(size) / 1280
    angle = rng.uniform(0, 2 * np.pi)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = rng.uniform(0.2, 0.8, 2) * image.shape[1::-1]
    affine = np.hstack([turn, (np.array(size) / 2 - turn @ centre)[:, None]])
    part = cv2.warpAffine(image, affine, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
    mixed = part[..., rng.permutation(3)].astype(np.float32) * rng.uniform(0.5, 1.2, 3)
    return np.clip(mixed + rng.uniform(-20, 20), 0, 255).astype(np.uint8)


def _shapes(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Ellipses, boxes, lines and pairs of dots, which may resemble eyes, on a gradient."""
    ramp = np.linspace(rng.uniform(0, 255, 3), rng.uniform(0, 255, 3), size[1])
    image = np.repeat(ramp[:, None], size[0], axis=1).astype(np.uint8).copy()
    for _ in range(int(rng.integers(40, 200))):
        at = tuple(int(v) for v in rng.uniform(0, 1, 2) * size)
        colour = tuple(int(v) for v in rng.uniform(0, 255, 3))
        reach = int(np.exp(rng.uniform(1, 4.5)))
        match rng.integers(4):
            case 0:
                axes = (reach, max(1, int(reach * rng.uniform(0.5, 1.6))))
                cv2.ellipse(image, at, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
            case 1:
                cv2.rectangle(image, at, (at[0] + reach, at[1] + int(reach * 1.4)), colour, -1)
            case 2:
                end = tuple(int(v) for v in at + rng.normal(0, 100, 2))
                cv2.line(image, at, end, colour, int(rng.integers(1, 9)), cv2.LINE_AA)
            case _:
                for side in (-1, 1):
                    cv2.circle(image, (at[0] + side * reach // 2, at[1]), max(1, reach // 6), colour, -1)
    return image


def _clouds(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Smooth, coloured noise of several octaves."""
    image = np.zeros((size[1], size[0], 3), np.float32)
    for octave in range(2, 9):
        cells = rng.normal(0, 1, (2 + size[1] // 2**octave, 2 + size[0] // 2**octave, 3)).astype(np.float32)
        image += cv2.resize(cells, size, interpolation=cv2.INTER_CUBIC) * rng.uniform(0.5, 1.5) ** octave
    image = (image - image.mean()) / image.std()
    clouds: npt.NDArray[np.float32] = image * rng.uniform(20, 70) + rng.uniform(60, 190)
    return np.clip(clouds, 0, 255).astype(np.uint8)
