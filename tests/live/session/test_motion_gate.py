"""The motion gate: what opens it, what does not, and what a frame costs while it is closed."""

import time
from fractions import Fraction

import av
import numpy as np
import pytest

from stream.config_live import MotionSettings
from stream.live.session.motion_gate import MotionGate
from stream.picture.colour import Colour
from stream.picture.frame import Frame, Timestamp, View

RATE = 25
WIDTH, HEIGHT = 640, 360
_Y, _X = np.mgrid[:HEIGHT, :WIDTH]
SCENE = (110 + 60 * np.sin(_X / 40) + 30 * np.sin(_Y / 17)).astype(np.float32)


def frame(index: int, luma: np.ndarray) -> Frame:
    picture = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
    np.frombuffer(picture.planes[0], np.uint8).reshape(HEIGHT, -1)[:, :WIDTH] = np.clip(luma, 0, 255)
    pts = round(index * 90000 / RATE)
    return Frame(
        index, Timestamp(pts, Fraction(1, 90000)), picture, View(WIDTH, HEIGHT), Colour(1, 1, 1, False)
    )


def noisy(index: int, sigma: float) -> np.ndarray:
    return SCENE + np.random.default_rng(index).normal(0, sigma, SCENE.shape).astype(np.float32)


def with_person(luma: np.ndarray, x: int, height: int = 70) -> np.ndarray:
    luma = luma.copy()
    luma[150 : 150 + height, x : x + height // 3] = 30
    return luma


def gate(**settings) -> MotionGate:
    return MotionGate(MotionSettings(**{"gate": True, "hold_s": 2.0, "idle_fps": 1.0} | settings))


def admitted(motion: MotionGate, lumas) -> list[bool]:
    return [motion.admit(frame(index, luma)) for index, luma in enumerate(lumas)]


def test_without_a_gate_every_frame_goes_on():
    assert all(admitted(gate(gate=False), [SCENE] * 200))


@pytest.mark.parametrize("sigma", [0.0, 3.0, 8.0])
def test_noise_does_not_keep_it_open_and_the_sinks_get_one_frame_a_second(sigma):
    motion = gate()
    went = admitted(motion, (noisy(index, sigma) for index in range(8 * RATE)))
    assert all(went[: 2 * RATE]) and motion.closed
    assert 4 <= sum(went[3 * RATE :]) <= 6


def test_a_person_who_walks_in_opens_it_at_once_and_it_stays_open_for_a_while():
    motion = gate()
    admitted(motion, [noisy(index, 3.0) for index in range(4 * RATE)])
    assert motion.closed
    walk = [with_person(noisy(index, 3.0), 4 * (index - 4 * RATE)) for index in range(4 * RATE, 6 * RATE)]
    went = [motion.admit(frame(4 * RATE + at, luma)) for at, luma in enumerate(walk)]
    assert all(went[3:]) and not motion.closed


def test_light_that_changes_all_over_does_not_open_it():
    motion = gate()
    admitted(motion, [SCENE] * (4 * RATE))
    for index in range(4 * RATE, 8 * RATE):
        motion.admit(frame(index, SCENE + 0.3 * (index - 4 * RATE)))
        assert motion.closed


def test_sensitivity_decides_how_faint_a_motion_opens_it():
    opened = []
    for sensitivity in (0.0, 0.5, 1.0):
        motion = gate(sensitivity=sensitivity)
        admitted(motion, [SCENE] * (4 * RATE))
        faint = SCENE.copy()
        faint[100:140, 200:240] += 9
        motion.admit(frame(4 * RATE, faint))
        opened.append(not motion.closed)
    assert opened == [False, True, True]


def test_without_idle_frames_nothing_goes_on_while_it_is_closed():
    motion = gate(idle_fps=0.0)
    went = admitted(motion, [SCENE] * (6 * RATE))
    assert not any(went[3 * RATE :])


def test_another_picture_size_opens_it():
    motion = gate()
    admitted(motion, [SCENE] * (4 * RATE))
    small = av.VideoFrame(320, 320, "yuv420p")
    time_ = Timestamp(4 * 90000, Fraction(1, 90000))
    assert motion.admit(Frame(100, time_, small, View(320, 320), Colour(1, 1, 1, False)))
    assert not motion.closed


def test_a_closed_gate_costs_at_most_a_millisecond_of_cpu_a_frame():
    motion = gate()
    frames = [frame(index, noisy(index, 3.0)) for index in range(12)]
    admitted(motion, [SCENE] * (4 * RATE))
    best = min(_cpu_ms(motion, frames) for _ in range(5))
    assert best <= 1.0


def _cpu_ms(motion: MotionGate, frames: list[Frame]) -> float:
    began = time.thread_time()
    for one in frames:
        motion.admit(one)
    return 1e3 * (time.thread_time() - began) / len(frames)
