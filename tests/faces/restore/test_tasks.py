"""Tasks: the input of the network, the use of its output, and the task of a model."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
from drawn_faces import face_at
from networks import CHECKPOINTS
from small_models import hole_mask, write_models

from stream import load_config
from stream.config import Restore
from stream.errors import ConfigError
from stream.faces.restore import tasks
from stream.faces.restore.tasks import (
    EDGE,
    Colorization,
    KeyInpainting,
    MaskInpainting,
    Restoration,
    Segmentation,
)
from stream.models.info import ModelInfo, read_model_info
from stream.models.nets.loader import build_generator
from stream.picture import colour, geometry
from stream.picture.face import Crop
from stream.picture.frame import View


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("models"))


def crop(image, to_stored=None, view=None, face=None) -> Crop:
    to_stored = np.eye(2, 3) if to_stored is None else to_stored
    return Crop(face, image.astype(np.float32), to_stored, view or View(image.shape[1], image.shape[0]))


def random_image(size=64, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).random((size, size, 3), np.float32)


# --- the formula ------------------------------------------------------------------------------


def test_lightness_is_kept_and_colour_taken_where_srgb_has_it():
    ramp = np.linspace(0.2, 0.8, 64, dtype=np.float32)
    given = np.dstack([np.tile(ramp, (64, 1))] * 3)
    muted = 0.5 + 0.1 * (random_image() - 0.5)
    result = colour.with_lightness(muted, of=given)
    lab, wanted, source = (cv2.cvtColor(x, cv2.COLOR_RGB2LAB) for x in (result, given, muted))
    assert np.abs(lab[..., 0] - wanted[..., 0]).max() < 0.3
    assert np.abs(lab[..., 1:] - source[..., 1:]).max() < 0.6


def test_colours_that_srgb_lacks_lose_saturation_but_neither_lightness_nor_range():
    given, vivid = random_image(seed=1), np.round(random_image(seed=2))
    result = colour.with_lightness(vivid, of=given)
    assert result.min() >= 0 and result.max() <= 1
    weights = np.array([0.2126, 0.7152, 0.0722])
    light = [
        np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4) @ weights for x in (result, given)
    ]
    np.testing.assert_allclose(light[0], light[1], atol=2e-5)


def test_black_and_white_stay_what_they_are():
    for level in (0.0, 1.0):
        flat = np.full((4, 4, 3), level, np.float32)
        np.testing.assert_allclose(colour.with_lightness(random_image(4), of=flat), flat, atol=1e-3)


# --- one crop ---------------------------------------------------------------------------------


def test_a_restored_crop_is_shown_as_it_is_and_its_answer_clipped():
    image = random_image()
    task = Restoration(64)
    np.testing.assert_array_equal(task.prepare(crop(image)), image)
    np.testing.assert_array_equal(task.finish(crop(image), image * 3 - 1), np.clip(image * 3 - 1, 0, 1))
    assert task.opacity(crop(image)) is None


def test_a_smaller_network_sees_the_mean_of_each_area():
    image = random_image(64)
    shown = Restoration(16).prepare(crop(image))
    np.testing.assert_allclose(shown, image.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3)), atol=1e-6)


def test_colorisation_is_shown_grey():
    image = random_image()
    shown = Colorization(64).prepare(crop(image))
    luma = image @ np.array([0.299, 0.587, 0.114], np.float32)
    for channel in range(3):
        np.testing.assert_allclose(shown[..., channel], luma, atol=1e-5)


def test_a_hole_is_white_for_the_network_and_all_else_as_it_was():
    image = 0.9 * random_image()
    shown = MaskInpainting(64, hole_mask()).prepare(crop(image))
    inside = hole_mask() > 0
    assert (shown[inside] == 1).all()
    np.testing.assert_array_equal(shown[~inside], image[~inside])


def test_the_opacity_is_whole_in_the_hole_soft_round_it_and_nothing_beyond():
    opacity = MaskInpainting(64, hole_mask()).opacity(crop(random_image()))
    away = cv2.distanceTransform((hole_mask() == 0).astype(np.uint8), cv2.DIST_L2, 5)
    assert (opacity[away <= 1] == 1).all() and (opacity[away > EDGE + 1] == 0).all()
    soft = opacity[24, 44 : 44 + EDGE + 2]
    assert (np.diff(soft) <= 0).all() and 0 < soft[2] < 1
    assert -np.diff(soft).min() < 0.5, "a step would show as a seam"


def test_a_hole_at_a_face_crops_border_ends_softly_there():
    everywhere = np.full((64, 64), 255, np.uint8)
    alone = MaskInpainting(64, everywhere).opacity(crop(random_image(), face=face_at(0, 0, 64)))
    assert alone[0].max() == alone[:, -1].max() == 0 and alone[8:-8, 8:-8].min() == 1
    assert MaskInpainting(64, everywhere).opacity(crop(random_image())).min() == 1, "an aligned crop has none"


@pytest.mark.parametrize("turn", [((1, 0), (0, 1)), ((0, -1), (1, 0)), ((-1, 0), (0, 1))])
@pytest.mark.parametrize("sar", [Fraction(1), Fraction(2)])
def test_a_mask_drawn_on_the_upright_picture_is_found_in_the_crop(turn, sar):
    """The mask is a spot at upright (60, 40); the crop, turned and enlarged, has its centre there."""
    view = View(120, 100, sar, turn)
    width, height = (round(side) for side in view.upright_size)
    mask = np.zeros((height, width), np.uint8)
    mask[38:42, 58:62] = 255
    c, s = 0.8 * 0.5, 0.6 * 0.5
    to_upright = np.array([[c, -s, 60 - 32 * (c - s)], [s, c, 40 - 32 * (s + c)]])
    to_stored = geometry.chain(view.to_stored, to_upright)
    shown = MaskInpainting(64, mask).prepare(crop(np.zeros((64, 64, 3)), to_stored, view))[..., 0]
    ys, xs = np.nonzero(shown)
    assert abs(ys.mean() + 0.5 - 32) < 0.6 and abs(xs.mean() + 0.5 - 32) < 0.6
    assert 64 <= len(ys) <= 150, "16 px of the picture are 64 of the crop, and its border a little more"


def test_a_key_takes_what_is_within_its_tolerance_and_two_pixels_round_it():
    image = np.full((64, 64, 3), 0.5, np.float32)
    image[10, 10] = np.array([0, 255, 20]) / 255
    image[40, 40] = np.array([0, 255, 30]) / 255
    task = KeyInpainting(64, np.array([0, 255, 0], np.float32), tolerance=24)
    white = (task.prepare(crop(image)) == 1).all(axis=2)
    assert white[10, 10] and white[10, 12] and not white[10, 13] and not white[40, 40]


def test_a_crop_without_the_keys_colour_is_left_alone():
    task = KeyInpainting(64, np.array([255, 0, 255], np.float32))
    image = np.full((64, 64, 3), 0.5, np.float32)
    np.testing.assert_array_equal(task.prepare(crop(image)), image)
    assert not task.opacity(crop(image)).any()


# --- which task -------------------------------------------------------------------------------

KINDS = {"Colorization": ("colorize", Colorization), "Inpainting": ("inpaint", KeyInpainting),
         "Seg2face": ("segment", Segmentation), "BFR": ("restore", Restoration)}  # fmt: skip


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_every_official_network_takes_what_its_task_prepares_and_its_answer_fits_the_crop(name):
    """Shapes of the real networks on the meta device; their tensors are checked in test_nets."""
    facts = CHECKPOINTS[name]
    task_name, kind = next(KINDS[key] for key in KINDS if key in name)
    model = ModelInfo(
        name, facts["size"], facts["size"], facts["channel_multiplier"], facts["narrow"], facts["style_dim"],
        facts["n_mlp"], False, "arcface_gpen", "", (0.0, 1.0) if task_name == "segment" else (-1.0, 1.0),
        task_name,
    )  # fmt: skip
    net = build_generator(model)
    assert {key: list(tensor.shape) for key, tensor in net.state_dict().items()} == facts["tensors"]
    given = Restore(inpaint_key="00ff00") if task_name == "inpaint" else Restore()
    task = tasks.create(model, given, aligned=True)
    assert type(task) is kind
    one = crop(random_image(model.size))
    shown = task.prepare(one)
    answer = net(torch.empty((1, 3, *shown.shape[:2]), device="meta"))
    assert shown.dtype == np.float32 and tuple(answer.shape) == (1, 3, model.size, model.size)
    done = task.finish(one, one.image)
    assert done.shape == one.image.shape and done.dtype == np.float32


def test_the_models_own_task_may_be_named(models):
    model = read_model_info(models / "colorize.safetensors")
    for name in ("auto", "colorize"):
        assert type(tasks.create(model, Restore(task=name), aligned=False)) is Colorization


WRONG = {
    # by fault: (model, settings, aligned, text that the error must contain)
    "another task": ("restore", {"task": "colorize"}, False, "colorize: restore was trained to restore; set"),
    "too little": ("inpaint", {"task": "restore"}, False, "restore: inpaint was trained to inpaint; set"),
    "mask for restoring": (
        "restore",
        {"inpaint_mask": "m.png"},
        False,
        "mask: restore was trained",
    ),
    "key for colour": ("colorize", {"inpaint_key": "00ff00"}, False, "--inpaint-key: colorize was trained"),
    "no hole": ("inpaint", {}, False, "where is the hole? give --inpaint-mask FILE or --inpaint-key"),
    "two holes": ("inpaint", {"inpaint_mask": "m", "inpaint_key": "00ff00"}, False, "two holes are given"),
    "no mask": ("inpaint", {"inpaint_mask": "none.png"}, False, "--inpaint-mask none.png: cannot be read"),
    "no picture": ("inpaint", {"inpaint_mask": __file__}, False, "not a picture; give a PNG"),
    "not aligned": ("segment", {}, False, "whole aligned crops; add --aligned"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_in_one_line(case, models):
    name, given, aligned, expected = WRONG[case]
    with pytest.raises(ConfigError) as caught:
        tasks.create(read_model_info(models / f"{name}.safetensors"), Restore(**given), aligned)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["green", "00ff0", "00ff0g", "#00ff000"])
def test_a_key_that_is_no_colour_is_refused(key):
    with pytest.raises(ConfigError, match=r"restore\.inpaint_key: .*RRGGBB"):
        load_config("default", None, [f"restore.inpaint_key='{key}'"])
