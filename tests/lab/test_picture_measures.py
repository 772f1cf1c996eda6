"""Measures of pictures and faces, each on cases with a known result."""

from __future__ import annotations

import math
from statistics import NormalDist

import cv2
import numpy as np
import pytest
import torch
from conftest import SAMPLES
from PIL import Image
from torchvision.models import alexnet

from stream.errors import ModelError
from stream.lab.quality import face_meters, fidelity, picture_measures
from stream.lab.quality.bootstrap import paired_bootstrap
from stream.lab.quality.classical_filters import UNSHARP_AMOUNT, UNSHARP_SIGMA, non_local_means, unsharp
from stream.lab.quality.face_meters import IdentityMeter, LandmarkMeter

FACES = SAMPLES / "faces"


def read(name: str) -> np.ndarray:
    return np.array(Image.open(FACES / f"congress_{name}_0.jpg"))[16:-16, 16:-16].copy()


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    return read("W000815")


def blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), sigma)


def noisy(picture: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma, picture.shape)
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


def grey(luma: np.ndarray) -> np.ndarray:
    return np.repeat(np.clip(np.rint(luma), 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def step(slant: float = 0.0) -> np.ndarray:
    """A step from level 60 to level 180 in the middle, slanted by `slant` px a row."""
    rows, columns = np.mgrid[:128, :128]
    return grey(np.clip(columns - 63.5 - slant * (rows - 64) + 0.5, 0, 1) * 120 + 60)


# --- PSNR and SSIM of arrays ---------------------------------------------------------------------


def test_psnr_is_what_its_formula_says():
    black = np.zeros((16, 16, 3), np.uint8)
    assert fidelity.psnr(black, black) == math.inf
    assert fidelity.psnr(black, black + 255) == pytest.approx(0)
    assert fidelity.psnr(black, black + 16) == pytest.approx(20 * math.log10(255 / 16))
    half = black.copy()
    half[:8] = 10
    assert fidelity.psnr(black, half) == pytest.approx(20 * math.log10(255 / 10) + 10 * math.log10(2))
    mask = np.zeros((16, 16), bool)
    mask[:8] = True
    assert fidelity.psnr(black, half, mask) == pytest.approx(20 * math.log10(255 / 10))
    assert fidelity.psnr(np.zeros(4), np.full(4, 0.1), peak=1.0) == pytest.approx(20)


def test_ssim_of_flat_pictures_is_its_luminance_term():
    """The SSIM of pictures without variance is (2ab + C1) / (a^2 + b^2 + C1) with C1 = (0.01 * 255)^2."""
    one, other = (np.full((32, 32, 3), value, np.uint8) for value in (100, 120))
    c1 = (0.01 * 255) ** 2
    assert fidelity.ssim(one, one) == pytest.approx(1)
    assert fidelity.ssim(one, other) == pytest.approx((2 * 100 * 120 + c1) / (100**2 + 120**2 + c1), rel=1e-6)
    noise = np.random.default_rng(0).integers(0, 256, one.shape).astype(np.uint8)
    assert fidelity.ssim(one, noise) < 0.1


# --- figures of pictures ------------------------------------------------------------------------


def test_psnr_of_a_known_error_is_known(clean):
    dark = np.minimum(clean, 250)
    assert picture_measures.psnr(dark + 5, dark) == pytest.approx(20 * math.log10(255 / 5))
    assert picture_measures.psnr(clean, clean) == math.inf


def test_equal_pictures_have_the_best_figures(clean):
    found = picture_measures.figures(clean, clean)
    best = {"ssim": 1, "gmsd": 0, "haarpsi": 1, "vif": 1, "sharpness": 1, "overshoot": 0}
    for name, value in best.items():
        assert found[name] == pytest.approx(value, abs=2e-4), name
    assert set(found) <= set(picture_measures.BETTER)


def test_every_index_gets_worse_with_blur_and_with_noise(clean):
    for damage in (blurred, noisy):
        at = [picture_measures.figures(damage(clean, amount), clean) for amount in (0.7, 1.5, 4)]
        for name in ("psnr", "ssim", "gmsd", "haarpsi", "vif"):
            values = [picture_measures.BETTER[name] * each[name] for each in at]
            assert values[0] > values[1] > values[2], (damage, name)


def test_sharpness_is_an_energy_half_the_contrast_is_a_quarter_of_it():
    wave = np.sin(np.arange(256) * 2 * np.pi * 0.4)[None, :] * np.ones((256, 1))
    assert picture_measures.sharpness(grey(128 + 40 * wave), grey(128 + 80 * wave)) == pytest.approx(
        0.25, rel=0.02
    )


def test_sharpness_counts_half_the_amplitude_at_an_eighth_of_a_period_a_pixel():
    def wave(frequency):
        return grey(128 + 80 * np.sin(np.arange(256) * 2 * np.pi * frequency)[None, :] * np.ones((256, 1)))

    assert picture_measures.sharpness(wave(0.125), wave(0.45)) == pytest.approx(0.25, rel=0.03)


def test_blur_takes_sharpness_and_unsharp_masking_gives_it(clean):
    assert picture_measures.sharpness(blurred(clean, 1.5), clean) < 0.3
    assert picture_measures.sharpness(unsharp(clean), clean) > 1.5


def test_overshoot_of_a_sharpened_step_is_known():
    excess = 1 - NormalDist().cdf(0.5 / UNSHARP_SIGMA)
    assert picture_measures.overshoot(unsharp(step()), step()) == pytest.approx(
        UNSHARP_AMOUNT * excess, rel=0.03
    )
    for amount in (0.1, 0.4):
        values = step().astype(np.float32)
        sharper = grey((values + amount * (values - blurred(values, 2)))[..., 0])
        expected = amount * (1 - NormalDist().cdf(0.25))
        assert picture_measures.overshoot(sharper, step()) == pytest.approx(expected, rel=0.05)


def test_overshoot_hardly_depends_on_the_edges_direction():
    straight = picture_measures.overshoot(unsharp(step()), step())
    for turned in (np.rot90(step()), np.rot90(step(), 2), step(0.35), step(0.7), np.rot90(step(1))):
        reference = np.ascontiguousarray(turned)
        # An edge between px has no px at the brightest point of its halo.
        assert picture_measures.overshoot(unsharp(reference), reference) == pytest.approx(straight, rel=0.3)


def test_blur_and_noise_are_no_overshoot():
    for sigma in (0.5, 1.5, 4):
        assert picture_measures.overshoot(blurred(step(), sigma), step()) == 0
    for sigma in (2, 5):
        assert picture_measures.overshoot(noisy(step(), sigma), step()) < 0.01


def test_overshoot_shows_on_a_face_too_and_is_none_without_edges(clean):
    assert picture_measures.overshoot(blurred(clean, 1), clean) < 0.005
    assert picture_measures.overshoot(noisy(clean, 4), clean) < 0.01
    assert picture_measures.overshoot(unsharp(clean), clean) > 0.05
    flat = np.full((96, 96, 3), 128, np.uint8)
    assert picture_measures.overshoot(noisy(flat, 3), flat) == 0


def test_pictures_of_other_kinds_are_refused(clean):
    for wrong in (clean.astype(np.float32), clean[:32, :32], clean[..., 0]):
        with pytest.raises(ValueError, match="expected RGB u8"):
            picture_measures.psnr(wrong, wrong)
    with pytest.raises(ValueError, match="one size"):
        picture_measures.ssim(clean[:128], clean)


def test_lpips_is_taken_where_its_weights_are_and_never_fetched(clean, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert not picture_measures.lpips_present()
    assert "lpips" not in picture_measures.indices(clean, clean)

    net = alexnet()
    # LPIPS does not use its 58 million other weights, so one number stands for all of them.
    state = {
        name: value if name.startswith("features") else torch.zeros(1).expand(value.shape)
        for name, value in net.state_dict().items()
    }
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(state, folder / "alexnet-owt-7be5be79.pth")
    assert picture_measures.lpips_present()
    assert picture_measures.indices(clean, clean)["lpips"] == pytest.approx(0, abs=1e-6)
    near, far = (picture_measures.indices(blurred(clean, sigma), clean)["lpips"] for sigma in (0.7, 4))
    assert 0 < near < far


# --- classical filters --------------------------------------------------------------------------


def test_unsharp_masking_is_the_stated_formula():
    ramp = grey(np.tile(np.linspace(20, 220, 128), (128, 1)))
    assert np.abs(unsharp(ramp)[8:-8, 8:-8].astype(int) - ramp[8:-8, 8:-8]).max() <= 1  # nothing to sharpen
    edge = unsharp(step())[64, :, 0].astype(int)
    excess = 120 * (1 - NormalDist().cdf(0.5 / UNSHARP_SIGMA))
    assert edge.max() - 180 == pytest.approx(UNSHARP_AMOUNT * excess, abs=1.5)


def test_non_local_means_takes_noise_and_keeps_colours():
    red = np.zeros((96, 96, 3), np.uint8)
    red[...] = (200, 60, 30)
    bad = noisy(red, 3)
    good = non_local_means(bad)
    assert picture_measures.psnr(good, red) > picture_measures.psnr(bad, red) + 5
    assert good.mean(axis=(0, 1)) == pytest.approx((200, 60, 30), abs=2)


# --- faces --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def landmarks() -> LandmarkMeter:
    return LandmarkMeter()


def test_landmarks_of_a_shifted_face_are_off_by_the_shift(landmarks, clean):
    assert landmarks.distance(clean, clean) == 0
    marks = landmarks.find(clean).landmarks
    eyes = np.linalg.norm(marks[1] - marks[0])
    shifted = np.roll(clean, 4, axis=1)  # the detector's stride, so that its grid has no effect
    assert landmarks.distance(shifted, clean) == pytest.approx(4 / eyes, rel=0.15)


def test_where_no_face_is_there_is_no_distance(landmarks, clean):
    flat = np.full_like(clean, 120)
    assert landmarks.distance(flat, clean) is None
    assert landmarks.distance(clean, flat) is None
    assert IdentityMeter(landmarks).distance(clean, flat) is None


def test_a_damaged_face_is_nearer_to_itself_than_another_person_is(landmarks, clean):
    meter = IdentityMeter(landmarks)
    assert meter.distance(clean, clean) == pytest.approx(0, abs=1e-6)
    near, far = meter.distance(blurred(clean, 1), clean), meter.distance(blurred(clean, 4), clean)
    assert 0 < near < far
    assert near < 0.6 < meter.distance(read("S000185"), clean)


def test_identity_without_its_extra_says_what_to_install(monkeypatch):
    monkeypatch.setattr(face_meters, "find_spec", lambda name: None)
    face_meters._paths.cache_clear()
    assert not face_meters.identity_present()
    with pytest.raises(ModelError, match=r"pip install 'gpen-stream\[identity\]'"):
        IdentityMeter()


# --- the bootstrap ------------------------------------------------------------------------------


def test_the_interval_of_many_normal_differences_is_the_textbooks():
    drawn = np.random.default_rng(3).normal(0.3, 1, 400)
    found = paired_bootstrap(drawn, np.zeros(400))
    half = 1.96 * drawn.std(ddof=1) / 20
    assert found.value == pytest.approx(drawn.mean())
    assert (found.low, found.high) == pytest.approx(
        (drawn.mean() - half, drawn.mean() + half), abs=0.1 * half
    )
    assert found == paired_bootstrap(drawn, np.zeros(400))
    assert found != paired_bootstrap(drawn, np.zeros(400), seed=1)


def test_pairs_matter_more_than_the_spread_between_faces():
    theirs = np.random.default_rng(4).normal(30, 5, 48)
    found = paired_bootstrap(theirs + 0.2, theirs)
    assert found.low == pytest.approx(0.2) and found.high == pytest.approx(0.2)
    assert found.verdict(+1) == "better" and found.verdict(-1) == "worse"
    assert paired_bootstrap(theirs, theirs).verdict(+1) == ""


def test_medians_are_compared_where_outliers_would_rule():
    theirs = np.random.default_rng(5).normal(0.2, 0.02, 48)
    ours = theirs + 0.05
    ours[:2] -= 20
    found = paired_bootstrap(ours, theirs, average=np.median)
    assert found.value == pytest.approx(0.05, abs=0.01) and found.verdict(+1) == "better"
    assert paired_bootstrap(ours, theirs).verdict(+1) == ""


def test_pairs_without_a_figure_are_left_out():
    ours = np.array([1.0, math.nan, 3.0, 4.0])
    found = paired_bootstrap(ours, np.array([0.0, 0.0, 2.0, math.nan]))
    assert (found.value, found.low, found.high, found.pairs) == (1, 1, 1, 2)
    nothing = paired_bootstrap(np.array([math.nan]), np.array([1.0]))
    assert nothing.pairs == 0 and math.isnan(nothing.value) and nothing.verdict(+1) == ""
