"""Detections on keyframes -> faces in every frame, each with the number of its track."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from stream.config import Detect, Track
from stream.faces.track.association import FaceToMatch, appearance_of, associate
from stream.faces.track.face_axes import axes_of, face_size
from stream.faces.track.flow import Estimate
from stream.faces.track.landmark_filter import blend, damped
from stream.faces.track.person import Person
from stream.faces.track.scene_cuts import SceneCuts
from stream.picture.face import Detection, Face, FrameWork
from stream.picture.frame import Frame
from stream.pipeline.stage import Stage

Finder = Callable[[Frame], list[Detection]]

_MIN_INTERVAL = 5
"""Frames after a keyframe before low confidence alone makes another frame a keyframe."""
_MIN_INSIDE = 0.4
"""A face with a smaller part of its box in the picture has left it."""


@dataclass(slots=True, eq=False)
class _HeldFrame:
    """A frame that is held back, with what is known of each person in it."""

    work: FrameWork
    is_keyframe: bool = False
    forward: dict[int, Estimate] = field(default_factory=dict)
    """Estimates from the previous keyframe, by person."""
    backward: dict[int, Estimate] = field(default_factory=dict)
    """Estimates from the next keyframe, by person."""
    hidden_motion: dict[int, float] = field(default_factory=dict)
    """`LandmarkFilter.hidden_motion` since the last keyframe, by person."""


class Tracker(Stage[FrameWork, FrameWork]):
    """Stage: fills `faces` of each frame; frames leave in order.

    The detector runs on keyframes, at least every `interval` frames. Between them optical flow follows
    each face. With `lookahead` frames are held from keyframe to keyframe, `interval` + 1 of them at most,
    and faces are also followed backwards; without, each frame leaves at once.
    """

    def __init__(self, finder: Finder, detect: Detect, track: Track) -> None:
        self.detections_run = 0
        self.frames_tracked = 0
        self.tracks = 0
        """Tracks begun so far."""
        self.scene_cuts = 0
        self._finder = finder
        self._detect, self._track = detect, track
        self._cuts = SceneCuts(detect.scene_cut)
        self._people: list[Person] = []
        self._ended: list[Person] = []
        """People whose track ended at the newest keyframe: held frames may show them."""
        self._held: list[_HeldFrame] = []
        self._scene_is_new = True
        self._since_keyframe = 0
        self._next_id = 0

    def close(self) -> None:
        """Release all frames and tracks."""
        self.reset()

    def warm_up(self, frame: Frame) -> None:
        """Run the detector on a frame of the size that will come, so that it is compiled; before `open`."""
        self._finder(frame)

    def reset(self) -> None:
        """Forget all frames and tracks, as where the next frame has another size or comes much later."""
        self._cuts = SceneCuts(self._detect.scene_cut)
        self._begin_scene()

    def process(self, work: FrameWork) -> Iterable[FrameWork]:
        """Follow faces to the next frame; yield the frames whose faces are final."""
        self.frames_tracked += 1
        frame = work.frame
        if self._cuts.is_cut(frame):
            self.scene_cuts += 1
            yield from self._end_scene()
        held = _HeldFrame(work)
        self._held.append(held)
        self._since_keyframe += 1
        for person in self._people:
            if not person.lost:
                self._follow(person, held)
        if self._scene_is_new or self._keyframe_is_due():
            self._detect_faces(held)
        if not self._track.lookahead:
            yield self._finish(self._held.pop(), 0.0)
        elif held.is_keyframe:
            yield from self._end_segment()

    def flush(self) -> Iterable[FrameWork]:
        """Yield the frames that are held."""
        yield from self._end_scene()

    # --- scenes and segments --------------------------------------------------------------------

    def _keyframe_is_due(self) -> bool:
        interval = self._detect.interval
        if self._since_keyframe >= interval:
            return True
        if self._since_keyframe < min(_MIN_INTERVAL, max(2, interval // 2)):
            return False
        limit = self._track.min_confidence
        return any(not p.lost and p.position.confidence < limit for p in self._people)

    def _end_scene(self) -> Iterable[FrameWork]:
        """Yield all held frames; the last one becomes a keyframe where frames wait for one."""
        if self._track.lookahead and len(self._held) > 2:
            self._detect_faces(self._held[-1])
            yield from self._end_segment()
        for held in self._held:
            yield self._finish(held, 0.0)
        self._begin_scene()

    def _begin_scene(self) -> None:
        self._held, self._people, self._ended = [], [], []
        self._since_keyframe, self._scene_is_new = 0, True

    def _end_segment(self) -> Iterable[FrameWork]:
        """Yield the frames from the last keyframe to before this one, which begins the next segment."""
        held = self._held
        for person in self._people:
            if person.was_detected:
                self._trace_back(person)
        for i in range(len(held) - 1):
            yield self._finish(held[i], i / (len(held) - 1))
        self._held, self._ended = held[-1:], []
        held[-1].hidden_motion = dict.fromkeys(held[-1].hidden_motion, 0.0)
        for person in self._people:
            person.end_segment()

    def _follow(self, person: Person, held: _HeldFrame) -> None:
        """Follow a person to the newest frame."""
        position = person.position
        held.forward[person.id] = position.follow(held.work.frame, self._track.min_confidence)
        held.hidden_motion[person.id] = position.hidden_motion
        if not self._track.lookahead:
            position.correct_reference(visible=person.emitted_before)

    def _trace_back(self, person: Person) -> None:
        """Follow a person from the newest keyframe back to the one before, or to where it came in."""
        position = person.position
        guess, step, doubts = position.landmarks, np.zeros(2), 0
        for held in reversed(self._held[:-1]):
            forward = held.forward.get(person.id)
            if held.is_keyframe and forward is not None and person.emitted_before:
                return
            if forward is not None and position.kept_step is not None:
                # The same patch would find the same place again.
                marks = forward.landmarks + position.kept_step @ axes_of(forward.landmarks).T
                held.backward[person.id] = replace(forward, landmarks=marks)
                continue
            if forward is not None and forward.confidence >= self._track.min_confidence:
                start = forward.landmarks
            else:
                start = guess + step
            found = position.locate(held.work.frame, start)
            if found.confidence < self._track.min_confidence:
                doubts += 1
                if doubts > 2:
                    return
                continue
            found, doubts = damped(found, guess), 0
            step = found.landmarks.mean(axis=0) - guess.mean(axis=0)
            guess = found.landmarks
            held.backward[person.id] = found

    # --- keyframes ------------------------------------------------------------------------------

    def _detect_faces(self, held: _HeldFrame) -> None:
        """Make a frame a keyframe: run the detector and assign its detections to the people."""
        self.detections_run += 1
        held.is_keyframe = True
        age, self._since_keyframe, self._scene_is_new = self._since_keyframe, 0, False
        frame = held.work.frame
        hits = self._finder(frame)
        faces = [
            FaceToMatch(
                hit.landmarks.mean(axis=0), face_size(hit.landmarks), appearance_of(frame, hit.landmarks)
            )
            for hit in hits
        ]
        for person in self._people:
            person.age(age)
        known = [
            FaceToMatch(p.expected_centre, face_size(p.position.landmarks), p.appearance)
            for p in self._people
        ]
        slack = [min(2.0, p.lost / 12) for p in self._people]
        pairs = dict(associate(known, faces, slack))
        for index, person in enumerate(self._people):
            if index in pairs:
                hit, appearance = hits[pairs[index]], faces[pairs[index]].appearance
                person.confirm(hit, appearance, frame, at_once=self._track.lookahead)
                held.forward[person.id] = Estimate(person.position.landmarks, 1.0)
            else:
                person.miss(hits)
                if person.lost:
                    held.forward.pop(person.id, None)
        for index, hit in enumerate(hits):
            if index not in pairs.values() and hit.score >= self._detect.min_score:
                self._begin_track(hit, faces[index].appearance, held)
        max_lost = self._track.max_lost
        self._ended += [p for p in self._people if not p.is_kept(max_lost)]
        self._people = [p for p in self._people if p.is_kept(max_lost)]

    def _begin_track(self, hit: Detection, appearance: np.ndarray, held: _HeldFrame) -> None:
        sure = hit.score >= self._detect.sure_score
        person = Person(self._next_id, hit, held.work.frame, appearance, sure=sure)
        self._next_id += 1
        self.tracks += 1
        self._people.append(person)
        held.forward[person.id] = Estimate(person.position.landmarks, 1.0)

    # --- results --------------------------------------------------------------------------------

    def _finish(self, held: _HeldFrame, progress: float) -> FrameWork:
        """The frame with its faces; `progress` is 0 at the earlier keyframe and 1 at the later."""
        faces = []
        for person in self._people + self._ended:
            if not person.sure:
                continue
            forward, backward = held.forward.get(person.id), held.backward.get(person.id)
            # While no frame shows the face, all may follow the later keyframe, which fuses both detections.
            part = self._progress_of(person, held, progress) if person.emitted_before else 1.0
            best = blend(forward, backward, part)
            if best is None or best.confidence < self._track.min_confidence:
                continue
            faces.append(self._face(person, best, held))
            person.emit(at_once=not self._track.lookahead)
        return replace(held.work, faces=tuple(face for face in faces if face is not None))

    def _progress_of(self, person: Person, held: _HeldFrame, progress: float) -> float:
        """The progress of a person's own motion between two keyframes: corrections go where it hides them."""
        if person.id not in held.hidden_motion or not self._held:
            return progress
        whole = self._held[-1].hidden_motion.get(person.id, 0.0)
        return min(1.0, held.hidden_motion[person.id] / whole) if whole else progress

    def _face(self, person: Person, at: Estimate, held: _HeldFrame) -> Face | None:
        """The face at an estimate; None where too little of it lies in the picture."""
        width, height = held.work.frame.view.upright_size
        size = face_size(at.landmarks)
        box = (at.landmarks.mean(axis=0) + person.box * size).reshape(4)
        inside = np.clip(box, 0, (width, height, width, height))
        share = np.prod(inside[2:] - inside[:2]) / max(np.prod(box[2:] - box[:2]), 1e-9)
        if share < _MIN_INSIDE:
            return None
        return Face(
            track_id=person.id,
            box_xyxy=box.astype(np.float32),
            landmarks=at.landmarks.astype(np.float32),
            score=person.score,
            coasted=not held.is_keyframe,
            confidence=at.confidence,
        )
