"""The loss of quality and the gain in speed by `restore.interval`.

    python tests/bench/bench_interval.py [--clean FOLDER] [--only quality|speed] [--json FILE]

Quality: PSNR to the clean picture inside the face masks, over all faces of the two samples, if every
frame is restored and for intervals of 2, 3 and 5. "live" propagates residuals without look-ahead. The
clean picture is the sample before lens, noise and coding. The scripts in `samples/` draw it again, which
needs scikit-image and Pillow and takes about ten minutes a clip; FOLDER keeps it as NAME/0000.png with 16
bits. A frame counts as non-rigid if its face turns, blinks or speaks. "most lost" is the largest loss on
one crop.

Speed: frames a second of whole runs on the portrait sample with the shapes of GPEN-BFR-256 and random
weights, for which the restorer is the bottleneck. Interval 3 and every frame run in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from stream import load_config, restore_file
from stream.faces.detect.finder import FaceFinder, choose
from stream.faces.restore.crop import CropStage
from stream.faces.restore.restore_stage import RestoreStage
from stream.faces.restore.schedule import Interval
from stream.faces.track.tracker import Tracker
from stream.lab.bench.bench_models import weights_file
from stream.lab.bench.machine import machine
from stream.lab.bench.report import BenchReport, Row, Table, markdown
from stream.media.decode import FileSource
from stream.media.probe import probe
from stream.models.engines import create_engine
from stream.models.info import bundled_model_path, read_model_info
from stream.picture import geometry
from stream.picture.face import Crop, FrameWork
from stream.pipeline.cpu_budget import available_cores

SAMPLES = Path(__file__).parent.parent.parent / "samples"
SETTINGS = ((1, True), (2, True), (3, True), (5, True), (3, False))
"""Interval and look-ahead. The others are compared with the first."""
SIZE, TEMPLATE = 256, "ffhq_512"


def clips() -> dict:
    """The functions of the samples' scripts that build the clips, by name."""
    sys.path.insert(0, str(SAMPLES))
    import make_samples

    return {name: build for name, (build, _, _) in make_samples.CLIPS.items()}


def clean_picture(clip, index: int, folder: Path) -> np.ndarray:
    """A frame before lens, noise and coding, RGB f32[h,w,3] in 0..1, which is drawn once."""
    from clip import render

    path = folder / f"{index:04}.png"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        picture = np.round(np.clip(render(clip, index)[0], 0, 1) * 65535).astype(np.uint16)
        cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1].astype(np.float32) / 65535


def is_rigid(clip, frame: int, crop: Crop, truth: list[dict]) -> bool:
    """Whether the crop's face moves rigidly only."""
    person = min(truth, key=lambda p: np.abs(np.array(p["landmarks"]) - crop.face.landmarks).mean())
    actor = next(a for a in clip.scene(frame)[1] if a.person_id == person["id"])
    pose = actor.pose(float(frame))
    return max(abs(pose.yaw_rad), abs(pose.pitch_rad), pose.blink, pose.mouth) < 0.02


def tracked(name: str) -> Iterator[FrameWork]:
    """The sample's frames with the crops that the preset `fast` makes."""
    config = load_config("fast")
    tracker = Tracker(FaceFinder(config.detect, 2), config.detect, config.track)
    crop = CropStage(TEMPLATE, SIZE, lambda faces, size: choose(faces, config.select, size))
    for frame in FileSource(probe(SAMPLES / f"{name}.mp4"), threads=1).frames():
        for work in tracker.process(FrameWork(frame)):
            yield from crop.process(work)
    for work in tracker.flush():
        yield from crop.process(work)


class CachedEngine:
    """An engine that restores each crop once."""

    def __init__(self) -> None:
        self._engine = create_engine("auto", bundled_model_path(), threads=2)
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()

    def restore(self, crops: np.ndarray) -> np.ndarray:
        results = []
        for crop in crops:
            key = hash(crop.tobytes())
            if key not in self._cache:
                self._cache[key] = self._engine.restore(crop[None])[0]
                if len(self._cache) > 300:
                    self._cache.popitem(last=False)
            results.append(self._cache[key])
        return np.stack(results)

    def close(self) -> None:
        self._engine.close()


QUALITY = {
    "clip": "clip",
    "interval": "interval",
    "mode": "mode",
    "rigid_db": "rigid, dB",
    "rigid_loss_db": "loss, rigid, dB",
    "non_rigid_db": "non-rigid, dB",
    "non_rigid_loss_db": "loss, non-rigid, dB",
    "worst_loss_db": "most lost, dB",
    "restored": "restored",
    "forced": "of them out of turn",
    "carried": "carried",
}


class CropErrors:
    """Mean squared errors of restored crops to the clean picture, weighted by the face's mask."""

    def __init__(self, name: str, clip, folder: Path) -> None:
        self.by_setting: list[list[float]] = [[] for _ in SETTINGS]
        self.rigid: list[bool] = []
        """Whether the face moves rigidly, for each crop of the first setting."""
        self._clip, self._folder = clip, folder
        self._truth = json.loads((SAMPLES / f"{name}.truth.json").read_text())["frames_truth"]
        self._mask = geometry.feather_mask(SIZE, 0.16)
        self._pictures: deque[tuple[int, np.ndarray]] = deque(maxlen=40)

    def add(self, setting: int, work: FrameWork) -> None:
        """Measure the crops of a frame that were restored with a setting."""
        for patch in work.patches:
            picture = self._clean_picture(work.frame.index)
            clean = geometry.warp(picture, patch.crop.to_stored, (SIZE, SIZE), cv2.BORDER_REFLECT_101)
            squares = ((patch.crop.image + patch.residual - clean) ** 2).mean(axis=2)
            self.by_setting[setting].append(float((squares * self._mask).sum() / self._mask.sum()))
            if setting == 0:
                truth = self._truth[work.frame.index]
                self.rigid.append(is_rigid(self._clip, work.frame.index, patch.crop, truth))

    def _clean_picture(self, index: int) -> np.ndarray:
        for number, picture in self._pictures:
            if number == index:
                return picture
        picture = clean_picture(self._clip, index, self._folder)
        self._pictures.append((index, picture))
        return picture


def quality(name: str, clip, folder: Path) -> list[Row]:
    """One row for each setting."""
    engine = CachedEngine()
    landmarks = geometry.template(TEMPLATE, SIZE)
    stages = [
        RestoreStage(lambda: engine, 4, 1.0, Interval(frames, lookahead, landmarks, SIZE))
        for frames, lookahead in SETTINGS
    ]
    for stage in stages:
        stage.open()
    errors = CropErrors(name, clip, folder)
    for work in tracked(name):
        for setting, stage in enumerate(stages):
            for done in stage.process(work):
                errors.add(setting, done)
    for setting, stage in enumerate(stages):
        for done in stage.flush():
            errors.add(setting, done)
    rigid, table = np.array(errors.rigid), np.array(errors.by_setting)
    rows = []
    for (frames, lookahead), own, stage in zip(SETTINGS, table, stages, strict=True):
        rows.append(
            {"clip": name, "interval": frames, "mode": "both sides" if lookahead else "live",
             "rigid_db": psnr(own[rigid]), "rigid_loss_db": loss(own[rigid], table[0][rigid]),
             "non_rigid_db": psnr(own[~rigid]), "non_rigid_loss_db": loss(own[~rigid], table[0][~rigid]),
             "worst_loss_db": round(float(10 * np.log10(own / table[0]).max()), 2),
             "restored": stage.counts.restored, "forced": stage.counts.forced,
             "carried": stage.counts.propagated}
        )  # fmt: skip
    return rows


def psnr(errors: np.ndarray) -> float:
    """PSNR in dB from mean squared errors, for a peak of 1."""
    return round(float(-10 * np.log10(errors.mean())), 2)


def loss(errors: np.ndarray, reference: np.ndarray) -> float:
    """Loss of PSNR against the reference's errors, dB."""
    return round(float(10 * np.log10(errors.mean() / reference.mean())), 2)


SPEED = {
    "side": "side",
    "fps": "frames a second",
    "times": "times every frame restored",
    "restored": "restored",
    "carried": "carried",
    "forced": "out of turn",
}


def speed(rounds: int) -> list[Row]:
    """Frames a second of whole runs in turn: the medians, and the median of the ratios of each round."""
    rates: dict[int, list[float]] = {1: [], 3: []}
    report = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = weights_file("GPEN-BFR-256", folder)
        assert read_model_info(model).template == TEMPLATE
        for _ in range(rounds):
            for interval, rate in rates.items():
                settings = (f"restore.model={model}", f"restore.interval={interval}")
                config = load_config("fast", overrides=settings)
                outcome = restore_file(SAMPLES / "portrait.mp4", folder / f"{time.time_ns()}.mp4", config)
                report[interval] = outcome.report
                rate.append(outcome.report["fps"])
    ratio = statistics.median(fast / slow for slow, fast in zip(rates[1], rates[3], strict=True))
    return [
        {
            "side": f"interval {interval}",
            "fps": statistics.median(rate),
            "times": ratio if interval == 3 else 1.0,
            "restored": report[interval]["faces_restored"],
            "carried": report[interval]["faces_carried"],
            "forced": report[interval]["restorations_forced"],
        }
        for interval, rate in rates.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clean", type=Path, help="folder for the clean pictures; default: a temporary one")
    parser.add_argument("--only", choices=("quality", "speed"))
    parser.add_argument("--clip", choices=("portrait", "group"), action="append")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    tables = []
    if arguments.only != "speed":
        with tempfile.TemporaryDirectory() as name:
            folder = arguments.clean or Path(name)
            rows = [
                row
                for clip, build in clips().items()
                if arguments.clip is None or clip in arguments.clip
                for row in quality(clip, build(), folder / clip)
            ]
        tables.append(Table("quality", "Spared restorations against every frame restored", QUALITY, rows))
    if arguments.only != "quality":
        title = "Whole runs of the portrait, GPEN-BFR-256 (random weights)"
        tables.append(Table("speed", title, SPEED, speed(arguments.rounds)))
    options = {"rounds": arguments.rounds}
    report = BenchReport("interval", machine(available_cores()), options, None, tables)
    if arguments.json:
        arguments.json.write_text(report.to_json() + "\n", encoding="utf-8")
    print("\n\n".join(markdown(table) for table in tables))


if __name__ == "__main__":
    main()
