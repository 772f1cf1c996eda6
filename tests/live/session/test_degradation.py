"""The steps of degradation under overload, their order, and the return to full restoration."""

import threading
import time
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace

import av
import numpy as np
from waiting import LIMIT_S

from stream.config import parse_config
from stream.live.session import inlet as inlet_module
from stream.live.session.control import Control
from stream.live.session.degradation import LEVELS, Degradation, PaceSample
from stream.live.session.inlet import Inlet
from stream.live.session.pace_control import PaceControl
from stream.live.status import Drops
from stream.picture.colour import Colour
from stream.picture.face import Face
from stream.picture.frame import Frame, Timestamp, View
from stream.pipeline.channel import Channel

GOOD = PaceSample(delivered=25, late=0, dropped=0, faces=6)
BAD = PaceSample(delivered=15, late=5, dropped=10, faces=6)


class Clock:
    """Gives a Degradation one sample for each second, and notes each change of level with its time."""

    def __init__(self, degradation: Degradation):
        self.degradation, self.now_s, self.changes = degradation, 0.0, []

    def run(self, seconds: int, sample):
        for _ in range(seconds):
            self.now_s += 1
            given = sample(self.degradation) if callable(sample) else sample
            if self.degradation.judge(self.now_s, given):
                self.changes.append((self.now_s, self.degradation.number))
        return self


def with_faces(sample: PaceSample, faces: int) -> PaceSample:
    return PaceSample(sample.delivered, sample.late, sample.dropped, faces)


def test_under_lasting_load_the_levels_follow_in_their_fixed_order():
    clock = Clock(Degradation()).run(40, BAD)
    assert [number for _, number in clock.changes] == [1, 2, 3, 4, 5]
    assert LEVELS[1].keyframes_only and not LEVELS[1].passing and LEVELS[-1].passing
    assert [level.max_faces for level in LEVELS] == [None, None, 4, 2, 1, None]


def test_levels_that_change_nothing_for_the_faces_there_are_are_left_out():
    assert [number for _, number in Clock(Degradation()).run(40, with_faces(BAD, 1)).changes] == [1, 5]
    assert [number for _, number in Clock(Degradation()).run(40, with_faces(BAD, 2)).changes] == [1, 4, 5]


def test_one_hiccup_changes_nothing():
    clock = Clock(Degradation()).run(3, GOOD).run(1, BAD).run(5, GOOD).run(1, BAD).run(10, GOOD)
    assert clock.changes == []


def test_it_recovers_by_itself_one_level_at_a_time_down_to_everything_as_set():
    clock = Clock(Degradation()).run(40, BAD)
    clock.changes.clear()
    clock.run(120, GOOD)
    assert [number for _, number in clock.changes] == [4, 3, 2, 1, 0]
    assert all(b - a >= 5 for (a, _), (b, _) in pairwise(clock.changes))


def test_where_a_level_up_does_not_hold_the_next_try_waits_twice_as_long():
    def needs_level_1(degradation):
        return GOOD if degradation.number >= 1 else BAD

    clock = Clock(Degradation()).run(600, needs_level_1)
    tries = [at_s for at_s, number in clock.changes if number == 0]
    gaps = np.diff(tries)
    assert len(tries) <= 8 and (gaps[1:] > 1.5 * gaps[:-1]).all()
    degraded_s = sum(end_s - at_s for (at_s, number), (end_s, _) in pairwise(clock.changes) if number == 0)
    assert degraded_s < 30, "tries cost little of ten minutes"


def test_after_a_healthy_while_the_first_wait_holds_again():
    clock = Clock(Degradation()).run(300, lambda degradation: GOOD if degradation.number else BAD)
    clock.run(400, GOOD)
    assert clock.degradation.number == 0
    clock.changes.clear()
    clock.run(4, BAD)
    clock.run(20, GOOD)
    (down_s, _), (up_s, _) = clock.changes
    assert up_s - down_s <= 8


def test_without_give_way_nothing_changes():
    assert Clock(Degradation(give_way=False)).run(50, BAD).changes == []


def test_the_pace_is_that_of_the_frames_since_the_last_sample():
    delivery, drops, events = SimpleNamespace(delivered=100, late=9), Drops(), []
    drops.add("overrun", 50)
    target = control()
    pace = PaceControl(Degradation(), target, delivery, drops, lambda *event: events.append(event))
    assert not pace.update(0.0, restores=False)  # what was before does not count
    for now_s in (1.0, 2.0, 3.0, 4.0, 5.0):
        delivery.delivered += 20
        drops.add("paced", 20)  # the user's own wish, and no overload
        assert not pace.update(now_s, restores=True)
    for now_s in (6.0, 7.0):
        delivery.delivered += 20
        delivery.late += 2
        drops.add("overrun")
        drops.add("late")
        changed = pace.update(now_s, restores=True)
    assert changed and target.level == LEVELS[1]
    assert events == [("level_changed", "level 1: restores on keyframes only")]


def test_without_restoration_the_level_stays():
    delivery, drops = SimpleNamespace(delivered=0, late=0), Drops()
    pace = PaceControl(Degradation(), control(), delivery, drops, lambda *event: None)
    for now_s in range(10):
        drops.add("overrun", 10)
        assert not pace.update(float(now_s), restores=False)


# --- what the levels mean for the stages ----------------------------------------------------------


def face(track_id: int, height: float) -> Face:
    box = np.array([0, 0, height * 0.8, height], np.float32)
    return Face(track_id, box, np.zeros((5, 2), np.float32), 0.9, coasted=False, confidence=1.0)


def control(interval: int = 3, level: int = 0) -> Control:
    return Control(parse_config({"restore": {"interval": interval}}), level=LEVELS[level])


def test_level_1_restores_on_keyframes_only_and_keeps_a_longer_interval_that_is_set():
    assert control().restore_mode(10).interval == 3 and not control().restore_mode(10).strict
    degraded = control(level=1).restore_mode(10)
    assert degraded.interval == 10 and degraded.strict
    assert control(interval=30, level=1).restore_mode(10).interval == 30


def test_with_fewer_faces_the_largest_stay_and_two_of_a_size_do_not_take_turns():
    given = control(level=3)
    faces = [face(1, 50), face(2, 100), face(3, 80), face(4, 20)]
    assert [f.track_id for f in given.chosen(faces, (640, 360))] == [2, 3]
    assert given.wanted == 4
    alone = control(level=4)
    for heights in ((100, 99), (99, 100), (95, 105)):
        chosen = alone.chosen([face(1, heights[0]), face(2, heights[1])], (640, 360))
        assert [f.track_id for f in chosen] == [1]
    assert [f.track_id for f in alone.chosen([face(1, 100), face(2, 200)], (640, 360))] == [2]


# --- the inlet -------------------------------------------------------------------------------------


def frame(index: int, age_s: float = 0.0) -> Frame:
    picture = av.VideoFrame(16, 16, "yuv420p")
    time_ = Timestamp(index * 3600, Fraction(1, 90000))
    return Frame(
        index, time_, picture, View(16, 16), Colour(1, 1, 1, False), arrived_at_s=time.monotonic() - age_s
    )


def test_the_freshest_frames_win_and_every_drop_is_counted():
    drops = Drops()
    inlet = Inlet(3, 60.0, drops)
    for index in range(10):
        inlet.put(frame(index))
    inlet.close()
    read = []
    for work in inlet.items():
        read.append(work.frame.index)
        inlet.done()
    assert read == [7, 8, 9] and drops.by_cause == {"overrun": 7}


def test_a_frame_that_is_too_old_is_dropped_as_late():
    drops = Drops()
    inlet = Inlet(4, 60.0, drops)
    for index, age_s in enumerate((100.0, 0.0)):
        inlet.put(frame(index, age_s))
    inlet.close()
    assert [work.frame.index for work in inlet.items()] == [1]
    assert drops.by_cause == {"late": 1}


def test_no_more_frames_are_in_the_stages_than_allowed_and_leaving_wakes_the_reader():
    inlet, entered = Inlet(2, 60.0, Drops()), Channel(16)

    def read():
        for work in inlet.items():
            entered.put(work.frame.index)
        entered.close()

    thread = threading.Thread(target=read)
    thread.start()
    results = iter(entered)
    try:
        for index in range(2):
            inlet.put(frame(index))
            assert next(results) == index
        for index in range(2, 6):
            inlet.put(frame(index))
        assert len(entered) == 0, "two are in the stages, and none is done"
        inlet.done()
        assert next(results) == 5, "what waited meanwhile was replaced by the newest"
    finally:
        inlet.interrupt()
        thread.join(LIMIT_S)
    assert not thread.is_alive() and list(results) == []


def test_slow_stages_lower_the_number_of_frames_that_wait_for_them(monkeypatch):
    now_s = 0.0
    monkeypatch.setattr(inlet_module, "time", SimpleNamespace(monotonic=lambda: now_s))
    inlet = Inlet(8, 0.2, Drops())
    works = inlet.items()
    assert inlet.limit == 8
    inlet.put(replace(frame(0), arrived_at_s=now_s))
    next(works)
    for index in range(1, 20):  # the stages always have a second frame behind the one that is done
        inlet.put(replace(frame(index), arrived_at_s=now_s))
        next(works)
        now_s += 0.05
        inlet.done()
    assert inlet.limit == 3
