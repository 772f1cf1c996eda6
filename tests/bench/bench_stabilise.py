"""The stabiliser's effect on flicker, sharpness and time, and the stability of the crops.

    python tests/bench/bench_stabilise.py [--model M] [--clean FOLDER] [--strength S] [--interval N]
        [--only quality|cost|jitter] [--clip portrait|group] [--json FILE]

Quality: restored crops of all faces of the two samples, with the stabiliser on and off, inside the flat
part of the feathered mask. E_warp and flicker are measured by `stream.lab.quality.video_measures` with the
motion of the clean crops; sharpness and PSNR are relative to the clean crops too. The clean picture is the
sample before lens, noise and coding. The scripts in `samples/` draw it again, which needs scikit-image and
Pillow and takes about ten minutes a clip; FOLDER keeps it as NAME/0000.png with 16 bits. A frame counts as
non-rigid if its face turns, blinks or speaks. "clean" gives the figures of the clean crops: changes of
light and motion blur do not count as flicker, but in E_warp.

Cost: CPU time for a crop, of the restorer and the stabiliser in turn.

Jitter: the distance of the crop from the true one without its mean, in each phase of the portrait, as the
root mean square over the template's five landmarks in shares of the eye distance. The lag is the part of
the motion, in frames, by which the crop stays behind.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from bench_interval import SAMPLES, clean_picture, clips, is_rigid

from stream import load_config
from stream.faces.detect.finder import FaceFinder, choose
from stream.faces.restore.crop import CropStage
from stream.faces.restore.restore_stage import RestoreStage
from stream.faces.restore.schedule import Interval
from stream.faces.restore.stabilise import StabiliseStage
from stream.faces.track.tracker import Tracker
from stream.lab.bench.machine import machine
from stream.lab.bench.report import BenchReport, Row, Table, markdown
from stream.lab.quality import picture_measures, video_measures
from stream.media.decode import FileSource
from stream.media.probe import probe
from stream.models import registry
from stream.models.engines import create_engine
from stream.models.info import ModelInfo, read_model_info
from stream.picture import geometry
from stream.picture.face import FrameWork

_LEAST = 3
"""Least number of frames in a measured stretch."""
MODES = {"files": True, "live": False}
"""Look-ahead by mode."""
Key = tuple[int, int]
"""Track and frame of a crop."""


def tracked(name: str, model: ModelInfo, lookahead: bool) -> Iterator[FrameWork]:
    """The sample's frames with the crops that the preset `default` makes."""
    config = load_config(overrides=[f"track.lookahead={str(lookahead).lower()}"])
    tracker = Tracker(FaceFinder(config.detect, 2), config.detect, config.track)
    crop = CropStage(model.template, model.size, lambda faces, size: choose(faces, config.select, size))
    for frame in FileSource(probe(SAMPLES / f"{name}.mp4"), threads=1).frames():
        for work in tracker.process(FrameWork(frame)):
            yield from crop.process(work)
    for work in tracker.flush():
        yield from crop.process(work)


def through(stage, works: Iterable[FrameWork]) -> Iterator[FrameWork]:
    """The frames after a stage."""
    stage.open()
    for work in works:
        yield from stage.process(work)
    yield from stage.flush()


QUALITY = {
    "clip": "clip",
    "mode": "mode",
    "part": "part",
    "frames": "frames",
    "e_warp_change": "E_warp, %",
    "e_warp_off": "off, 1e-6",
    "e_warp_on": "on",
    "e_warp_clean": "clean",
    "flicker_change": "flicker, %",
    "flicker_off": "off, squared levels",
    "flicker_on": "on",
    "flicker_clean": "clean",
    "sharpness_change": "sharpness, %",
    "psnr_change": "PSNR, dB",
}


class StabilisedCrops:
    """Crops of one mode with the stabiliser on and off, beside the clean ones; all u8[s,s,3]."""

    def __init__(self) -> None:
        self.stabilised: dict[bool, dict[Key, np.ndarray]] = {False: {}, True: {}}
        """Restored crops, by whether the stabiliser is on."""
        self.clean: dict[Key, np.ndarray] = {}
        self.rigid: dict[Key, bool] = {}
        """Whether the face moves rigidly."""

    def add(self, on: bool, works: Iterable[FrameWork], edge: int) -> None:
        """Keep the restored crops of frames."""
        for work in works:
            for patch in work.patches:
                key = patch.crop.face.track_id, work.frame.index
                self.stabilised[on][key] = u8(patch.crop.image + patch.residual, edge)


def crops_of(
    name: str, clip, folder: Path, model: ModelInfo, engine, options, lookahead: bool
) -> StabilisedCrops:
    """The crops of a sample."""
    landmarks, size = geometry.template(model.template, model.size), model.size
    edge = round(0.16 * size)
    truth = json.loads((SAMPLES / f"{name}.truth.json").read_text())["frames_truth"]
    restore = RestoreStage(lambda: engine, 4, 1.0, Interval(options.interval, lookahead, landmarks, size))
    pair = {on: StabiliseStage(landmarks, size, on * options.strength, lookahead) for on in (False, True)}
    for stage in pair.values():
        stage.open()
    crops = StabilisedCrops()
    for work in through(restore, tracked(name, model, lookahead)):
        for on, stage in pair.items():
            crops.add(on, stage.process(work), edge)
        picture = clean_picture(clip, work.frame.index, folder) if work.patches else None
        for patch in work.patches:
            key = patch.crop.face.track_id, work.frame.index
            clean = geometry.warp(picture, patch.crop.to_stored, (size, size), cv2.BORDER_REFLECT_101)
            crops.clean[key] = u8(clean, edge)
            crops.rigid[key] = bool(is_rigid(clip, work.frame.index, patch.crop, truth[work.frame.index]))
    for on, stage in pair.items():
        crops.add(on, stage.flush(), edge)
    return crops


def quality(name: str, clip, folder: Path, model: ModelInfo, engine, options) -> list[Row]:
    """One row for each mode, for the rigid and for the non-rigid stretches."""
    rows = []
    for mode, lookahead in MODES.items():
        crops = crops_of(name, clip, folder, model, engine, options, lookahead)
        for rigid in (True, False):
            row: Row = {"clip": name, "mode": mode, "part": "rigid" if rigid else "non-rigid"}
            rows.append(row | figures_of(crops, rigid))
    return rows


def figures_of(crops: StabilisedCrops, rigid: bool) -> Row:
    """The figures of the rigid or the non-rigid stretches."""
    runs = [run for run in stretches(crops.rigid) if crops.rigid[run[0]] is rigid]
    clean = [[crops.clean[key] for key in run] for run in runs]
    sources = [video_measures.ClipMotion(run) for run in clean]
    figures = {
        kind: measured([[found[key] for key in run] for run in runs], sources, clean)
        for kind, found in (
            ("clean", crops.clean),
            ("off", crops.stabilised[False]),
            ("on", crops.stabilised[True]),
        )
    }
    off, on = figures["off"], figures["on"]
    row: Row = {"frames": sum(map(len, runs)), "psnr_change": on["psnr"] - off["psnr"]}
    for key in ("e_warp", "flicker", "sharpness"):
        row[f"{key}_change"] = 100 * (on[key] / off[key] - 1)
        row |= {f"{key}_{kind}": figures[kind][key] for kind in ("off", "on", "clean")}
    return row


def u8(image: np.ndarray, edge: int) -> np.ndarray:
    """A picture f32[S,S,3] of 0..1 without its border of `edge` px, as u8."""
    return np.round(np.clip(image[edge:-edge, edge:-edge], 0, 1) * 255).astype(np.uint8)


def stretches(rigid: dict[Key, bool]) -> list[list[Key]]:
    """The keys in runs of consecutive frames of one track that are all rigid or all non-rigid."""
    keys = sorted(rigid)
    # Equal for consecutive frames: the number of the frame minus the position of its key.
    groups = [(track, frame - at, rigid[track, frame]) for at, (track, frame) in enumerate(keys)]
    runs = [[key for key, _ in run] for _, run in groupby(zip(keys, groups, strict=True), lambda m: m[1])]
    return [run for run in runs if len(run) >= _LEAST]


def measured(
    runs: list[list], sources: list[video_measures.ClipMotion], clean: list[list]
) -> dict[str, float]:
    """Means over all frames of the runs; PSNR is that of the mean squared error."""

    def mean(values: list[float]) -> float:
        known = [(value, len(run)) for value, run in zip(values, runs, strict=True) if not np.isnan(value)]
        return sum(value * count for value, count in known) / sum(count for _, count in known)

    errors = [
        [((a.astype(np.float32) - b) ** 2).mean() for a, b in zip(run, true, strict=True)]
        for run, true in zip(runs, clean, strict=True)
    ]
    sharp = [
        np.mean([picture_measures.sharpness(a, b) for a, b in zip(run, true, strict=True)])
        for run, true in zip(runs, clean, strict=True)
    ]
    error = mean([np.mean(each) for each in errors])
    return {
        "e_warp": round(
            1e6 * mean([video_measures.warping_error(*both) for both in zip(runs, sources, strict=True)]), 1
        ),
        "flicker": round(
            mean([video_measures.flicker(*both) for both in zip(runs, sources, strict=True)]), 3
        ),
        "sharpness": round(mean(sharp), 4),
        "psnr": round(float(10 * np.log10(255**2 / error)), 3) if error else float("inf"),
    }


COST = {"mode": "mode", "restore": "restorer, ms", "stabilise": "stabiliser, ms", "part": "part, %"}


def cost(name: str, model: ModelInfo, engine, options) -> list[Row]:
    """CPU time for a crop in ms, and the stabiliser's as a share of the restorer's."""
    landmarks = geometry.template(model.template, model.size)
    works = [work for work, _ in zip(tracked(name, model, True), range(80), strict=False)]
    rows: list[Row] = []
    for mode, lookahead in MODES.items():
        spent: dict[str, list[float]] = {"restore": [], "stabilise": []}
        restore = RestoreStage(lambda: engine, 4, 1.0)
        stage = StabiliseStage(landmarks, model.size, options.strength, lookahead)
        restore.open()
        stage.open()
        for at in range(0, len(works), 8):
            began = time.process_time()
            done = [result for work in works[at : at + 8] for result in restore.process(work)]
            count = sum(len(work.crops) for work in done)
            turn = time.process_time()
            for work in done:
                list(stage.process(work))
            ended = time.process_time()
            if at and count:
                spent["restore"].append(1e3 * (turn - began) / count)
                spent["stabilise"].append(1e3 * (ended - turn) / count)
        ms = {kind: statistics.median(values) for kind, values in spent.items()}
        rows.append({"mode": mode, **ms, "part": 100 * ms["stabilise"] / ms["restore"]})
    return rows


JITTER = {
    "phase": "phase",
    "mode": "mode",
    "rms": "rms, %",
    "most": "most, %",
    "step": "step, %",
    "tlme": "TLME, %",
    "lag_frames": "lag, frames",
}


def jitter(model: ModelInfo) -> list[Row]:
    """A row for each phase of the portrait, in % of the eye distance; the lag is in frames."""
    truth = json.loads((SAMPLES / "portrait.truth.json").read_text())
    template = geometry.template(model.template, model.size)
    rows: list[Row] = []
    for mode, lookahead in MODES.items():
        found, true, eyes = [], [], []
        for work in tracked("portrait", model, lookahead):
            landmarks = np.array(truth["frames_truth"][work.frame.index][0]["landmarks"])
            found.append(geometry.apply(work.crops[0].to_stored, template))
            true.append(geometry.apply(geometry.similarity(template, landmarks), template))
            eyes.append(np.linalg.norm(landmarks[1] - landmarks[0]))
        off = (np.array(found) - np.array(true)) / np.median(eyes)
        centre = np.array(true).mean(axis=1) / np.median(eyes)
        for phase in truth["phases"]:
            part = slice(phase["start"], phase["end"])
            error = off[part] - off[part].mean(axis=0)
            speed = np.gradient(centre[part], axis=0)
            lag = -(error.mean(axis=1) * speed).sum() / max((speed**2).sum(), 1e-4)
            rows.append(
                {
                    "phase": phase["name"],
                    "mode": mode,
                    "rms": percent(error),
                    "most": 100 * float(np.linalg.norm(error, axis=-1).max()),
                    "step": percent(np.diff(error, axis=0)),
                    "tlme": 100 * video_measures.landmark_jitter(np.array(found)[part], np.array(true)[part]),
                    "lag_frames": float(lag),
                }
            )
    return rows


def percent(offsets: np.ndarray) -> float:
    """Root mean square of the lengths of offsets f64[..., 2], in hundredths."""
    return 100 * float(np.sqrt((offsets**2).sum(axis=-1).mean()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="gpen-lite-256", help="name or file")
    parser.add_argument("--clean", type=Path, help="folder for the clean pictures; default: a temporary one")
    parser.add_argument("--strength", type=float, default=load_config().stabilise.strength)
    parser.add_argument("--interval", type=int, default=1, help="restore.interval")
    parser.add_argument("--only", choices=("quality", "cost", "jitter"))
    parser.add_argument("--clip", choices=("portrait", "group"), action="append")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    path = registry.resolve(options.model)
    model = read_model_info(path)
    engine = create_engine("auto", path, threads=2, info=model)
    names = options.clip or ["portrait", "group"]
    tables = []
    if options.only in (None, "quality"):
        with tempfile.TemporaryDirectory() as temporary:
            folder = options.clean or Path(temporary)
            rows = [
                row
                for name in names
                for row in quality(name, clips()[name](), folder / name, model, engine, options)
            ]
        tables.append(Table("quality", "The stabiliser on against off", QUALITY, rows))
    if options.only in (None, "cost"):
        rows = cost(names[-1], model, engine, options)
        tables.append(Table("cost", "CPU time a crop", COST, rows))
    if options.only in (None, "jitter"):
        tables.append(Table("jitter", "Where the crop lies, in % of the eye distance", JITTER, jitter(model)))
    asked = {"model": model.name, "model_sha256": model.sha256, "engine": engine.description,
             "strength": options.strength, "interval": options.interval}  # fmt: skip
    report = BenchReport("stabilise", machine(2), asked, None, tables)
    if options.json:
        options.json.write_text(report.to_json() + "\n", encoding="utf-8")
    print("\n\n".join(markdown(table) for table in tables))


if __name__ == "__main__":
    main()
