"""Every kind of damage is measured: its spectrum, width, noise level, block grid, rows or colours."""

from __future__ import annotations

import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest
from conftest import SAMPLES

from stream.lab.damage import LEVELS, compression, damage, draw, noise, optics, tape

FACES = sorted((SAMPLES / "faces").glob("*.jpg"))
LUMA = np.array([0.299, 0.587, 0.114])


@pytest.fixture(scope="module")
def faces():
    return [np.ascontiguousarray(cv2.imread(str(path))[16:272, 16:272, ::-1]) for path in FACES]


def psnr(picture, reference):
    return 10 * np.log10(255**2 / np.mean((picture.astype(float) - reference) ** 2))


def grey(level, side=256):
    return np.full((side, side, 3), level, np.float32)


def spread(kernel, angle):
    """Standard deviation of a kernel along a direction, px."""
    axis = np.arange(len(kernel)) - len(kernel) // 2
    x, y = np.meshgrid(axis, axis)
    return np.sqrt(np.sum(kernel * (x * np.cos(angle) + y * np.sin(angle)) ** 2))


@pytest.mark.parametrize("sigma", [0.8, 1.5, 3.0])
def test_a_gaussian_blur_leaves_the_spectrum_that_theory_says(sigma):
    white = np.random.default_rng(0).standard_normal((256, 256, 3)).astype(np.float32) * 40 + 128
    before, after = (np.abs(np.fft.fft2(image[..., 0])) for image in (white, optics.gaussian(white, sigma)))
    for cycles in (8, 20):
        ring = slice(cycles - 2, cycles + 3)
        passed = after[0, ring].sum() / before[0, ring].sum()
        assert passed == pytest.approx(np.exp(-2 * (np.pi * sigma * cycles / 256) ** 2), abs=0.06)


def test_a_disc_and_a_line_are_as_wide_as_they_say():
    for radius in (1.5, 3.0, 6.0):
        kernel = optics.disc_kernel(radius)
        assert kernel.sum() == pytest.approx(1, abs=1e-5)
        assert spread(kernel, 0.3) == pytest.approx(radius / 2, rel=0.1)
    for length, angle in ((6.0, 0.0), (11.0, 0.7), (9.0, 2.0)):
        kernel = optics.line_kernel(length, angle)
        assert kernel.sum() == pytest.approx(1, abs=1e-5)
        assert spread(kernel, angle) == pytest.approx(length / np.sqrt(12), rel=0.1)
        assert spread(kernel, angle + np.pi / 2) < 0.5


def test_motion_blur_blurs_along_its_direction_alone():
    stripes = grey(100)
    stripes[:, ::8] = 200
    assert np.allclose(optics.motion(stripes, 9, np.pi / 2), stripes, atol=3)
    assert optics.motion(stripes, 9, 0.0).std() < 0.3 * stripes.std()


@pytest.mark.parametrize("level", [2.0, 9.0])
def test_a_sensor_s_noise_has_its_level_at_mid_grey_and_half_the_power_in_black(level):
    rng = np.random.default_rng(0)
    assert noise.sensor(grey(127.5), level, 1.0, rng).std() == pytest.approx(level, rel=0.02)
    assert noise.sensor(grey(0.0), level, 1.0, rng).std() == pytest.approx(level * np.sqrt(0.5), rel=0.02)
    alike = noise.sensor(grey(127.5), level, 0.0, rng)
    assert np.allclose(alike[..., 0], alike[..., 2])
    mixed = noise.sensor(grey(127.5), level, 0.5, rng) - 127.5
    assert np.corrcoef(mixed[..., 0].ravel(), mixed[..., 1].ravel())[0, 1] == pytest.approx(0.5, abs=0.03)


def test_grain_is_soft_edged_grey_and_strongest_in_mid_tones():
    rng = np.random.default_rng(0)
    grain = noise.grain(grey(127.5), 6.0, rng) - 127.5
    assert grain.std() == pytest.approx(6.0, rel=0.03)
    assert np.allclose(grain[..., 0], grain[..., 1])
    fine = grain[..., 0]
    assert np.corrcoef(fine[:, 1:].ravel(), fine[:, :-1].ravel())[0, 1] > 0.5
    assert noise.grain(grey(5.0), 6.0, rng).std() < 0.5 * grain.std()


def jumps(picture, period):
    """Mean difference of neighbours across a grid of `period` px, divided by that within it."""
    step = np.abs(np.diff(picture.astype(float) @ LUMA, axis=1)).mean(axis=0)
    at = np.arange(len(step)) % period == period - 1
    return step[at].mean() / step[~at].mean()


def test_jpeg_and_mpeg2_leave_their_grid_of_8_px_and_the_clean_face_has_none(faces):
    assert jumps(faces[0], 8) == pytest.approx(1, abs=0.1)
    assert jumps(compression.jpeg(faces[0], 12), 8) > 1.5
    assert jumps(compression.video([faces[0]] * 3, "mpeg2", 24)[0], 8) > 1.3


@pytest.mark.parametrize(("codec", "rates"), [("h264", (20, 40)), ("h265", (20, 40)), ("mpeg2", (2, 24))])
@pytest.mark.parametrize("side", [256, 90, 38])
def test_a_codec_keeps_order_and_place_costs_more_at_a_coarser_rate_and_repeats_itself(
    faces, codec, rates, side
):
    clip = [cv2.resize(np.roll(faces[1], 4 * i, axis=1), (side, side)) for i in range(5)]
    fine, coarse = (compression.video(clip, codec, rate) for rate in rates)
    assert [picture.shape for picture in fine] == [(side, side, 3)] * 5
    for i, picture in enumerate(fine):
        assert int(np.argmax([psnr(picture, other) for other in clip])) == i
        assert psnr(coarse[i], clip[i]) + 3 < psnr(picture, clip[i])
    for _ in range(3):
        assert np.array_equal(np.stack(compression.video(clip, codec, rates[1])), np.stack(coarse))


def test_interlacing_weaves_rows_of_two_moments_and_a_bob_knows_only_every_other_row(faces):
    now, later = faces[0].astype(np.float32), np.roll(faces[0], 6, axis=1).astype(np.float32)
    woven = tape.combed(now, later)
    assert np.array_equal(woven[::2], now[::2]) and np.array_equal(woven[1::2], later[1::2])
    for rows in (256, 255):
        single = tape.bobbed(now[:rows])
        assert np.array_equal(single[::2], now[:rows:2])
        assert np.allclose(single[1], 0.5 * (now[0] + now[2])) and not np.array_equal(single[1], now[1])
        changed = now[:rows].copy()
        changed[1::2] = 0
        assert np.array_equal(tape.bobbed(changed), single)


def test_colour_moves_against_luma_which_stays():
    picture = grey(128)
    picture[96:160, 96:160] = (200, 80, 80)
    moved = tape.chroma_shifted(picture, 5.0, 2.0, 0.0)
    assert np.abs(moved @ LUMA - picture @ LUMA).max() < 1

    def centre(image):
        red = np.clip(image[..., 0] - image @ LUMA, 0, None)
        y, x = np.mgrid[:256, :256]
        return np.array([(red * x).sum(), (red * y).sum()]) / red.sum()

    assert centre(moved) - centre(picture) == pytest.approx([5, 2], abs=0.1)


def test_levels_grow_worse_repeat_by_seed_and_leave_the_face_in_its_place(faces):
    means, places = [], []
    for number, level in enumerate(LEVELS):
        values = []
        for i, face in enumerate(faces):
            for draw_number in range(3):
                seed = [number, i, draw_number]
                damaged = damage(face, level, np.random.default_rng(seed))
                assert damaged.dtype == np.uint8 and damaged.shape == face.shape
                assert np.array_equal(damaged, damage(face, level, np.random.default_rng(seed)))
                values.append(psnr(damaged, face))
                luma = [(image @ LUMA).astype(np.float32) for image in (damaged, face)]
                luma = [cv2.GaussianBlur(image, (0, 0), 3) for image in luma]
                window = cv2.createHanningWindow((256, 256), cv2.CV_32F)
                (dx, dy), sure = cv2.phaseCorrelate(*luma, window)
                places += [np.hypot(dx, dy)] if sure > 0.3 else []
        means.append(np.mean(values))
    assert all(better > worse + 2 for better, worse in itertools.pairwise(means)), means
    assert len(places) > 50 and max(places) < 0.5, "px"
    assert 36 < means[0] < 42 and 21 < means[-1] < 26, means


def test_a_recipe_can_be_given_instead_of_a_level(faces):
    recipe = draw("medium", np.random.default_rng(3))
    still = replace(recipe, coding="h264", rate=18, scale=1.0, blur_px=0.0, noise_level=0.0, tape="")
    assert psnr(damage(faces[0], still, np.random.default_rng(0)), faces[0]) > 36
    grainy = damage(faces[0], replace(still, noise_level=12.0), np.random.default_rng(0))
    assert psnr(grainy, faces[0]) < 30
    with pytest.raises(KeyError):
        draw("awful", np.random.default_rng(0))
