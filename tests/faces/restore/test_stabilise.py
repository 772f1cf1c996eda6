"""Restored faces flicker less, and nothing that changes is averaged away."""

from dataclasses import replace

import av
import cv2
import numpy as np
import pytest
from drawn_faces import face_at
from moving_faces import LANDMARKS, SAMPLES, SIZE, clean, filmed, occluded, visible
from warps import Pose

from stream.config import load_config
from stream.faces.assembly import Setup, assemble
from stream.faces.restore.propagate import face_region
from stream.faces.restore.stabilise import StabiliseStage
from stream.job.api import restore_file
from stream.job.interface import Options
from stream.lab.quality.picture_measures import sharpness
from stream.lab.quality.video_measures import flicker
from stream.live.session.control import Control
from stream.live.session.degradation import LEVELS
from stream.live.session.live_settings import LiveSettings
from stream.picture.face import Crop, FrameWork, Patch
from stream.picture.frame import View

FLICKER = 0.03
"""Standard deviation of the detail that the restorers of these tests invent in each frame."""
FACE = face_region(LANDMARKS, SIZE)


def invented(picture: np.ndarray, seed: int, amount: float = FLICKER) -> np.ndarray:
    """A picture with invented detail, as from a restorer that sees one frame at a time."""
    grain = np.random.default_rng(seed + 1000).normal(0, 1, picture.shape[:2]).astype(np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), 1.5)
    return picture + (amount / grain.std() * grain)[..., None]


def work(image, restored, track: int | None = 1, weight: float = 1.0) -> FrameWork:
    """A frame with the patch of one face. If `track` is None, the patch is that of an aligned crop."""
    crop = Crop(None if track is None else face_at(0, 0, SIZE, track), image, np.eye(2, 3), View(SIZE, SIZE))
    return FrameWork(None, patches=(Patch(crop, (restored - image) * np.float32(weight), weight=weight),))


def moving(count: int, amount: float = FLICKER) -> tuple[list[FrameWork], list[np.ndarray]]:
    """Frames of a swaying face after restoration, and the clean pictures."""
    true = [
        clean(Pose(tilt_rad=0.02 * np.sin(t / 3)), shift=(1.5 * np.sin(t / 2), 0.8 * t / 4))
        for t in range(count)
    ]
    return [work(filmed(p, t, 0.015), invented(p, t, amount)) for t, p in enumerate(true)], true


def stage(strength=0.6, lookahead=False) -> StabiliseStage:
    made = StabiliseStage(LANDMARKS, SIZE, strength, lookahead)
    made.open()
    return made


def run(works, strength=0.6, lookahead=False) -> list[FrameWork]:
    made = stage(strength, lookahead)
    done = [result for item in works for result in made.process(item)]
    return done + list(made.flush())


def picture(done: FrameWork, at: int = 0) -> np.ndarray:
    return done.patches[at].crop.image + done.patches[at].residual


def error(image: np.ndarray, true: np.ndarray) -> float:
    """Mean square difference in the face."""
    return float(((image - true) ** 2).mean(axis=2)[FACE].mean())


# --- what is averaged -----------------------------------------------------------------------------


@pytest.mark.parametrize(("lookahead", "most"), [(False, 0.42), (True, 0.36)])
def test_of_a_known_flicker_on_a_moving_face_less_than_half_is_left(lookahead, most):
    works, true = moving(14)
    done = run(works, lookahead=lookahead)
    left = [error(picture(d), t) / FLICKER**2 for d, t in zip(done, true, strict=True)][6:-1]
    assert np.mean(left) < most


def test_a_higher_strength_leaves_less_flicker():
    works, true = moving(12)
    left = [
        np.mean([error(picture(d), t) for d, t in zip(run(works, strength), true, strict=True)][6:])
        for strength in (0.0, 0.1, 0.2, 0.6)
    ]
    assert left == sorted(left, reverse=True)


def u8(image: np.ndarray) -> np.ndarray:
    """The inner part as u8, the dtype that `sharpness` needs."""
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)[41:-41, 41:-41]


@pytest.mark.parametrize("lookahead", [False, True])
def test_detail_that_averages_out_is_given_back(lookahead):
    works, _ = moving(16)
    done = run(works, lookahead=lookahead)
    kept = [sharpness(u8(picture(d)), u8(picture(w))) for d, w in zip(done, works, strict=True)]
    assert np.mean(kept[6:]) > 0.96  # it is 0.85 without any correction of the energy
    assert max(kept) < 1.03


def test_a_steady_detail_keeps_its_energy():
    works, true = moving(12, amount=0.0)
    kept = [sharpness(u8(picture(d)), u8(t)) for d, t in zip(run(works), true, strict=True)]
    assert min(kept) > 0.97
    assert max(kept) < 1.04


def test_strength_0_hands_on_the_very_same_frames():
    works, _ = moving(4)
    for lookahead in (False, True):
        for done, item in zip(run(works, 0.0, lookahead), works, strict=True):
            assert done is item


def test_the_strength_follows_a_change_and_a_change_to_0_loses_no_frame():
    works, _ = moving(9)
    made, done = stage(0.6, lookahead=True), []
    for at, item in enumerate(works):
        made.set_strength((0.6, 0.0, 1.0)[at // 3])
        done += made.process(item)
    done += made.flush()
    assert [d.patches[0].crop for d in done] == [w.patches[0].crop for w in works]
    assert done[3:6] == works[3:6]
    assert not np.array_equal(done[2].patches[0].residual, works[2].patches[0].residual)
    assert not np.array_equal(done[8].patches[0].residual, works[8].patches[0].residual)


def test_half_a_restoration_is_half_of_the_steady_picture():
    works, _ = moving(6)
    halves = [work(w.patches[0].crop.image, picture(w), weight=0.5) for w in works]
    for whole, half in zip(run(works), run(halves), strict=True):
        np.testing.assert_allclose(half.patches[0].residual * 2, whole.patches[0].residual, atol=2e-4)


def test_light_that_changes_is_not_held_back():
    levels = np.linspace(1.0, 0.6, 10, dtype=np.float32)
    true = [clean() * level for level in levels]
    done = run([work(filmed(p, t, 0.01), p) for t, p in enumerate(true)])
    assert max(visible(picture(d), t) for d, t in zip(done, true, strict=True)) < 3


# --- what is not averaged -------------------------------------------------------------------------


@pytest.mark.parametrize("lookahead", [False, True])
@pytest.mark.parametrize("pose", [Pose(blink=1.0), Pose(mouth=1.0)], ids=["blink", "mouth"])
def test_a_blink_and_a_mouth_that_opens_show_in_their_own_frame(pose, lookahead):
    poses = [Pose()] * 6 + [pose] * 3 + [Pose()] * 3
    true = [clean(p) for p in poses]
    done = run([work(filmed(p, t, 0.01), p) for t, p in enumerate(true)], lookahead=lookahead)
    change = visible(clean(), clean(pose))
    for at in (5, 6, 7, 8, 9, 10):
        assert visible(picture(done[at]), true[at]) < 0.15 * change, at


@pytest.mark.parametrize("lookahead", [False, True])
def test_what_passes_before_a_face_leaves_no_ghost(lookahead):
    true = [occluded(clean(), -80 + 40 * t) if 3 < t < 8 else clean() for t in range(11)]
    done = run([work(filmed(p, t, 0.01), p) for t, p in enumerate(true)], lookahead=lookahead)
    for at in range(3, 11):
        assert visible(picture(done[at]), true[at]) < 5, at


@pytest.mark.parametrize("lookahead", [False, True])
@pytest.mark.parametrize("tracks", [(1, 2), (1, 1), (None, None)], ids=["tracked", "unseen cut", "aligned"])
def test_another_face_shows_nothing_of_the_one_before(tracks, lookahead):
    one, other = clean(), clean(code="W000815")
    works = [work(filmed(one, t, 0.01), invented(one, t), tracks[0]) for t in range(5)]
    works += [work(filmed(other, t, 0.01), invented(other, t), tracks[1]) for t in range(5, 9)]
    done = run(works, lookahead=lookahead)
    alone = run(works[5:], lookahead=lookahead)
    np.testing.assert_array_equal(done[5].patches[0].residual, alone[0].patches[0].residual)
    np.testing.assert_array_equal(
        done[4].patches[0].residual, run(works[:5], lookahead=lookahead)[4].patches[0].residual
    )


def test_a_first_frame_passes_as_it_is():
    works, _ = moving(1)
    assert run(works)[0].patches[0] is works[0].patches[0]


def test_a_patch_that_replaces_and_one_that_holds_nothing_pass_as_they_are():
    works, _ = moving(5)
    filled = [
        replace(w, patches=(replace(w.patches[0], opacity=np.ones((SIZE, SIZE), np.float32)),)) for w in works
    ]
    failed = [work(w.patches[0].crop.image, w.patches[0].crop.image, weight=0.0) for w in works]
    for items in (filled, failed):
        for done, item in zip(run(items), items, strict=True):
            assert done.patches[0] is item.patches[0]


def test_a_crop_that_failed_costs_the_face_nothing_of_its_past():
    works, true = moving(12)
    image = works[7].patches[0].crop.image
    works[7] = work(image, image, weight=0.0)
    done = run(works)
    assert done[7].patches[0] is works[7].patches[0]
    assert error(picture(done[8]), true[8]) < 0.6 * error(picture(works[8]), true[8])


# --- settings -------------------------------------------------------------------------------------


def test_the_strength_is_part_of_a_live_change_and_rests_where_restorations_are_spared():
    config, _ = LiveSettings(stabilise=0.3).applied(load_config(), "default")
    assert config.stabilise.strength == 0.3
    _, preset = LiveSettings(preset="fast").applied(config, "default")
    assert preset == "fast"
    assert LiveSettings(preset="fast").applied(config, "default")[0].stabilise.strength == 0.3
    control = Control(config)
    assert control.stabilise_strength == 0.3
    control.set_level(next(level for level in LEVELS if level.keyframes_only))
    assert control.stabilise_strength == 0


@pytest.mark.parametrize("still", [False, True])
def test_a_video_has_the_stage_between_restoring_and_masks_and_unrelated_pictures_have_none(still):
    names = [name for name, _ in assemble(Setup.of(load_config(), aligned=True), still=still).in_line()]
    assert names == ["crop", "restore", *([] if still else ["stabilise"]), "mask", "compose"]


def test_a_restored_file_flickers_less_and_strength_0_is_the_file_without_the_stage(tmp_path):
    frames = {}
    for strength in (0.0, 0.6):
        config = load_config(overrides=[f"stabilise.strength={strength}"])
        path = tmp_path / f"{strength}.mkv"
        outcome = restore_file(SAMPLES / "portrait.mp4", path, config, options=Options(duration_s=0.6))
        assert outcome.report["frames_out"] == outcome.report["frames_in"]
        assert (outcome.report["faces_stabilised"] > 10) is (strength > 0)
        with av.open(str(path)) as container:
            frames[strength] = [
                f.to_ndarray(format="rgb24")[60:300, 190:430] for f in container.decode(video=0)
            ]
    assert flicker(frames[0.6]) < 0.85 * flicker(frames[0.0])


# --- frames ---------------------------------------------------------------------------------------


def test_without_lookahead_nothing_depends_on_what_comes_later():
    works, _ = moving(8)
    whole, short = run(works), run(works[:5])
    for a, b in zip(whole, short, strict=False):
        np.testing.assert_array_equal(a.patches[0].residual, b.patches[0].residual)


@pytest.mark.parametrize(("lookahead", "held"), [(False, 0), (True, 1)])
def test_order_is_kept_and_one_frame_is_held_at_most(lookahead, held):
    works, _ = moving(6)
    works[2:2], made, done = [FrameWork(None), FrameWork(None)], stage(lookahead=lookahead), []
    for at, item in enumerate(works):
        done += made.process(item)
        assert len(done) == max(0, at + 1 - held)
    done += made.flush()
    assert [[p.crop for p in d.patches] for d in done] == [[p.crop for p in w.patches] for w in works]


def test_faces_that_left_are_forgotten():
    made = stage()
    image = filmed(clean(), 0)
    for track in range(40):
        list(made.process(work(image, image, track)))
    assert len(made._tracks) <= 5
    for _ in range(5):
        list(made.process(FrameWork(None)))
    assert not made._tracks


def test_two_faces_are_told_apart_in_whatever_order_they_come():
    one, other = clean(), clean(code="W000815")
    works = []
    for t in range(6):
        pair = [
            work(filmed(p, t, 0.01), invented(p, t + 50 * k), k).patches[0]
            for k, p in enumerate((one, other))
        ]
        works.append(FrameWork(None, patches=tuple(pair[:: 1 - 2 * (t % 2)])))
    done = run(works, lookahead=True)[-2]
    for patch in done.patches:
        true = (one, other)[patch.crop.face.track_id]
        assert error(patch.crop.image + patch.residual, true) < 0.5 * FLICKER**2
