"""Part of `bench detect`: recall by the size of the face, and the number of false faces.

Recall: the portraits of samples/faces, with faded backgrounds, are planted at known sizes into pictures
of 1280x720 (or 1920x1080) without faces, with a little rotation, change of light, noise and JPEG. A face's
size is the height of its detector box from forehead to chin, here 2.2 eye distances. A face is found if
the centre of the detected landmarks lies within 0.35 eye distances of the true centre.

False faces: frames without faces, 960x540, pass through detector and tracker. They are parts of
scikit-image's pictures, rotated and recoloured, and drawn clutter. Each is shown as two keyframes with a
small shift, as a still camera would see it. The figure counts the frames in which a face would have been
restored.
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
"""Largest distance of a found face, in eye distances."""


def recall(presets: list[str], sizes: list[int], pictures: int, frames: int, hd: bool, threads: int) -> Table:
    """A row for each preset: recall by size in `pictures` pictures, and false faces in `frames` frames."""
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
            for landmarks in truth:
                reach = _REACH * np.linalg.norm(landmarks[1] - landmarks[0])
                centre = landmarks.mean(axis=0)
                gaps = [np.linalg.norm(hit.landmarks.mean(axis=0) - centre) for hit in hits]
                found += bool(min(gaps, default=np.inf) < reach)
                total += 1
        row[f"recall {size}"] = found / total
    single = config.detect.model_copy(update={"interval": 1, "scene_cut": 0.0})
    false, rng = 0, np.random.default_rng(1)
    for _ in range(frames // 2):
        tracker = Tracker(finder, single, config.track)
        false += sum(bool(item.faces) for item in _tracked(tracker, clutter(rng, (968, 548)), rng))
    return row | {"false": false, "frames": frames // 2 * 2}


def _tracked(tracker: Tracker, picture: np.ndarray, rng: np.random.Generator) -> list[FrameWork]:
    """The tracker's result for two keyframes of the picture, shifted by 3 px and with different noise."""
    done: list[FrameWork] = []
    for shift in (0, 3):
        view = picture[shift : shift + 540, shift : shift + 960]
        noisy = np.clip(view + rng.normal(0, 3, view.shape), 0, 255).astype(np.uint8)
        done += tracker.process(FrameWork(rgb_frame(noisy)))
    return done + list(tracker.flush())
