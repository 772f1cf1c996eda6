"""What the stabiliser does to flicker, to sharpness and to time; how still the crops lie.

    python tests/bench/bench_stabilise.py [--model M] [--clean FOLDER] [--strength S] [--interval N]
        [--only quality|cost|jitter] [--clip portrait|group] [--json FILE]

Quality: over all faces of the two samples, restored pictures in crop space with the stabiliser on
against off, inside the feathered mask's flat part. E_warp and flicker are
`stream.lab.quality.video_measures`'s, their motion measured on the clean crops; sharpness and PSNR
are against the clean crops too. The clean picture is the sample before lens, noise and coding,
painted anew by the scripts in `samples/`
(needs scikit-image and Pillow; some ten minutes a clip, kept in FOLDER as NAME/0000.png, 16 bits).
A frame counts as non-rigid where its face turns, blinks or speaks. "clean" is what the clean crops
themselves have: light that changes and motion blur are no flicker, but count in E_warp.

Cost: CPU time a crop, the restorer's and the stabiliser's in turn.

Jitter: how far the crop lies from the truth, its mean left out, over the portrait's still frames,
root mean square over the five landmarks of the template, as a part of the eye distance; the lag is
that part of the motion, in frames, by which the crop stays behind where the face moves fast.
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
"""Frames of a stretch that is measured."""


def tracked(name: str, model: ModelInfo, lookahead: bool) -> Iterator[FrameWork]:
    """The sample's frames with crops, as preset `default` cuts them."""
    config = load_config(overrides=[f"track.lookahead={str(lookahead).lower()}"])
    tracker = Tracker(FaceFinder(config.detect, 2), config.detect, config.track)
    crop = CropStage(model.template, model.size, lambda faces, size: choose(faces, config.select, size))
    for frame in FileSource(probe(SAMPLES / f"{name}.mp4"), None, None, threads=1).frames():
        for work in tracker.process(FrameWork(frame)):
            yield from crop.process(work)
    for work in tracker.flush():
        yield from crop.process(work)


def through(stage, works: Iterable[FrameWork]) -> Iterator[FrameWork]:
    """Frames through a stage."""
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


def quality(name: str, clip, folder: Path, model: ModelInfo, engine, options) -> list[Row]:
    """One row for each mode, for the rigid and for the other stretches."""
    landmarks, size = geometry.template(model.template, model.size), model.size
    truth = json.loads((SAMPLES / f"{name}.truth.json").read_text())["frames_truth"]
    edge = round(0.16 * size)
    seen: dict = {}

    def keep(mode: str, kind, works: Iterable[FrameWork]) -> None:
        for work in works:
            for patch in work.patches:
                key = patch.crop.face.track_id, work.frame.index
                shown = patch.crop.image + patch.residual
                seen.setdefault((mode, kind), {})[key] = u8(shown, edge)

    for mode, lookahead in (("files", True), ("live", False)):
        interval = Interval(options.interval, lookahead, landmarks, size)
        restore = RestoreStage(lambda: engine, 4, 1.0, interval)
        pair = {on: StabiliseStage(landmarks, size, on * options.strength, lookahead) for on in (False, True)}
        for stage in pair.values():
            stage.open()
        for work in through(restore, tracked(name, model, lookahead)):
            for on, stage in pair.items():
                keep(mode, on, stage.process(work))
            if work.patches:
                picture = clean_picture(clip, work.frame.index, folder)
            for patch in work.patches:
                key = patch.crop.face.track_id, work.frame.index
                crop = geometry.warp(picture, patch.crop.to_stored, (size, size), cv2.BORDER_REFLECT_101)
                seen.setdefault((mode, "clean"), {})[key] = u8(crop, edge)
                rigid = is_rigid(clip, work.frame.index, patch.crop, truth[work.frame.index])
                seen.setdefault((mode, "rigid"), {})[key] = bool(rigid)
        for on, stage in pair.items():
            keep(mode, on, stage.flush())
    rows = []
    for mode in ("files", "live"):
        clean, rigid = seen[mode, "clean"], seen[mode, "rigid"]
        for part in (True, False):
            runs = [run for run in stretches(rigid) if rigid[run[0]] is part]
            sources = [video_measures.ClipMotion([clean[key] for key in run]) for run in runs]
            figures = {
                kind: measured([[found[key] for key in run] for run in runs], sources,
                               [[clean[key] for key in run] for run in runs])
                for kind, found in (("clean", clean), ("off", seen[mode, False]), ("on", seen[mode, True]))
            }  # fmt: skip
            off, on, clean_ones = figures["off"], figures["on"], figures["clean"]
            row: Row = {"clip": name, "mode": mode, "part": "rigid" if part else "non-rigid"}
            row |= {"frames": sum(map(len, runs)), "psnr_change": on["psnr"] - off["psnr"]}
            for key in ("e_warp", "flicker", "sharpness"):
                row[f"{key}_change"] = 100 * (on[key] / off[key] - 1)
                row |= {f"{key}_off": off[key], f"{key}_on": on[key], f"{key}_clean": clean_ones[key]}
            rows.append(row)
    return rows


def u8(image: np.ndarray, edge: int) -> np.ndarray:
    """The inner part of a picture f32[S,S,3] of 0..1 as u8."""
    return np.round(np.clip(image[edge:-edge, edge:-edge], 0, 1) * 255).astype(np.uint8)


def stretches(rigid: dict[tuple[int, int], bool]) -> list[list[tuple[int, int]]]:
    """Keys (track, frame) in runs of frames that follow each other in one track and part."""
    keys = sorted(rigid)
    marks = [(track, frame - at, rigid[track, frame]) for at, (track, frame) in enumerate(keys)]
    runs = [[key for key, _ in run] for _, run in groupby(zip(keys, marks, strict=True), lambda m: m[1])]
    return [run for run in runs if len(run) >= _LEAST]


def measured(
    runs: list[list], sources: list[video_measures.ClipMotion], clean: list[list]
) -> dict[str, float]:
    """Means over all frames of the runs; PSNR of the mean square error."""

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
    """CPU time a crop in ms, and the part that the stabiliser's is of the restorer's."""
    landmarks = geometry.template(model.template, model.size)
    works = [work for work, _ in zip(tracked(name, model, True), range(80), strict=False)]
    rows: list[Row] = []
    for mode, lookahead in (("files", True), ("live", False)):
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
    """A row for each phase of the portrait, in % of the eye distance; lag in frames."""
    truth = json.loads((SAMPLES / "portrait.truth.json").read_text())
    template = geometry.template(model.template, model.size)
    rows: list[Row] = []
    for mode, lookahead in (("files", True), ("live", False)):
        found, true, eyes = [], [], []
        for work in tracked("portrait", model, lookahead):
            marks = np.array(truth["frames_truth"][work.frame.index][0]["landmarks"])
            found.append(geometry.apply(work.crops[0].to_stored, template))
            true.append(geometry.apply(geometry.similarity(template, marks), template))
            eyes.append(np.linalg.norm(marks[1] - marks[0]))
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
    """Root mean square length of offsets f64[..., 2], in hundredths."""
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
