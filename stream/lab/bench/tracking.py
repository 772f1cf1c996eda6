"""Part of `bench detect`: keyframes with optical flow, against detection on every frame.

Both sides use the same detector with the same settings on the same frames of samples/*.mp4. The truth is
in samples/*.truth.json. Errors are shares of the true eye distance: medians over the faces that both
sides found and of which at least 0.8 is visible. The "rigid" error is the motion of the landmarks by the
similarity fitted between truth and estimate; the "non-rigid" error is what remains. "Jitter" is the
change, from frame to frame, of the difference between the crop's transform and the true one. "Still" is
the largest distance of the crop from its mean position while nothing moves. Times are CPU times of the
whole process and wall times.
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
"""Least visible share of a face that counts."""
Found = dict[int, dict[int, np.ndarray]]
"""Landmarks f64[5,2] by frame and person."""
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class TrackingErrors:
    """Errors of detection on every frame and of tracking between keyframes."""

    recall: dict[str, float]
    """Recall by side, `detected` and `tracked`."""
    detected: dict[str, float]
    """Errors by name, % of the eye distance."""
    tracked: dict[str, float]
    """Errors by name, % of the eye distance."""

    @property
    def ratio(self) -> dict[str, float]:
        """The tracked side's errors divided by the detected side's."""
        return {key: value / max(self.detected[key], 1e-9) for key, value in self.tracked.items()}


def tracking(clips: list[str], interval: int, live: bool, phases: bool, rounds: int, threads: int) -> Table:
    """Measure each clip, and each of its phases if `phases` is set."""
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
    # Decoding and warm-up come first, so that only detection and tracking are timed.
    work = [FrameWork(frame) for frame in FileSource(probe(samples() / f"{clip}.mp4")).frames()]
    finder(work[0].frame)
    times: dict[str, list[tuple[float, float]]] = {"detected": [], "tracked": []}
    for _ in range(rounds):
        each, duration = timed(lambda: [[hit.landmarks for hit in finder(item.frame)] for item in work])
        times["detected"].append(duration)
        tracker = Tracker(finder, settings, Track(lookahead=not live))
        tracked, duration = timed(partial(tracked_by, tracker, work))
        times["tracked"].append(duration)
    sides = {
        "detected": matched(each, truth),
        "tracked": matched([[face.landmarks for face in item.faces] for item in tracked], truth),
    }
    rows = _error_rows(clip, tracking_errors(sides, truth, range(truth["frames"])))
    for which, unit in ((0, "CPU"), (1, "wall")):
        one, other = (np.array(times[side])[:, which] / len(work) * 1e3 for side in ("detected", "tracked"))
        rows.append(
            {"clip": clip, "what": f"time a frame, {unit}, ms", "detected": float(np.median(one)),
             "tracked": float(np.median(other)), "ratio": float(np.median(other / one))}
        )  # fmt: skip
    rows.append(
        {"clip": clip, "what": "detections run", "detected": len(work), "tracked": tracker.detections_run,
         "ratio": tracker.detections_run / len(work)}
    )  # fmt: skip
    rows.append(
        {"clip": clip, "what": "false faces", "detected": false_faces(each, truth),
         "tracked": false_faces([[face.landmarks for face in item.faces] for item in tracked], truth)}
    )  # fmt: skip
    ids: dict[int, set[int]] = defaultdict(set)
    for index, item in enumerate(tracked):
        for face in item.faces:
            person = person_at(face.landmarks, truth["frames_truth"][index], least_visible=0.5)
            if person is not None:
                ids[person].add(face.track_id)
    rows.append(
        {"clip": clip, "what": f"identities of {len(ids)} people", "tracked": sum(map(len, ids.values()))}
    )
    for phase in truth["phases"] if phases else ():
        part = tracking_errors(sides, truth, range(phase["start"], phase["end"]))
        rows += _error_rows(f"{clip}: {phase['name']}", part)
    return rows


def _error_rows(clip: str, found: TrackingErrors) -> list[Row]:
    names = {"rigid": "rigid error, %", "non_rigid": "non-rigid error, %", "jitter": "jitter of the crop, %",
             "rigid_p95": "rigid error, 95th percentile, %", "jitter_p95": "jitter, 95th percentile, %",
             "still": "a still face moves at most, %"}  # fmt: skip
    rows: list[Row] = [
        {"clip": clip, "what": names[key], "detected": found.detected[key], "tracked": value,
         "ratio": found.ratio[key]}
        for key, value in found.tracked.items()
    ]  # fmt: skip
    return [*rows, {"clip": clip, "what": "recall", **found.recall}]


def tracked_by(tracker: Tracker, work: list[FrameWork]) -> list[FrameWork]:
    """The frames after the tracker, in order."""
    done = [result for item in work for result in tracker.process(item)]
    done += tracker.flush()
    return done


def timed(call: Callable[[], ResultT]) -> tuple[ResultT, tuple[float, float]]:
    """The result of the call, and its CPU time and wall time in seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = call()
    return result, (time.process_time() - cpu, time.perf_counter() - wall)


def eye_distance(landmarks: np.ndarray) -> float:
    """Distance of the eyes in landmarks f64[5,2]."""
    return float(np.linalg.norm(landmarks[1] - landmarks[0]))


def person_at(landmarks: np.ndarray, people: list[PersonTruth], least_visible: float) -> int | None:
    """The person whose face has these landmarks, or None.

    The centre may differ by 0.6 of the height of the true landmarks.
    """
    best, least = None, np.inf
    for person in people:
        true = np.array(person["landmarks"])
        gap = np.linalg.norm(true.mean(axis=0) - landmarks.mean(axis=0)) / np.ptp(true[:, 1])
        if gap < min(least, 0.6) and person["visible"] >= least_visible:
            best, least = person["id"], gap
    return best


def false_faces(found: list[list[np.ndarray]], truth: Truth) -> int:
    """Number of found faces that belong to nobody in the frame."""
    return sum(
        person_at(landmarks, truth["frames_truth"][index], 0.0) is None
        for index, faces in enumerate(found)
        for landmarks in faces
    )


def matched(found: list[list[np.ndarray]], truth: Truth) -> Found:
    """The landmarks of each frame, assigned to people who are visible enough."""
    result: Found = {}
    for index, faces in enumerate(found):
        result[index] = {}
        for landmarks in faces:
            person = person_at(landmarks, truth["frames_truth"][index], VISIBLE)
            if person is not None:
                result[index].setdefault(person, landmarks.astype(np.float64))
    return result


def tracking_errors(sides: dict[str, Found], truth: Truth, frames: range) -> TrackingErrors:
    """Errors over some frames; `sides` are `detected` and `tracked`."""
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
        non_rigid: list[float] = []
        jitter: list[float] = []
        for i in frames:
            for p in common[i]:
                parts = split_error(side[i][p], true[i][p])
                rigid.append(parts[0])
                non_rigid.append(parts[1])
                if p in common.get(i + 1, ()):
                    now, then = (crop_residual(side[k][p], true[k][p]) for k in (i, i + 1))
                    jitter.append(float(np.sqrt(((then - now) ** 2).sum(axis=1).mean())))
        errors[name] = {
            "rigid": percent(rigid), "non_rigid": percent(non_rigid), "jitter": percent(jitter),
            "rigid_p95": percent(rigid, 95), "jitter_p95": percent(jitter, 95),
        }  # fmt: skip
        if inside:
            errors[name]["still"] = stillness([side[i][0] for i in inside if 0 in side[i]])
    return TrackingErrors(recall, errors["detected"], errors["tracked"])


def split_error(landmarks: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Rigid and non-rigid error: root mean squares over the landmarks, in eye distances."""
    moved = geometry.apply(geometry.similarity(true, landmarks), true)
    size = eye_distance(true)

    def rms(gap: np.ndarray) -> float:
        return float(np.sqrt((gap**2).sum(axis=1).mean()) / size)

    return rms(moved - true), rms(landmarks - moved)


def crop_residual(landmarks: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Positions of the template's points in this crop minus those in the true crop, in eye distances."""
    to_crop = geometry.similarity(landmarks, TEMPLATE)
    from_true = geometry.invert(geometry.similarity(true, TEMPLATE))
    shown = geometry.apply(geometry.chain(to_crop, from_true), TEMPLATE)
    residual: npt.NDArray[np.float64] = (shown - TEMPLATE) / eye_distance(TEMPLATE)
    return residual


def stillness(landmarks: list[np.ndarray]) -> float:
    """Largest distance of the crop's points from their mean positions, % of the eye distance."""
    mean = np.mean(landmarks, axis=0)
    placed = np.array([geometry.apply(geometry.similarity(TEMPLATE, m), TEMPLATE) for m in landmarks])
    return float(np.linalg.norm(placed - placed.mean(axis=0), axis=-1).max() / eye_distance(mean) * 100)


def percent(values: list[float], rank: float = 50) -> float:
    """A percentile of the values in %, by default the median; NaN without values."""
    return float(np.percentile(values, rank) * 100) if values else float("nan")
