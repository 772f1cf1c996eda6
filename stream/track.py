"""Detections on keyframes, faces on every frame: identity, fusion, and the two runs of the flow."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from stream import geometry
from stream.association import associate, look_of
from stream.config import Detect, Track
from stream.face import Detection, Face, FrameWork
from stream.flow import EYES, MEAN_FACE, Anchor, Estimate
from stream.frame import Frame
from stream.keyframes import SceneCuts

Finder = Callable[[Frame], list[Detection]]

_FLOOR = 0.2
"""Least gain of a detection over the carried landmarks."""
_NOISE = 0.03
"""Scatter of a detection's landmarks, in eye distances."""
_STILL = 0.0015
"""Steps of this size, in eye distances, are half noise of the flow and are shortened by half."""
_CREEP = 2e-5
"""Correction of a still face's place in a frame, in eye distances: not seen."""
_STIR = 0.002
"""Motion in a frame up to which a face counts as still, in eye distances: noise of the flow."""
_MASKED = 0.15
"""Part of a face's motion that may be added to it or left out unseen."""
_ALIKE = 0.97
"""While the confidence stays above it the reference patch is kept: a new one would add its noise."""
_JUMP = 0.5
"""A detection further off than this, in eye distances, replaces the track's landmarks."""


@dataclass(slots=True, eq=False)
class _Person:
    """A face that is followed."""

    id: int
    landmarks: np.ndarray
    box: np.ndarray
    """f64[2,2] corners relative to the landmarks' centre, in eye distances."""
    score: float
    anchor: Anchor
    look: np.ndarray
    sure: bool
    seen: float
    """Sum of the certainties of the detections that the landmarks rest on."""
    confidence: float = 1.0
    pending: np.ndarray = field(default_factory=lambda: np.zeros((5, 2)))
    """Correction that is known but not yet shown, in the face's axes and eye distances."""
    trust: float = 1.0
    """Certainty of what is shown; a doubtful place is left at once."""
    off: np.ndarray = field(default_factory=lambda: np.zeros((5, 2)))
    """What the last detection left unsettled: a second one that agrees with it is no noise."""
    least: float = 1.0
    """Lowest confidence since the reference patch was taken."""
    steady: np.ndarray | None = None
    """The newest keyframe's correction f64[5,2] in the face's axes, where the patch was kept."""
    leeway: float = 0.0
    """How much of it motion has hidden since the last step, eye distances."""
    shown: bool = False
    """Whether a frame of an earlier segment was handed on with this face."""
    emitted: bool = False
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))
    """px a frame"""
    lost: int = 0
    """Frames since it was last held; 0: it is held."""
    missed: int = 0
    """Keyframes in a row that did not find it."""


@dataclass(slots=True, eq=False)
class _Slot:
    """A frame held back, with what is known of each person in it."""

    item: FrameWork
    key: bool = False
    forward: dict[int, Estimate] = field(default_factory=dict)
    backward: dict[int, Estimate] = field(default_factory=dict)
    path: dict[int, float] = field(default_factory=dict)
    """How much motion since the last keyframe has hidden, by person; see `_Person.leeway`."""


class Tracker:
    """Stage: FrameWork -> FrameWork with `faces`, in order, none lost.

    With `lookahead` frames are held from keyframe to keyframe, at most `interval` + 1 of them;
    without, each frame is handed on at once.
    """

    def __init__(self, finder: Finder, detect: Detect, track: Track) -> None:
        self._finder = finder
        self._detect, self._track = detect, track
        self._cuts = SceneCuts(detect.scene_cut)
        self._people: list[_Person] = []
        self._held: list[_Slot] = []
        self._ended: list[_Person] = []
        self._fresh = True
        self._since_key = 0
        self._next_id = 0
        self.detections_run = 0
        self.frames_tracked = 0
        self.tracks = 0
        self.scene_cuts = 0

    def open(self) -> None:
        """Nothing to acquire."""

    def close(self) -> None:
        """Forget everything that is held."""
        self._held.clear()
        self._people.clear()

    def process(self, item: FrameWork) -> Iterable[FrameWork]:
        """See `Stage.process`."""
        self.frames_tracked += 1
        frame = item.frame
        if self._cuts.is_cut(frame):
            self.scene_cuts += 1
            yield from self._end_scene()
        slot = _Slot(item)
        self._held.append(slot)
        self._since_key += 1
        for person in self._people:
            if not person.lost:
                self._carry(person, slot)
        if self._fresh or self._due():
            self._keyframe(slot)
        if not self._track.lookahead:
            yield self._finish(self._held.pop(), 0.0)
        elif slot.key:
            yield from self._close_segment()

    def flush(self) -> Iterable[FrameWork]:
        """See `Stage.flush`."""
        yield from self._end_scene()

    # --- frames ---------------------------------------------------------------------------------

    def _due(self) -> bool:
        interval = self._detect.interval
        if self._since_key >= interval:
            return True
        if self._since_key < max(2, interval // 2):
            return False
        limit = self._track.min_confidence
        return any(not p.lost and p.confidence < limit for p in self._people)

    def _end_scene(self) -> Iterable[FrameWork]:
        """Hand on everything held; the last frame is looked at, so that it serves as a keyframe."""
        if self._track.lookahead and len(self._held) > 2:
            self._keyframe(self._held[-1])
            yield from self._close_segment()
        for slot in self._held:
            yield self._finish(slot, 0.0)
        self._held, self._people, self._ended = [], [], []
        self._since_key, self._fresh = 0, True

    def _close_segment(self) -> Iterable[FrameWork]:
        """Frames from the last keyframe to before this one, which stays as the next one's start."""
        held = self._held
        for person in self._people:
            if not person.lost and person.id in held[-1].forward:
                self._trace_back(person)
        for i in range(len(held) - 1):
            yield self._finish(held[i], i / (len(held) - 1))
        self._held, self._ended = held[-1:], []
        for person in self._people:
            person.shown |= person.emitted

    def _carry(self, person: _Person, slot: _Slot) -> None:
        """Follow a person to this frame."""
        guess = person.landmarks + person.velocity
        found = person.anchor.follow(slot.item.frame, guess)
        if found.confidence < self._track.min_confidence:
            still = person.anchor.follow(slot.item.frame, person.landmarks)
            found = max(found, still, key=lambda e: e.confidence)
        found = calmed(found, person.landmarks)
        moved = found.landmarks - person.landmarks
        person.confidence = found.confidence
        person.least = min(person.least, found.confidence)
        if found.confidence > 0.1:
            person.velocity = 0.3 * person.velocity + 0.7 * moved.mean(axis=0)
            person.landmarks = found.landmarks
            motion = spread(moved) / face_size(found.landmarks)
            person.leeway += _CREEP + _MASKED * max(0.0, motion - _STIR)
            if not self._track.lookahead:
                person.anchor.marks = person.anchor.marks + self._settle(person) * EYES
        slot.forward[person.id] = replace(found, landmarks=person.landmarks)
        slot.path[person.id] = person.leeway

    def _trace_back(self, person: _Person) -> None:
        """Follow a person from the newest keyframe back to the one before, or to where it came in."""
        guess, step, doubts = person.landmarks, np.zeros(2), 0
        for slot in reversed(self._held[:-1]):
            ahead = slot.forward.get(person.id)
            if ahead is not None and person.steady is not None:
                # The same patch again would find the same place.
                marks = ahead.landmarks + person.steady @ _axes(ahead.landmarks).T
                slot.backward[person.id] = replace(ahead, landmarks=marks)
                continue
            if slot.key and ahead is not None and person.shown:
                return
            if ahead is not None and ahead.confidence >= self._track.min_confidence:
                start = ahead.landmarks
            else:
                start = guess + step
            found = person.anchor.follow(slot.item.frame, start)
            if found.confidence < self._track.min_confidence:
                doubts += 1
                if doubts > 2:
                    return
                continue
            found, doubts = calmed(found, guess), 0
            step = found.landmarks.mean(axis=0) - guess.mean(axis=0)
            guess = found.landmarks
            slot.backward[person.id] = found

    # --- keyframes ------------------------------------------------------------------------------

    def _keyframe(self, slot: _Slot) -> None:
        """Run the detector and bring its faces and the tracks together."""
        self.detections_run += 1
        slot.key = True
        age, self._since_key, self._fresh = self._since_key, 0, False
        frame = slot.item.frame
        hits = self._finder(frame)
        faces = [
            (hit.landmarks.mean(axis=0), face_size(hit.landmarks), look_of(frame, hit.landmarks))
            for hit in hits
        ]
        for person in self._people:
            person.lost += age if person.lost else 0
        known = [(self._expected(p), face_size(p.landmarks), p.look) for p in self._people]
        slack = [min(2.0, p.lost / 12) for p in self._people]
        pairs = dict(associate(known, faces, slack))
        for index, person in enumerate(self._people):
            if index in pairs:
                self._fuse(person, hits[pairs[index]], faces[pairs[index]][2], slot)
            else:
                self._miss(person, slot)
        for index, hit in enumerate(hits):
            if index not in pairs.values() and hit.score >= self._detect.min_score:
                self._start(hit, faces[index][2], slot)
        self._ended += [p for p in self._people if not self._worth_keeping(p)]
        self._people = [p for p in self._people if self._worth_keeping(p)]

    def _expected(self, person: _Person) -> np.ndarray:
        """Centre at which a person is looked for."""
        return person.landmarks.mean(axis=0) + person.velocity * min(person.lost, 10)

    def _worth_keeping(self, person: _Person) -> bool:
        return person.lost <= self._track.max_lost and (person.sure or not person.lost)

    def _start(self, hit: Detection, look: np.ndarray, slot: _Slot) -> None:
        marks = hit.landmarks.astype(np.float64)
        sure = hit.score >= self._detect.sure_score
        box = relative_box(hit.box_xyxy, marks)
        anchor = Anchor(slot.item.frame, marks)
        person = _Person(self._next_id, marks, box, hit.score, anchor, look, sure, certainty(hit.score))
        self._next_id += 1
        self.tracks += 1
        self._people.append(person)
        slot.forward[person.id] = Estimate(marks, 1.0)

    def _miss(self, person: _Person, slot: _Slot) -> None:
        """No detection: the flow may hold a clear face over one keyframe, else it is lost."""
        person.missed += 1
        if not person.lost and person.sure and person.missed < 2 and person.confidence > 0.75:
            return
        if not person.lost:
            person.lost = 1
            slot.forward.pop(person.id, None)

    def _fuse(self, person: _Person, hit: Detection, look: np.ndarray, slot: _Slot) -> None:
        """Move the carried landmarks towards the detected ones, and take a new reference patch."""
        marks = hit.landmarks.astype(np.float64)
        axes = _axes(person.landmarks)
        off = (marks - person.landmarks) @ np.linalg.inv(axes).T
        if person.lost or spread(off) > _JUMP:
            gain = 1.0
            person.landmarks, person.seen = marks, certainty(hit.score)
            if person.lost:
                person.shown = person.emitted = False
            person.velocity, person.pending, person.off = np.zeros(2), np.zeros((5, 2)), np.zeros((5, 2))
        else:
            off = off - person.pending
            gain = self._gain(person, off, hit.score)
            person.pending, person.off = person.pending + gain * off, (1 - gain) * off
        person.box = person.box + max(gain, 0.2) * (relative_box(hit.box_xyxy, marks) - person.box)
        person.look = person.look + 0.3 * (look - person.look)
        person.score, person.confidence = hit.score, 1.0
        person.lost = person.missed = 0
        person.sure = True
        step = self._settle(person) if self._track.lookahead else np.zeros((5, 2))
        person.landmarks = person.landmarks + step @ _axes(person.landmarks).T
        person.steady = step if gain < 1 and person.least >= _ALIKE else None
        if person.steady is None:
            person.anchor, person.least = Anchor(slot.item.frame, person.landmarks), 1.0
        else:
            person.anchor.marks = person.anchor.marks + step * EYES
        slot.forward[person.id] = Estimate(person.landmarks, 1.0)

    def _gain(self, person: _Person, off: np.ndarray, score: float) -> float:
        """How far to go towards a detection that is `off` f64[5,2], in eye distances.

        About 1/n, each detection weighing by its score; more where it is off by much, or twice in
        the same direction, or where the flow is weak.
        """
        weight = certainty(score)
        gain = max(_FLOOR, weight / (person.seen + weight)) * min(1.0, 1.2 * score)
        person.trust = min(person.seen, 1.0)
        person.seen += weight
        common = max(0.0, float((off * person.off).sum(axis=1).mean()))
        person.off = off
        surprise = 1 - (3 * _NOISE / max(spread(off), 1e-6)) ** 2
        steady = 1 - _NOISE**2 / max(common, 1e-9)
        return float(np.clip(max(gain, surprise, steady, 0.5 - score * person.confidence), 0, 1))

    def _settle(self, person: _Person) -> np.ndarray:
        """Take from the pending correction f64[5,2] what the face's own motion hides, eye distances.

        A correction of a still face would be seen as movement; in a moving one it is not noticed.
        """
        size = spread(person.pending)
        allowed = max(person.leeway, size - _NOISE, size * (1 - person.trust))
        step = person.pending * (min(1.0, allowed / size) if person.shown and size > 0 else 1.0)
        person.pending = person.pending - step
        person.leeway = 0.0
        return step

    # --- results --------------------------------------------------------------------------------

    def _finish(self, slot: _Slot, part: float) -> FrameWork:
        """The frame with its faces; `part` 0 is the earlier keyframe, 1 the later one."""
        faces = []
        for person in self._people + self._ended:
            if not person.sure:
                continue
            ahead, behind = slot.forward.get(person.id), slot.backward.get(person.id)
            # Before its first frame is handed on, both detections count alike in all of them.
            best = blend(ahead, behind, self._part(person, slot, part) if person.shown else 1.0)
            if best is None or best.confidence < self._track.min_confidence:
                continue
            faces.append(self._face(person, best, slot))
            person.emitted = True
            person.shown |= not self._track.lookahead
        return replace(slot.item, faces=tuple(face for face in faces if face is not None))

    def _part(self, person: _Person, slot: _Slot, part: float) -> float:
        """How far along its own path a face is: corrections go where they are hidden."""
        if not slot.path.get(person.id):
            return part if person.id not in slot.path else 0.0
        whole = self._held[-1].path.get(person.id, 0.0)
        return min(1.0, slot.path[person.id] / whole) if whole else part

    def _face(self, person: _Person, at: Estimate, slot: _Slot) -> Face | None:
        width, height = slot.item.frame.view.upright_size
        size = face_size(at.landmarks)
        box = (at.landmarks.mean(axis=0) + person.box * size).reshape(4)
        inside = np.clip(box, 0, (width, height, width, height))
        share = np.prod(inside[2:] - inside[:2]) / max(np.prod(box[2:] - box[:2]), 1e-9)
        if share < 0.4:
            return None
        return Face(
            track_id=person.id,
            box_xyxy=box.astype(np.float32),
            landmarks=at.landmarks.astype(np.float32),
            score=person.score,
            coasted=not slot.key,
            confidence=at.confidence,
        )


def blend(ahead: Estimate | None, behind: Estimate | None, part: float) -> Estimate | None:
    """Between two runs: `part` 0 is the earlier keyframe, 1 the later. Far apart, the surer wins."""
    if ahead is None or behind is None:
        return ahead or behind
    gap = np.abs(ahead.landmarks - behind.landmarks).max() / face_size(ahead.landmarks)
    if gap > 0.35:
        return max(ahead, behind, key=lambda e: e.confidence)
    weight, other = (1 - part) * ahead.confidence, part * behind.confidence
    share = other / max(weight + other, 1e-9)
    marks = ahead.landmarks + share * (behind.landmarks - ahead.landmarks)
    return Estimate(marks, max(ahead.confidence, behind.confidence))


def calmed(found: Estimate, before: np.ndarray) -> Estimate:
    """The estimate with its step from the landmarks `before` shortened where that is mostly noise."""
    step = found.landmarks - before
    power = (spread(step) / face_size(before)) ** 2
    return replace(found, landmarks=before + step * (power / (power + _STILL**2)))


def face_size(landmarks: np.ndarray) -> float:
    """Eye distance of the mean face that spans as much, px: it does not shrink in a turned head."""
    return max(geometry.scale_of(geometry.similarity(MEAN_FACE, landmarks)) * EYES, 1e-3)


def certainty(score: float) -> float:
    """Weight of a detection's landmarks; a half-hidden face scores low and is off by much."""
    return float(np.clip((score - 0.25) / 0.5, 0.1, 1.0) ** 2)


def spread(offsets: np.ndarray) -> float:
    """Root mean square length of offsets [5,2]."""
    return float(np.sqrt((np.asarray(offsets, np.float64) ** 2).sum(axis=1).mean()))


def _axes(landmarks: np.ndarray) -> np.ndarray:
    """The face's right and down as columns f64[2,2], one eye distance long, upright px."""
    return geometry.similarity(MEAN_FACE, landmarks)[:, :2] * EYES


def relative_box(box_xyxy: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Box corners f64[2,2] relative to the landmarks' centre, in eye distances."""
    return (box_xyxy.reshape(2, 2).astype(np.float64) - landmarks.mean(axis=0)) / face_size(landmarks)
