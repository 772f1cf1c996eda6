"""Detections on keyframes, faces on every frame: identity, fusion, and the two runs of the flow."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from stream.config import Detect, Track
from stream.faces.track.association import associate, look_of
from stream.faces.track.flow import EYES, Anchor, Estimate
from stream.faces.track.person import Person, axes_of, blend, calmed, certainty, face_size, relative_box
from stream.faces.track.scene_cuts import SceneCuts
from stream.picture.face import Detection, Face, FrameWork
from stream.picture.frame import Frame

Finder = Callable[[Frame], list[Detection]]

_REST = 5
"""Frames after a detection before doubt alone calls for the next."""
_CLEAR = 0.75
"""Confidence of a track that may do without a detection for one keyframe."""
_LEAST_INSIDE = 0.4
"""A face of which less than this part lies in the picture has left it."""


@dataclass(slots=True, eq=False)
class _HeldFrame:
    """A frame held back, with what is known of each person in it."""

    item: FrameWork
    key: bool = False
    forward: dict[int, Estimate] = field(default_factory=dict)
    backward: dict[int, Estimate] = field(default_factory=dict)
    path: dict[int, float] = field(default_factory=dict)
    """How much motion since the last keyframe has hidden, by person; see `Person.leeway`."""


class Tracker:
    """Stage: FrameWork -> FrameWork with `faces`, in order, none lost.

    With `lookahead` frames are held from keyframe to keyframe, at most `interval` + 1 of them;
    without, each frame is handed on at once.
    """

    def __init__(self, finder: Finder, detect: Detect, track: Track) -> None:
        self._finder = finder
        self._detect, self._track = detect, track
        self._cuts = SceneCuts(detect.scene_cut)
        self._people: list[Person] = []
        self._held: list[_HeldFrame] = []
        self._ended: list[Person] = []
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
        self.forget()

    def warm(self, frame: Frame) -> None:
        """Have the detector made ready for pictures of this size; before `open`."""
        self._finder(frame)

    def forget(self) -> None:
        """What comes next has nothing to do with what was: another picture size, or a long gap."""
        self._cuts = SceneCuts(self._detect.scene_cut)
        self._begin_scene()

    def process(self, item: FrameWork) -> Iterable[FrameWork]:
        """See `Stage.process`."""
        self.frames_tracked += 1
        frame = item.frame
        if self._cuts.is_cut(frame):
            self.scene_cuts += 1
            yield from self._end_scene()
        slot = _HeldFrame(item)
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
        if self._since_key < min(_REST, max(2, interval // 2)):
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
        self._begin_scene()

    def _begin_scene(self) -> None:
        self._held, self._people, self._ended = [], [], []
        self._since_key, self._fresh = 0, True

    def _close_segment(self) -> Iterable[FrameWork]:
        """Frames from the last keyframe to before this one, which stays as the next one's start."""
        held = self._held
        for person in self._people:
            if not person.lost and not person.missed:
                self._trace_back(person)
        for i in range(len(held) - 1):
            yield self._finish(held[i], i / (len(held) - 1))
        self._held, self._ended = held[-1:], []
        held[-1].path = dict.fromkeys(held[-1].path, 0.0)
        for person in self._people:
            person.shown |= person.emitted

    def _carry(self, person: Person, slot: _HeldFrame) -> None:
        """Follow a person to this frame."""
        slot.forward[person.id] = person.carry(slot.item.frame, self._track.min_confidence)
        slot.path[person.id] = person.leeway
        if not self._track.lookahead:
            person.anchor.marks = person.anchor.marks + person.settle() * EYES

    def _trace_back(self, person: Person) -> None:
        """Follow a person from the newest keyframe back to the one before, or to where it came in."""
        guess, step, doubts = person.landmarks, np.zeros(2), 0
        for slot in reversed(self._held[:-1]):
            ahead = slot.forward.get(person.id)
            if slot.key and ahead is not None and person.shown:
                return
            if ahead is not None and person.steady is not None:
                # The same patch again would find the same place.
                marks = ahead.landmarks + person.steady @ axes_of(ahead.landmarks).T
                slot.backward[person.id] = replace(ahead, landmarks=marks)
                continue
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

    def _keyframe(self, slot: _HeldFrame) -> None:
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
                self._confirm(person, hits[pairs[index]], faces[pairs[index]][2], slot)
            else:
                self._miss(person, hits, slot)
        for index, hit in enumerate(hits):
            if index not in pairs.values() and hit.score >= self._detect.min_score:
                self._start(hit, faces[index][2], slot)
        self._ended += [p for p in self._people if not self._worth_keeping(p)]
        self._people = [p for p in self._people if self._worth_keeping(p)]

    def _expected(self, person: Person) -> np.ndarray:
        """Centre at which a person is looked for."""
        centre: np.ndarray = person.landmarks.mean(axis=0) + person.velocity * min(person.lost, 10)
        return centre

    def _worth_keeping(self, person: Person) -> bool:
        return person.lost <= self._track.max_lost and (person.sure or not person.lost)

    def _start(self, hit: Detection, look: np.ndarray, slot: _HeldFrame) -> None:
        marks = hit.landmarks.astype(np.float64)
        sure = hit.score >= self._detect.sure_score
        box = relative_box(hit.box_xyxy, marks)
        anchor = Anchor(slot.item.frame, marks)
        person = Person(self._next_id, marks, box, hit.score, anchor, look, sure, certainty(hit.score))
        self._next_id += 1
        self.tracks += 1
        self._people.append(person)
        slot.forward[person.id] = Estimate(marks, 1.0)

    def _miss(self, person: Person, hits: list[Detection], slot: _HeldFrame) -> None:
        """No detection: the flow may hold a clear face over one keyframe, else it is lost."""
        if person.lost:
            return
        person.missed += 1
        reach = face_size(person.landmarks)
        centre = person.landmarks.mean(axis=0)
        covered = any(np.linalg.norm(hit.landmarks.mean(axis=0) - centre) < reach for hit in hits)
        if person.sure and person.missed < 2 and person.confidence > _CLEAR and not covered:
            return
        person.lost = 1
        slot.forward.pop(person.id, None)

    def _confirm(self, person: Person, hit: Detection, look: np.ndarray, slot: _HeldFrame) -> None:
        person.take(hit, slot.item.frame, at_once=self._track.lookahead)
        person.look = person.look + 0.3 * (look - person.look)
        slot.forward[person.id] = Estimate(person.landmarks, 1.0)

    # --- results --------------------------------------------------------------------------------

    def _finish(self, slot: _HeldFrame, part: float) -> FrameWork:
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

    def _part(self, person: Person, slot: _HeldFrame, part: float) -> float:
        """How far along its own path a face is: corrections go where they are hidden."""
        if person.id not in slot.path or not self._held:
            return part
        whole = self._held[-1].path.get(person.id, 0.0)
        return min(1.0, slot.path[person.id] / whole) if whole else part

    def _face(self, person: Person, at: Estimate, slot: _HeldFrame) -> Face | None:
        width, height = slot.item.frame.view.upright_size
        size = face_size(at.landmarks)
        box = (at.landmarks.mean(axis=0) + person.box * size).reshape(4)
        inside = np.clip(box, 0, (width, height, width, height))
        share = np.prod(inside[2:] - inside[:2]) / max(np.prod(box[2:] - box[:2]), 1e-9)
        if share < _LEAST_INSIDE:
            return None
        return Face(
            track_id=person.id,
            box_xyxy=box.astype(np.float32),
            landmarks=at.landmarks.astype(np.float32),
            score=person.score,
            coasted=not slot.key,
            confidence=at.confidence,
        )
