"""Part of `bench detect`: which faces are found, by their size, and how often another thing is taken for one.

Recall: the portraits of samples/faces, their background faded out, are planted at known sizes into
face-free pictures of 1280x720 (or 1920x1080), with a little tilt, light, noise and JPEG. A face's
size is the height of its detector box, forehead to chin: 2.2 eye distances, here. Found is a face
whose landmarks' centre lies within 0.35 eye distances of the true one.

False faces: face-free frames (scikit-image's pictures without faces, cut, turned and recoloured, and
drawn clutter; 960x540) pass detector and tracker, each as two keyframes a little apart, as a still
camera would see it. Counted are frames in which a face would have been restored.
"""

from __future__ import annotations

import cv2
import numpy as np

from stream.config import PRESETS, load_config
from stream.faces.detect.finder import FaceFinder
from stream.faces.track.tracker import Tracker
from stream.lab.bench.material import rgb_frame
from stream.lab.bench.planted_faces import clutter, planted
from stream.lab.bench.report import Row, Table
from stream.picture.face import FrameWork

SIZES = (12, 16, 20, 24, 32, 48, 64, 96, 150, 300)
"""Planted heights of a face, px."""
_REACH = 0.35


def recall(presets: list[str], sizes: list[int], pictures: int, frames: int, hd: bool, threads: int) -> Table:
    """A row for each preset: recall by size over so many `pictures`, false faces over `frames`."""
    cv2.setNumThreads(1)
    sizes = sizes or list(SIZES)
    rows = [_measured(name, sizes, pictures, frames, hd, threads) for name in presets or PRESETS]
    columns = {"preset": "preset"} | {f"recall {size}": f"{size} px" for size in sizes}
    columns |= {"false": "frames with a false face", "frames": "of"}
    title = f"Recall by the height of the face, {'1920x1080' if hd else '1280x720'}"
    return Table("recall", title, columns, rows)


def _measured(preset: str, sizes: list[int], pictures: int, frames: int, hd: bool, threads: int) -> Row:
    config = load_config(preset)
    finder = FaceFinder(config.detect, threads)
    row: Row = {"preset": preset}
    for size in sizes:
        rng = np.random.default_rng(size)
        found = total = 0
        for _ in range(pictures):
            picture, truth = planted(rng, size, (1920, 1080) if hd else (1280, 720))
            hits = finder.certain(rgb_frame(picture))
            for marks in truth:
                reach = _REACH * np.linalg.norm(marks[1] - marks[0])
                gaps = [np.linalg.norm(hit.landmarks.mean(axis=0) - marks.mean(axis=0)) for hit in hits]
                found += bool(min(gaps, default=np.inf) < reach)
                total += 1
        row[f"recall {size}"] = found / total
    single = config.detect.model_copy(update={"interval": 1, "scene_cut": 0.0})
    false, rng = 0, np.random.default_rng(1)
    for _ in range(frames // 2):
        tracker = Tracker(finder, single, config.track)
        false += sum(bool(item.faces) for item in _watched(tracker, clutter(rng, (968, 548)), rng))
    return row | {"false": false, "frames": frames // 2 * 2}


def _watched(tracker: Tracker, picture: np.ndarray, rng: np.random.Generator) -> list[FrameWork]:
    """What the tracker makes of two keyframes of the picture, 3 px apart and with their own noise."""
    done: list[FrameWork] = []
    for shift in (0, 3):
        seen = picture[shift : shift + 540, shift : shift + 960]
        noisy = np.clip(seen + rng.normal(0, 3, seen.shape), 0, 255).astype(np.uint8)
        done += tracker.process(FrameWork(rgb_frame(noisy)))
    return done + list(tracker.flush())
