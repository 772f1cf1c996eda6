"""Which faces are found, by their size, and how often something else is taken for one.

    python tests/bench/bench_detection.py [--presets surveillance default ...] [--frames 200] [--json]

Recall: the portraits of samples/faces, their background faded out, are planted at known sizes into
face-free pictures of 1280x720 (--hd: 1920x1080), with a little tilt, light, noise and JPEG. A face's size is
the height of its detector box, forehead to chin: 2.2 eye distances, here. Found is a face whose
landmarks' centre lies within 0.35 eye distances of the true one.

False faces: face-free frames (scikit-image's pictures without faces, cut, turned and recoloured, and
drawn clutter; 960x540) pass detector and tracker, each as two keyframes a little apart, as a still
camera would see it. Counted are frames in which a face would have been restored.
"""

from __future__ import annotations

import argparse
import json
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from skimage import data

from stream import geometry
from stream.colour import Colour
from stream.config import load_config
from stream.detect import FaceFinder
from stream.face import FrameWork
from stream.frame import Frame, Timestamp, View
from stream.track import Tracker

FACES = Path(__file__).resolve().parents[2] / "samples" / "faces"
SIZES = (12, 16, 20, 24, 32, 48, 64, 96, 150, 300)
"""Planted heights of a face, px."""
BOX = 2.2
"""Height of a face's box in eye distances."""
FULL_RANGE_RGB = Colour(1, 1, 1, True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["fast", "default", "quality", "surveillance"])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="heights of the faces, px")
    parser.add_argument("--pictures", type=int, default=10, help="with planted faces, for each size")
    parser.add_argument("--frames", type=int, default=200, help="face-free frames, in pairs")
    parser.add_argument("--hd", action="store_true", help="recall on pictures of 1920x1080")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    report = {name: measure(name, options) for name in options.presets}
    if options.json:
        print(json.dumps(report, indent=1))
        return
    print("recall by height of the face, px; false: frames with a false face")
    print(f"{'preset':14}" + "".join(f"{size:>7}" for size in options.sizes) + f"{'false':>14}")
    for name, row in report.items():
        recalls = "".join(f"{row['recall'][str(size)]:7.2f}" for size in options.sizes)
        print(f"{name:14}{recalls}{row['false_frames']:>8}/{row['frames']}")


def measure(preset: str, options: argparse.Namespace) -> dict:
    """Recall for each size and the false faces of one preset."""
    config = load_config(preset)
    finder = FaceFinder(config.detect, options.threads)
    recall = {}
    for size in options.sizes:
        rng = np.random.default_rng(size)
        found = total = 0
        for _ in range(options.pictures):
            picture, truth = planted(rng, size, (1920, 1080) if options.hd else (1280, 720))
            hits = [h for h in finder(rgb_frame(picture)) if h.score >= config.detect.min_score]
            for marks in truth:
                reach = 0.35 * np.linalg.norm(marks[1] - marks[0])
                gaps = [np.linalg.norm(h.landmarks.mean(axis=0) - marks.mean(axis=0)) for h in hits]
                found += min(gaps, default=np.inf) < reach
                total += 1
        recall[str(size)] = found / total
    single = config.detect.model_copy(update={"interval": 1, "scene_cut": 0.0})
    false, rng = 0, np.random.default_rng(1)
    for _ in range(options.frames // 2):
        tracker = Tracker(finder, single, config.track)
        false += sum(bool(item.faces) for item in watched(tracker, clutter(rng, (968, 548)), rng))
    return {"recall": recall, "false_frames": false, "frames": options.frames}


def watched(tracker: Tracker, picture: np.ndarray, rng: np.random.Generator) -> list[FrameWork]:
    """What the tracker makes of two keyframes of the picture, 3 px apart and with their own noise."""
    done: list[FrameWork] = []
    for shift in (0, 3):
        seen = picture[shift : shift + 540, shift : shift + 960]
        noisy = np.clip(seen + rng.normal(0, 3, seen.shape), 0, 255).astype(np.uint8)
        done += tracker.process(FrameWork(rgb_frame(noisy)))
    return done + list(tracker.flush())


def rgb_frame(rgb: np.ndarray) -> Frame:
    """A frame of RGB u8[h,w,3]."""
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24")
    view = View(rgb.shape[1], rgb.shape[0])
    return Frame(0, Timestamp(0, Fraction(1, 25)), picture, view, FULL_RANGE_RGB)


# --- planted faces ----------------------------------------------------------------------------


def portraits() -> list[tuple[np.ndarray, np.ndarray]]:
    """Pictures f32[288,288,4] premultiplied with a soft oval matte, and FFHQ-placed landmarks."""
    landmarks = geometry.template("ffhq_512", 256) + 16
    y, x = np.mgrid[0:288, 0:288] + 0.5
    distance = np.hypot((x - 144) / 92, (y - 148) / 132)
    matte = np.clip((1.06 - distance) / 0.12, 0, 1).astype(np.float32)[..., None]
    result = []
    for path in sorted(FACES.glob("*.jpg")):
        rgb = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB).astype(np.float32)
        result.append((np.dstack([rgb * matte, matte]), landmarks))
    return result


PORTRAITS = portraits()


def planted(
    rng: np.random.Generator, size: float, extent: tuple[int, int]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """A picture u8[h,w,3] with up to eight faces of a height `size`, and their landmarks."""
    picture = clutter(rng, extent).astype(np.float32)
    cell = max(80, int(size * 2.4))
    columns, rows = extent[0] // cell, extent[1] // cell
    places = rng.permutation(columns * rows)[:8]
    truth = []
    for place in places:
        image, marks = PORTRAITS[rng.integers(len(PORTRAITS))]
        scale = size / (BOX * np.linalg.norm(marks[1] - marks[0]))
        angle = rng.normal(0, 0.1)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        cell_at = np.array([place % columns, place // columns])
        centre = (cell_at + 0.5) * cell + rng.uniform(-0.5, 0.5, 2) * 3
        to_picture = np.hstack([turn, (centre - turn @ (144, 148))[:, None]])
        paste(picture, image, to_picture, rng.uniform(0.75, 1.1))
        truth.append(geometry.apply(to_picture, marks))
    noisy = np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)
    coded = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return cv2.imdecode(coded, cv2.IMREAD_COLOR), truth


def paste(picture: np.ndarray, image: np.ndarray, to_picture: np.ndarray, gain: float) -> None:
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = geometry.cover(to_picture, 288, (width, height), margin=2)
    to_image = geometry.invert(to_picture)
    to_image[:, 2] += to_image[:, :2] @ (x0, y0)
    layer = geometry.warp(image, to_image, (x1 - x0, y1 - y0), cv2.BORDER_CONSTANT)
    matte = np.clip(layer[..., 3:], 0, 1)
    picture[y0:y1, x0:x1] = picture[y0:y1, x0:x1] * (1 - matte) + gain * layer[..., :3]


# --- pictures without faces -------------------------------------------------------------------


def sources() -> list[np.ndarray]:
    """Pictures u8[h,w,3] without a face that scikit-image carries itself."""
    names = ("brick", "grass", "gravel", "coffee", "rocket", "page", "clock", "moon", "text",
             "hubble_deep_field", "immunohistochemistry", "colorwheel", "motorcycle")  # fmt: skip
    result = []
    for name in names:
        try:
            image = getattr(data, name)()
        except Exception:  # some pictures are a download, which fails in many ways
            continue
        image = image[0] if isinstance(image, tuple) else image
        image = np.asarray(image)
        if image.dtype != np.uint8:
            continue
        result.append(np.dstack([image] * 3) if image.ndim == 2 else image[..., :3])
    return result


SOURCES = sources()


def clutter(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A face-free picture u8[h,w,3] of (width, height) `size`."""
    kind = rng.integers(4)
    if kind == 0:
        return shapes(rng, size)
    if kind == 1:
        return clouds(rng, size)
    image = SOURCES[rng.integers(len(SOURCES))]
    if kind == 2:
        tiles = [[cutting(rng, (size[0] // 4, size[1] // 4)) for _ in range(4)] for _ in range(4)]
        return np.vstack([np.hstack(row) for row in tiles])[: size[1], : size[0]]
    return cutting(rng, size, image)


def cutting(rng: np.random.Generator, size: tuple[int, int], image: np.ndarray | None = None) -> np.ndarray:
    """A part of a picture, turned, scaled and recoloured at random."""
    image = SOURCES[rng.integers(len(SOURCES))] if image is None else image
    scale = np.exp(rng.uniform(np.log(0.5), np.log(3))) * max(size) / 1280
    angle = rng.uniform(0, 2 * np.pi)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = rng.uniform(0.2, 0.8, 2) * image.shape[1::-1]
    affine = np.hstack([turn, (np.array(size) / 2 - turn @ centre)[:, None]])
    part = cv2.warpAffine(image, affine, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
    mixed = part[..., rng.permutation(3)].astype(np.float32) * rng.uniform(0.5, 1.2, 3)
    return np.clip(mixed + rng.uniform(-20, 20), 0, 255).astype(np.uint8)


def shapes(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Ellipses, boxes, lines and dots in pairs, on a gradient: what might look like eyes."""
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


def clouds(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Smooth noise of several octaves, in colour."""
    image = np.zeros((size[1], size[0], 3), np.float32)
    for octave in range(2, 9):
        cells = rng.normal(0, 1, (2 + size[1] // 2**octave, 2 + size[0] // 2**octave, 3)).astype(np.float32)
        image += cv2.resize(cells, size, interpolation=cv2.INTER_CUBIC) * rng.uniform(0.5, 1.5) ** octave
    image = (image - image.mean()) / image.std()
    return np.clip(image * rng.uniform(20, 70) + rng.uniform(60, 190), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
