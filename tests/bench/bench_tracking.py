"""Landmarks and time of keyframes with flow, against detection on every frame.

    python tests/bench/bench_tracking.py [--clips portrait group] [--interval 10] [--live] [--json]

Both sides use the same detector with the same settings and see the same frames of samples/*.mp4;
what is right is said by samples/*.truth.json. Errors are parts of the true eye distance, medians
over the faces that both sides found and of which at least 0.8 is visible. "Rigid" is how far the
similarity fitted between truth and estimate moves the landmarks, "non-rigid" what remains;
"jitter" is the residual of the crop's transform against the true one, differenced from frame to
frame. "Still" is the furthest that the crop goes from its mean place while nothing moves.
Times are of the whole process (CPU) and by the clock (wall).
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

from stream import geometry
from stream.config import Detect, Track
from stream.decode import FileSource
from stream.detect import FaceFinder
from stream.face import FrameWork
from stream.probe import probe
from stream.track import Tracker

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
TEMPLATE = geometry.template("ffhq_512", 1)
VISIBLE = 0.8
Found = dict[int, dict[int, np.ndarray]]
"""Frame -> person -> landmarks f64[5,2]."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clips", nargs="+", default=["portrait", "group"])
    parser.add_argument("--interval", type=int, default=10)
    parser.add_argument("--live", action="store_true", help="without look-ahead")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--phases", action="store_true", help="errors of each phase as well")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    report = {clip: measure(clip, options) for clip in options.clips}
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        for clip, figures in report.items():
            print_table(clip, figures)


def measure(clip: str, options: argparse.Namespace) -> dict:
    """All figures of one clip."""
    truth = json.loads((SAMPLES / f"{clip}.truth.json").read_text())
    settings = Detect(interval=options.interval)
    finder = FaceFinder(settings, options.threads)
    # Decoded and warmed up before: only detection and tracking are timed.
    work = [FrameWork(frame) for frame in FileSource(probe(SAMPLES / f"{clip}.mp4")).frames()]
    finder(work[0].frame)
    each, each_time = timed(lambda: [[hit.landmarks for hit in finder(item.frame)] for item in work])
    tracker = Tracker(finder, settings, Track(lookahead=not options.live))
    tracked, tracked_time = timed(lambda: run(tracker, work))
    ids: dict[int, set[int]] = defaultdict(set)
    for index, item in enumerate(tracked):
        for face in item.faces:
            person = nearest(face.landmarks, truth["frames_truth"][index], least_visible=0.5)
            if person is not None:
                ids[person].add(face.track_id)
    sides = {
        "detected": matched(each, truth),
        "tracked": matched([[face.landmarks for face in item.faces] for item in tracked], truth),
    }
    figures = compare(sides, truth, range(truth["frames"]))
    figures["time"] = {
        "cpu_ratio": tracked_time[0] / each_time[0],
        "wall_ratio": tracked_time[1] / each_time[1],
        "detected_ms": each_time[1] / len(work) * 1e3,
        "tracked_ms": tracked_time[1] / len(work) * 1e3,
        "detections_run": tracker.detections_run,
        "frames": len(work),
    }
    figures["identities"] = {truth["people"][p]["name"]: sorted(found) for p, found in sorted(ids.items())}
    figures["false_faces"] = {
        "detected": stray(each, truth),
        "tracked": stray([[face.landmarks for face in item.faces] for item in tracked], truth),
    }
    if options.phases:
        figures["phases"] = {
            phase["name"]: compare(sides, truth, range(phase["start"], phase["end"]))
            for phase in truth["phases"]
        }
    return figures


def run(tracker: Tracker, work: list[FrameWork]) -> list[FrameWork]:
    done = [result for item in work for result in tracker.process(item)]
    done += tracker.flush()
    return done


def timed(call):
    cpu, wall = time.process_time(), time.perf_counter()
    result = call()
    return result, (time.process_time() - cpu, time.perf_counter() - wall)


def eyes(marks: np.ndarray) -> float:
    return float(np.linalg.norm(marks[1] - marks[0]))


def nearest(marks: np.ndarray, people: list[dict], least_visible: float) -> int | None:
    """The person whose landmarks these are, within 0.6 of the spread of the true ones."""
    best, least = None, np.inf
    for person in people:
        true = np.array(person["landmarks"])
        gap = np.linalg.norm(true.mean(axis=0) - marks.mean(axis=0)) / np.ptp(true[:, 1])
        if gap < min(least, 0.6) and person["visible"] >= least_visible:
            best, least = person["id"], gap
    return best


def stray(found: list[list[np.ndarray]], truth: dict) -> int:
    """Faces that belong to no one at least partly in the frame."""
    return sum(
        nearest(marks, truth["frames_truth"][index], 0.0) is None
        for index, faces in enumerate(found)
        for marks in faces
    )


def matched(found: list[list[np.ndarray]], truth: dict) -> Found:
    result: Found = {}
    for index, faces in enumerate(found):
        result[index] = {}
        for marks in faces:
            person = nearest(marks, truth["frames_truth"][index], VISIBLE)
            if person is not None:
                result[index].setdefault(person, marks.astype(np.float64))
    return result


def compare(sides: dict[str, Found], truth: dict, frames: range) -> dict:
    """Figures over some frames: medians, and the tracked side's over the detected side's."""
    true = {
        i: {p["id"]: np.array(p["landmarks"]) for p in truth["frames_truth"][i] if p["visible"] >= VISIBLE}
        for i in frames
    }
    common = {i: [p for p in true[i] if all(p in side[i] for side in sides.values())] for i in frames}
    figures: dict = {"faces": sum(map(len, common.values()))}
    figures["recall"] = {
        name: sum(p in side[i] for i in frames for p in true[i]) / max(sum(map(len, true.values())), 1)
        for name, side in sides.items()
    }
    for name, side in sides.items():
        rigid, shape, jitter = [], [], []
        for i in frames:
            for p in common[i]:
                r, s = split_error(side[i][p], true[i][p])
                rigid.append(r)
                shape.append(s)
                if p in common.get(i + 1, ()):
                    now, then = (crop_residual(side[k][p], true[k][p]) for k in (i, i + 1))
                    jitter.append(np.sqrt(((then - now) ** 2).sum(axis=1).mean()))
        figures[name] = {
            "rigid": percent(rigid), "non_rigid": percent(shape), "jitter": percent(jitter),
            "rigid_p95": percent(rigid, 95), "jitter_p95": percent(jitter, 95),
        }  # fmt: skip
        still = [phase for phase in truth["phases"] if phase["name"] == "still"]
        inside = [i for i in frames if still and still[0]["start"] <= i < still[0]["end"]]
        if inside:
            figures[name]["still"] = stillness([side[i][0] for i in inside if 0 in side[i]])
    figures["ratio"] = {
        key: figures["tracked"][key] / max(figures["detected"][key], 1e-9) for key in figures["tracked"]
    }
    return figures


def split_error(marks: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Rigid and non-rigid error, root mean square over the landmarks, in eye distances."""
    carried = geometry.apply(geometry.similarity(true, marks), true)
    size = eyes(true)

    def rms(gap: np.ndarray) -> float:
        return float(np.sqrt((gap**2).sum(axis=1).mean()) / size)

    return rms(carried - true), rms(marks - carried)


def crop_residual(marks: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Where this crop shows the template's points, less where the true crop does; eye distances."""
    to_crop = geometry.similarity(marks, TEMPLATE)
    from_true = geometry.invert(geometry.similarity(true, TEMPLATE))
    return (geometry.apply(geometry.chain(to_crop, from_true), TEMPLATE) - TEMPLATE) / eyes(TEMPLATE)


def stillness(marks: list[np.ndarray]) -> float:
    """The furthest that the crop's own points go from their mean place, % of the eye distance."""
    mean = np.mean(marks, axis=0)
    placed = np.array([geometry.apply(geometry.similarity(TEMPLATE, m), TEMPLATE) for m in marks])
    return float(np.linalg.norm(placed - placed.mean(axis=0), axis=-1).max() / eyes(mean) * 100)


def percent(values: list[float], rank: float = 50) -> float:
    return float(np.percentile(values, rank) * 100) if values else float("nan")


def print_table(title: str, figures: dict) -> None:
    def rows(part: dict) -> None:
        for key in part["tracked"]:
            one, other, ratio = part["detected"][key], part["tracked"][key], part["ratio"][key]
            print(f"  {key:12}{one:10.3f} %{other:10.3f} %{ratio:8.2f}")
        print(f"  {'recall':12}{part['recall']['detected']:10.3f}  {part['recall']['tracked']:10.3f}")

    print(f"{title}: {figures['faces']} faces     every frame   keyframes   ratio")
    rows(figures)
    spent = figures["time"]
    print(f"  time/frame  {spent['detected_ms']:9.2f} ms{spent['tracked_ms']:9.2f} ms"
          f"{spent['wall_ratio']:8.3f} wall {spent['cpu_ratio']:8.3f} CPU;"
          f" {spent['detections_run']} detections in {spent['frames']} frames")  # fmt: skip
    print(f"  identities  {figures['identities']}; false {figures['false_faces']}")
    for name, part in figures.get("phases", {}).items():
        print(f" {name}: {part['faces']} faces")
        rows(part)


if __name__ == "__main__":
    main()
