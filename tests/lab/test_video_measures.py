"""Measures of video, each on a clip with a known result."""

from __future__ import annotations

import math
from itertools import pairwise

import cv2
import numpy as np
import pytest
from conftest import SAMPLES
from PIL import Image

from stream.lab.quality.video_measures import ClipMotion, flicker, landmark_jitter, warping_error

FACES = SAMPLES / "faces"
SIDE = 192


def picture(name: str = "W000815") -> np.ndarray:
    """A portrait at twice its size, so that its edges can be interpolated."""
    return cv2.resize(np.array(Image.open(FACES / f"congress_{name}_0.jpg")), None, fx=2, fy=2)


@pytest.fixture(scope="module")
def panned() -> list[np.ndarray]:
    """A clip of a camera that moves by 3.5 px in x and 2 px in y a frame."""
    frames = []
    for at in range(7):
        there = np.float64([[1, 0, 150 + 3.5 * at], [0, 1, 150 + 2 * at]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        frames.append(cv2.warpAffine(picture(), there, (SIDE, SIDE), flags=flags))
    return frames


@pytest.fixture(scope="module")
def motion(panned) -> ClipMotion:
    return ClipMotion(panned)


def lit(frames, levels):
    return [
        np.clip(frame.astype(int) + level, 0, 255).astype(np.uint8)
        for frame, level in zip(frames, levels, strict=True)
    ]


def noisy(frames, sigma):
    """Frames with the same noise in all channels, so that luma has it too."""
    rng = np.random.default_rng(0)
    noises = [rng.normal(0, sigma, (*frame.shape[:2], 1)) for frame in frames]
    return [
        np.clip(np.rint(frame + noise), 0, 255).astype(np.uint8)
        for frame, noise in zip(frames, noises, strict=True)
    ]


def test_a_known_translation_leaves_no_warping_error(panned, motion):
    steps = [(a / 255.0 - b / 255.0) ** 2 for a, b in pairwise(panned)]
    assert warping_error(panned, motion) < np.mean(steps) / 200
    assert warping_error(panned) == warping_error(panned, panned) == warping_error(panned, motion)


def test_flow_reads_the_neighbour_at_the_known_shift(motion):
    ahead, back = motion.pairs[2]
    x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    for warp, sign in ((ahead, -1), (back, 1)):
        shift = warp.to_neighbour - np.stack([x, y], axis=-1)
        assert np.median(shift[warp.valid], axis=0) == pytest.approx((sign * 3.5, sign * 2), abs=0.1)
    assert (
        not ahead.valid[:, :3].any() and not back.valid[:, -3:].any()
    )  # these px are outside of the other frame


def test_warping_error_of_noise_is_twice_its_variance(panned, motion):
    still = [panned[0]] * 6
    assert warping_error(noisy(still, 4), still) == pytest.approx(2 * (4 / 255) ** 2, rel=0.05)
    # Interpolation averages some of the noise.
    assert warping_error(noisy(panned, 4), motion) == pytest.approx(2 * (4 / 255) ** 2, rel=0.25)


def test_what_is_hidden_in_the_next_frame_is_left_out(panned):
    """A bright card slides over a still face. The px that it covers and uncovers must not count."""
    frames = []
    for at in range(4):
        frame = panned[0].copy()
        frame[60:130, 20 + 12 * at : 70 + 12 * at] = cv2.resize(panned[3][:60, :40], (50, 70))
        frames.append(frame)
    plain = np.mean([(a / 255.0 - b / 255.0) ** 2 for a, b in pairwise(frames)])
    assert warping_error(frames) < plain / 20
    hidden = np.mean([~ahead.valid for ahead, _ in ClipMotion(frames).pairs])
    assert 12 * 70 / SIDE**2 < hidden < 0.25


def test_flicker_of_swinging_light_is_known(panned, motion):
    swinging = lit(panned, [5 * (-1) ** at for at in range(7)])
    assert flicker(swinging, motion) == pytest.approx(8 / 3 * 25, rel=0.03)


def test_flicker_of_noise_is_its_variance_and_of_the_motion_next_to_nothing(panned, motion):
    still = [panned[0]] * 7
    assert flicker(still, still) == 0
    assert flicker(panned, motion) < 0.5
    assert flicker(noisy(still, 4), still) == pytest.approx(16, rel=0.05)


def test_light_that_changes_steadily_is_no_flicker(panned, motion):
    fading = lit(panned, [-3 * at for at in range(7)])
    assert flicker(fading, motion) < flicker(panned, motion) + 0.5


def test_a_blurred_result_is_not_favoured_by_a_flow_of_its_own(panned, motion):
    """The flow is the source's, so that a result cannot hide motion by blurring moving parts."""
    swinging = lit(panned, [5 * (-1) ** at for at in range(7)])
    washed = [cv2.GaussianBlur(frame, (0, 0), 4) for frame in swinging]
    assert flicker(washed, motion) == pytest.approx(flicker(swinging, motion), rel=0.05)


def test_a_cut_does_not_count_and_a_clip_of_cuts_has_no_figure(panned):
    other = cv2.resize(picture("S000185"), (SIDE, SIDE))[::-1].copy()
    cut = [*panned[:3], *[other] * 3]
    assert warping_error(cut) == pytest.approx(warping_error(panned[:3]) * 2 / 4)
    assert flicker(cut, cut) < 1
    unrelated = [panned[0], other, panned[0], other]
    assert math.isnan(warping_error(unrelated)) and math.isnan(flicker(unrelated))


def test_tlme_of_known_jitter_is_known():
    rng = np.random.default_rng(2)
    face = np.float64([[90, 100], [150, 100], [120, 140], [100, 170], [140, 170]])
    walk = np.cumsum(rng.normal(2, 0.0, (3000, 1, 2)), axis=0)
    truth = face + walk
    marks = truth + rng.normal(0, 0.6, truth.shape)
    expected = 0.6 * math.sqrt(math.pi) / 60
    assert landmark_jitter(marks, truth) == pytest.approx(expected, rel=0.03)
    assert landmark_jitter(marks) == pytest.approx(expected, rel=0.03)
    assert landmark_jitter(truth, truth) == 0
    assert landmark_jitter(truth) == pytest.approx(0, abs=1e-12)


def test_too_few_frames_and_other_lengths_are_refused(panned):
    with pytest.raises(ValueError, match="2 frames or more"):
        warping_error(panned[:1])
    with pytest.raises(ValueError, match="3 frames or more"):
        flicker(panned[:2], panned[:2])
    with pytest.raises(ValueError, match="as many frames"):
        flicker(panned, panned[:4])
    with pytest.raises(ValueError, match="3 frames or more"):
        landmark_jitter(np.zeros((2, 5, 2)))
