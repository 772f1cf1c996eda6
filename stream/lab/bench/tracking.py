"""Part of `bench detect`: keyframes with flow, against detection on every frame.

Both sides use the same detector with the same settings and see the same frames of samples/*.mp4;
what is right is said by samples/*.truth.json. Errors are parts of the true eye distance, medians
over the faces that both sides found and of which at least 0.8 is visible. "Rigid" is how far the
similarity fitted between truth and estimate moves the landmarks, "non-rigid" what remains;
"jitter" is the residual of the crop's transform against the true one, differenced from frame to
frame. "Still" is the furthest that the crop goes from its mean place while nothing moves.
Times are of the whole process (CPU) and by the clock (wall).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from stream.config import Detect, Track
from stream.faces.detect.finder import FaceFinder
from stream.faces.track.tracker import Tracker
from stream.lab.bench.material import PersonTruth, Truth, samples, truth_of
from stream.lab.bench.report import Row, Table
from stream.media.decode import FileSource
from stream.media.probe import probe
from stream.picture import geometry
from stream.picture.face import FrameWork

CLIPS = ("portrait", "group")
TEMPLATE = geometry.template("ffhq_512", 1)
VISIBLE = 0.8
Found = dict[int, dict[int, np.ndarray]]
"""Frame -> person -> landmarks f64[5,2]."""
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Detection on every frame and tracking between keyframes, each against the truth."""

    recall: dict[str, float]
    """By side, `detected` and `tracked`."""
    detected: dict[str, float]
    """Errors by name, % of the eye distance."""
    tracked: dict[str, float]

    @property
    def ratio(self) -> dict[str, float]:
        """The tracked side's errors over the detected side's."""
        return {key: value / max(self.detected[key], 1e-9) for key, value in self.tracked.items()}


def tracking(clips: list[str], interval: int, live: bool, phases: bool, rounds: int, threads: int) -> Table:
    """Rows for each clip, and for each of its phases where asked for."""
    cv2.setNumThreads(1)
    rows: list[Row] = []
    for clip in clips or CLIPS:
        rows += _rows(clip, interval, live, phases, rounds, threads)
    columns = {"clip": "clip", "what": "figure", "detected": "every frame", "tracked": "keyframes",
               "ratio": "ratio"}  # fmt: skip
    title = f"Detection every {interval} frames with flow between, against detection on every frame"
    notes = ["Errors are medians in % of the eye distance."]
    return Table("tracking", title + (", without look-ahead" if live else ""), columns, rows, notes=notes)


def _rows(clip: str, interval: int, live: bool, phases: bool, rounds: int, threads: int) -> list[Row]:
    truth = truth_of(clip)
    settings = Detect(interval=interval)
    finder = FaceFinder(settings, threads)
    # Decoded and warmed up before: only detection and tracking are timed.
    work = [FrameWork(frame) for frame in FileSource(probe(samples() / f"{clip}.mp4")).frames()]
    finder(work[0].frame)
    spent: dict[str, list[tuple[float, float]]] = {"detected": [], "tracked": []}
    for _ in range(rounds):
        each, took = timed(lambda: [[hit.landmarks for hit in finder(item.frame)] for item in work])
        spent["detected"].append(took)
        tracker = Tracker(finder, settings, Track(lookahead=not live))
        tracked, took = timed(partial(run, tracker, work))
        spent["tracked"].append(took)
    sides = {
        "detected": matched(each, truth),
        "tracked": matched([[face.landmarks for face in item.faces] for item in tracked], truth),
    }
    rows = _figures(clip, compare(sides, truth, range(truth["frames"])))
    for which, unit in ((0, "CPU"), (1, "wall")):
        one, other = (np.array(spent[side])[:, which] / len(work) * 1e3 for side in ("detected", "tracked"))
        rows.append(
            {"clip": clip, "what": f"time a frame, {unit}, ms", "detected": float(np.median(one)),
             "tracked": float(np.median(other)), "ratio": float(np.median(other / one))}
        )  # fmt: skip
    rows.append(
        {"clip": clip, "what": "detections run", "detected": len(work), "tracked": tracker.detections_run,
         "ratio": tracker.detections_run / len(work)}
    )  # fmt: skip
    rows.append(
        {"clip": clip, "what": "false faces", "detected": stray(each, truth),
         "tracked": stray([[face.landmarks for face in item.faces] for item in tracked], truth)}
    )  # fmt: skip
    ids: dict[int, set[int]] = defaultdict(set)
    for index, item in enumerate(tracked):
        for face in item.faces:
            person = nearest(face.landmarks, truth["frames_truth"][index], least_visible=0.5)
            if person is not None:
                ids[person].add(face.track_id)
    rows.append(
        {"clip": clip, "what": f"identities of {len(ids)} people", "tracked": sum(map(len, ids.values()))}
    )
    for phase in truth["phases"] if phases else ():
        part = compare(sides, truth, range(phase["start"], phase["end"]))
        rows += _figures(f"{clip}: {phase['name']}", part)
    return rows


def _figures(clip: str, found: Comparison) -> list[Row]:
    names = {"rigid": "rigid error, %", "non_rigid": "non-rigid error, %", "jitter": "jitter of the crop, %",
             "rigid_p95": "rigid error, 95th percentile, %", "jitter_p95": "jitter, 95th percentile, %",
             "still": "a still face moves at most, %"}  # fmt: skip
    rows: list[Row] = [
        {"clip": clip, "what": names[key], "detected": found.detected[key], "tracked": value,
         "ratio": found.ratio[key]}
        for key, value in found.tracked.items()
    ]  # fmt: skip
    return [*rows, {"clip": clip, "what": "recall", **found.recall}]


def run(tracker: Tracker, work: list[FrameWork]) -> list[FrameWork]:
    done = [result for item in work for result in tracker.process(item)]
    done += tracker.flush()
    return done


def timed(call: Callable[[], ResultT]) -> tuple[ResultT, tuple[float, float]]:
    """What the call returns, and the seconds that it took: of the process's CPU, and by the clock."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = call()
    return result, (time.process_time() - cpu, time.perf_counter() - wall)


def eyes(marks: np.ndarray) -> float:
    return float(np.linalg.norm(marks[1] - marks[0]))


def nearest(marks: np.ndarray, people: list[PersonTruth], least_visible: float) -> int | None:
    """The person whose landmarks these are, within 0.6 of the spread of the true ones."""
    best, least = None, np.inf
    for person in people:
        true = np.array(person["landmarks"])
        gap = np.linalg.norm(true.mean(axis=0) - marks.mean(axis=0)) / np.ptp(true[:, 1])
        if gap < min(least, 0.6) and person["visible"] >= least_visible:
            best, least = person["id"], gap
    return best


def stray(found: list[list[np.ndarray]], truth: Truth) -> int:
    """Faces that belong to no one at least partly in the frame."""
    return sum(
        nearest(marks, truth["frames_truth"][index], 0.0) is None
        for index, faces in enumerate(found)
        for marks in faces
    )


def matched(found: list[list[np.ndarray]], truth: Truth) -> Found:
    result: Found = {}
    for index, faces in enumerate(found):
        result[index] = {}
        for marks in faces:
            person = nearest(marks, truth["frames_truth"][index], VISIBLE)
            if person is not None:
                result[index].setdefault(person, marks.astype(np.float64))
    return result


def compare(sides: dict[str, Found], truth: Truth, frames: range) -> Comparison:
    """Figures over some frames of both sides, `detected` and `tracked`."""
    true = {
        i: {p["id"]: np.array(p["landmarks"]) for p in truth["frames_truth"][i] if p["visible"] >= VISIBLE}
        for i in frames
    }
    common = {i: [p for p in true[i] if all(p in side[i] for side in sides.values())] for i in frames}
    recall = {
        name: sum(p in side[i] for i in frames for p in true[i]) / max(sum(map(len, true.values())), 1)
        for name, side in sides.items()
    }
    still = [phase for phase in truth["phases"] if phase["name"] == "still"]
    inside = [i for i in frames if still and still[0]["start"] <= i < still[0]["end"]]
    errors = {}
    for name, side in sides.items():
        rigid: list[float] = []
        shape: list[float] = []
        jitter: list[float] = []
        for i in frames:
            for p in common[i]:
                r, s = split_error(side[i][p], true[i][p])
                rigid.append(r)
                shape.append(s)
                if p in common.get(i + 1, ()):
                    now, then = (crop_residual(side[k][p], true[k][p]) for k in (i, i + 1))
                    jitter.append(float(np.sqrt(((then - now) ** 2).sum(axis=1).mean())))
        errors[name] = {
            "rigid": percent(rigid), "non_rigid": percent(shape), "jitter": percent(jitter),
            "rigid_p95": percent(rigid, 95), "jitter_p95": percent(jitter, 95),
        }  # fmt: skip
        if inside:
            errors[name]["still"] = stillness([side[i][0] for i in inside if 0 in side[i]])
    return Comparison(recall, errors["detected"], errors["tracked"])


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
    shown = geometry.apply(geometry.chain(to_crop, from_true), TEMPLATE)
    residual: npt.NDArray[np.float64] = (shown - TEMPLATE) / eyes(TEMPLATE)
    return residual


def stillness(marks: list[np.ndarray]) -> float:
    """The furthest that the crop's own points go from their mean place, % of the eye distance."""
    mean = np.mean(marks, axis=0)
    placed = np.array([geometry.apply(geometry.similarity(TEMPLATE, m), TEMPLATE) for m in marks])
    return float(np.linalg.norm(placed - placed.mean(axis=0), axis=-1).max() / eyes(mean) * 100)


def percent(values: list[float], rank: float = 50) -> float:
    return float(np.percentile(values, rank) * 100) if values else float("nan")
