"""Intervals of restoration: the crops that the network restores, and the quality of the propagated ones."""

import sys
from itertools import pairwise

import cv2
import numpy as np
import pytest
from conftest import SAMPLES
from drawn_faces import Brighter, face_at

from stream.config import load_config
from stream.errors import ConfigError
from stream.faces.restore.propagate import Propagator, face_region
from stream.faces.restore.restore_stage import _MAX_HELD, RestoreStage
from stream.faces.restore.schedule import MAX_UNEXPLAINED, Interval, RestoreMode
from stream.job.api import restore_file, restore_images
from stream.job.interface import Options
from stream.models.engines import create_engine
from stream.models.info import bundled_model_path
from stream.picture import geometry
from stream.picture.face import Crop, Face, FrameWork
from stream.picture.frame import View

sys.path.insert(0, str(SAMPLES))
from moving_faces import LANDMARKS, SAMPLES, SIZE, clean, filmed, occluded, visible
from warps import Pose


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR in dB under the feathered mask."""
    mask = geometry.feather_mask(SIZE, 0.16)
    return float(-10 * np.log10((((a - b) ** 2).mean(axis=2) * mask).sum() / mask.sum()))


def judged(image, *sources) -> float:
    propagator = Propagator(LANDMARKS, SIZE)
    matches = [propagator.match(image, source) for source in sources]
    return propagator.plan(matches, [1] * len(sources)).unexplained


# --- the arithmetic -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [64, 256, 512])
def test_the_flow_finds_a_known_shift_and_propagates_the_restored_picture_along_it(size):
    scale = size / SIZE
    shift = (1.6 * scale, -0.9 * scale)
    source = cv2.resize(clean(), (size, size), interpolation=cv2.INTER_AREA)
    moved = geometry.warp(source, np.array([[1, 0, -shift[0]], [0, 1, -shift[1]]]), (size, size), 4)
    propagator = Propagator(geometry.template("ffhq_512", size), size)
    match = propagator.match(moved, source)
    face = face_region(geometry.template("ffhq_512", match.flow.shape[0]), match.flow.shape[0])
    found = np.median(match.flow[face], axis=0) * size / match.flow.shape[0]
    np.testing.assert_allclose(found, np.negative(shift), atol=0.15 * max(scale, 1))
    plan = propagator.plan([match], [1.0])
    result = propagator.propagate(moved, plan, [source * 0.9])
    inner = np.s_[size // 8 : -size // 8, size // 8 : -size // 8]
    assert np.abs(result - moved * 0.9)[inner].mean() < 0.012
    assert np.abs(source * 0.9 - moved * 0.9)[inner].mean() > 1.5 * np.abs(result - moved * 0.9)[inner].mean()


def test_the_noise_of_neither_frame_is_in_a_propagated_crop():
    before, here, after = (filmed(clean(), seed) for seed in range(3))
    propagator = Propagator(LANDMARKS, SIZE)
    plan = propagator.plan([propagator.match(here, before), propagator.match(here, after)], [1, 1])
    result = propagator.propagate(here, plan, [clean(), clean()])
    assert psnr(result, clean()) > psnr(here, clean()) + 6
    residual_propagated = here + (clean() - before)
    assert psnr(result, clean()) > psnr(residual_propagated, clean()) + 6


def test_two_sources_are_better_than_one_where_the_restorer_errs_differently():
    rng = np.random.default_rng(5)
    crops = [filmed(clean(), seed) for seed in range(3)]
    errs = [clean() + rng.normal(0, 0.02, clean().shape).astype(np.float32) for _ in range(2)]
    propagator = Propagator(LANDMARKS, SIZE)
    matches = [propagator.match(crops[1], crops[0]), propagator.match(crops[1], crops[2])]
    one = propagator.propagate(crops[1], propagator.plan(matches[:1], [1.0]), errs[:1])
    both = propagator.propagate(crops[1], propagator.plan(matches, [0.5, 0.5]), errs)
    assert psnr(both, clean()) > psnr(one, clean()) + 1


def test_propagating_twice_gives_the_same_and_results_own_their_memory():
    propagator = Propagator(LANDMARKS, SIZE)
    a, b = filmed(clean(), 0), filmed(clean(), 1)
    plan = propagator.plan([propagator.match(b, a)], [1.0])
    first = propagator.propagate(b, plan, [a])
    kept = first.copy()
    second = propagator.propagate(b, plan, [a * 0.5])
    np.testing.assert_array_equal(first, kept)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(propagator.propagate(b, plan, [a]), kept)


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("noise alone", clean()),
        ("shift", clean(shift=(2.5, 1.5))),
        ("sway", clean(Pose(tilt_rad=0.03, zoom=1.01))),
        ("turn", clean(Pose(yaw_rad=np.radians(4)))),
        ("light", clean() * np.linspace(0.85, 1.0, SIZE, dtype=np.float32)[None, :, None]),
    ],
)
def test_what_the_flow_explains_needs_no_restoration(name, picture):
    assert judged(filmed(picture, 1), filmed(clean(), 0), filmed(clean(), 2)) < MAX_UNEXPLAINED, name


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("half a blink", clean(Pose(blink=0.6))),
        ("a blink", clean(Pose(blink=1.0))),
        ("an open mouth", clean(Pose(mouth=1.0))),
        ("someone else", clean(code="W000815")),
        ("a board", occluded(clean(), 120)),
        ("a far shift", clean(shift=(40.0, 0.0))),
    ],
)
def test_what_the_flow_cannot_explain_is_noticed(name, picture):
    assert judged(filmed(picture, 1), filmed(clean(), 0), filmed(clean(), 2)) > MAX_UNEXPLAINED, name


def test_what_one_side_explains_is_explained():
    """A board appears. The crop without it follows from the previous crop, but not from the next one."""
    free, covered = filmed(clean(), 0), filmed(occluded(clean(), 120), 2)
    propagator = Propagator(LANDMARKS, SIZE)
    here = filmed(clean(), 1)
    plan = propagator.plan([propagator.match(here, free), propagator.match(here, covered)], [1, 1])
    assert plan.unexplained < MAX_UNEXPLAINED
    result = propagator.propagate(here, plan, [clean(), occluded(clean(), 120)])
    assert visible(result, clean()) < 8


def test_a_background_that_moves_on_shows_itself_and_forces_nothing():
    rng = np.random.default_rng(3)
    wall = cv2.GaussianBlur(rng.random((SIZE, 600, 3)).astype(np.float32), (0, 0), 3) * 2.5 - 0.8
    outside = ~cv2.dilate(face_region(LANDMARKS, SIZE).astype(np.uint8), np.ones((15, 15))).astype(bool)

    def before_wall(at: int) -> np.ndarray:
        picture = clean()
        picture[outside] = np.clip(wall[:, at : at + SIZE], 0, 1)[outside]
        return picture

    crops = [filmed(before_wall(25 * i), i) for i in range(3)]
    propagator = Propagator(LANDMARKS, SIZE)
    matches = [propagator.match(crops[1], crops[at]) for at in (0, 2)]
    plan = propagator.plan(matches, [1, 1])
    assert plan.unexplained < MAX_UNEXPLAINED
    result = propagator.propagate(crops[1], plan, [before_wall(0), before_wall(50)])
    error = np.abs(result - before_wall(25)).mean(axis=2)
    travelled = np.abs(before_wall(0) - before_wall(25)).mean(axis=2)
    assert error[outside].mean() < travelled[outside].mean() / 3


# --- which crops are restored ----------------------------------------------------------------------


def crop_of(face: Face | None, image: np.ndarray) -> Crop:
    return Crop(face, image, np.eye(2, 3), View(SIZE, SIZE))


def work(*crops: tuple[int, np.ndarray]) -> FrameWork:
    return FrameWork(None, crops=tuple(crop_of(face_at(0, 0, SIZE, track), image) for track, image in crops))


def stage_of(engine, interval=3, lookahead=True, batch_size=4) -> RestoreStage:
    stage = RestoreStage(lambda: engine, batch_size, 1.0, Interval(interval, lookahead, LANDMARKS, SIZE))
    stage.open()
    return stage


def run(works, engine, **settings):
    """The finished works, the stage, and the crops (frame, place in it) that the engine saw."""
    stage = stage_of(engine, **settings)
    done = [one for item in works for one in stage.process(item)] + list(stage.flush())
    given = {crop.tobytes() for crop in engine.seen}
    seen = {
        (at, place)
        for at, item in enumerate(works)
        for place, crop in enumerate(item.crops)
        if crop.image.tobytes() in given
    }
    assert [one.crops for one in done] == [item.crops for item in works], "order or frames lost"
    return done, stage, seen


STILL = [filmed(clean(), seed, 0.01) for seed in range(12)]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_first_every_third_and_the_last_are_restored(batch_size):
    works = [work((7, image)) for image in STILL[:9]]
    done, stage, seen = run(works, Brighter(), batch_size=batch_size)
    assert seen == {(0, 0), (3, 0), (6, 0), (8, 0)}
    assert (stage.counts.restored, stage.counts.propagated, stage.counts.forced) == (4, 5, 0)
    for item in done:
        np.testing.assert_allclose(item.patches[0].residual.mean(), 0.1, atol=0.01)
        assert np.abs(item.patches[0].residual).max() < 0.3


def test_an_interval_of_one_restores_everything():
    works = [work((7, image)) for image in STILL[:5]]
    _, stage, seen = run(works, Brighter(), interval=1)
    assert len(seen) == stage.counts.restored == 5 and stage.counts.propagated == 0


def test_tracks_have_intervals_of_their_own_and_a_gap_ends_a_track():
    """Track 1 from frame 0 with a gap at 4, track 2 from frame 2; frames 5 and 9 hold none."""
    tracks = {1: (0, 1, 2, 3, 6, 7, 8), 2: (2, 3, 4)}
    other = [filmed(clean(code="W000815"), seed, 0.01) for seed in range(12)]
    pictures = {1: STILL, 2: other}
    works = [work(*((t, pictures[t][at]) for t in tracks if at in tracks[t])) for at in range(10)]
    _, stage, seen = run(works, Brighter())
    expected = {1: {0, 3, 6, 8}, 2: {2, 4}}
    by_track = {(at, works[at].crops[place].face.track_id) for at, place in seen}
    assert by_track == {(at, track) for track in expected for at in expected[track]}
    assert stage.counts.propagated == 10 - 6


def test_an_input_that_is_crops_already_counts_as_one_track():
    works = [FrameWork(None, crops=(crop_of(None, image),)) for image in STILL[:4]]
    _, stage, seen = run(works, Brighter())
    assert {at for at, _ in seen} == {0, 3} and stage.counts.propagated == 2


def test_frames_without_a_face_keep_their_place_and_pass_at_once_where_nothing_waits():
    stage = stage_of(Brighter())
    assert len(list(stage.process(work()))) == 1
    assert list(stage.process(work((1, STILL[0])))) == []
    assert list(stage.process(work())) == [], "order"
    assert len(list(stage.flush())) == 2


@pytest.mark.parametrize(("interval", "batch_size"), [(3, 4), (30, 4), (3, 64), (2, 1)])
def test_the_frames_held_back_are_bounded(interval, batch_size):
    stage = stage_of(Brighter(), interval=interval, batch_size=batch_size)
    crop = crop_of(face_at(0, 0, SIZE, 1), STILL[0])
    held = most = 0
    for _ in range(100):
        held += 1 - len(list(stage.process(FrameWork(None, crops=(crop,)))))
        most = max(most, held)
    assert most <= _MAX_HELD + interval
    assert held == len(list(stage.flush()))


def test_without_lookahead_every_frame_goes_on_at_once():
    stage = stage_of(engine := Brighter(), lookahead=False)
    for at, image in enumerate(STILL[:7]):
        (done,) = stage.process(work((1, image)))
        np.testing.assert_allclose(done.patches[0].residual.mean(), 0.1, atol=0.01)
        assert len(engine.seen) == at // 3 + 1
    assert list(stage.flush()) == [] and stage.counts.propagated == 4


def test_a_crop_that_is_not_finite_goes_through_unchanged_and_so_do_those_propagated_from_it():
    done, stage, _ = run([work((1, image)) for image in STILL[:8]], Brighter(failing=1))
    passed = [not item.patches[0].residual.any() for item in done]
    assert [at for at in range(8) if passed[at]] == [1, 2, 3, 4, 5]
    assert stage.counts.not_finite == 5 and all(np.isfinite(d.patches[0].residual).all() for d in done)


def test_without_lookahead_a_crop_that_is_not_finite_is_followed_by_another_try():
    done, stage, _ = run([work((1, image)) for image in STILL[:8]], Brighter(failing=1), lookahead=False)
    passed = [not item.patches[0].residual.any() for item in done]
    assert [at for at in range(8) if passed[at]] == [3] and stage.counts.not_finite == 1
    assert all(np.isfinite(d.patches[0].residual).all() for d in done)


def test_strength_and_interval_change_while_frames_run_through():
    stage = stage_of(engine := Brighter(), lookahead=False)
    means = []
    for at, image in enumerate(STILL[:12]):
        if at == 4:
            stage.set_mode(RestoreMode(strength=0.5, interval=1))
        if at == 8:
            stage.set_mode(RestoreMode(strength=1.0, interval=30))
        (done,) = stage.process(work((1, image)))
        means.append(done.patches[0].residual.mean())
    np.testing.assert_allclose(means, [0.1] * 4 + [0.05] * 4 + [0.1] * 4, atol=0.01)
    assert len(engine.seen) == 2 + 4 + 1


def test_a_strict_mode_restores_nothing_out_of_turn():
    other = np.roll(STILL[0], 90, axis=0)
    for strict in (False, True):
        stage = stage_of(engine := Brighter(), lookahead=False)
        stage.set_mode(RestoreMode(interval=3, strict=strict))
        for image in (STILL[0], other, STILL[0]):
            list(stage.process(work((1, image))))
        assert (len(engine.seen) == 1) is strict


def test_a_setting_out_of_bounds_is_refused_and_only_fast_spares_restorations():
    for value in (0, 31, "2.5"):
        with pytest.raises(ConfigError, match=r"restore\.interval"):
            load_config(overrides=[f"restore.interval={value}"])
    intervals = {name: load_config(name).restore.interval for name in ("default", "fast", "quality")}
    assert intervals == {"default": 1, "fast": 3, "quality": 1}


# --- with the real network --------------------------------------------------------------------------


class Network:
    """The bundled network, with the results of crops that it has seen before."""

    def __init__(self):
        self._engine, self._known = create_engine("auto", bundled_model_path(), threads=1), {}

    def restore(self, crops):
        for crop in crops:
            if crop.tobytes() not in self._known:
                self._known[crop.tobytes()] = self._engine.restore(crop[None])[0]
        return np.stack([self._known[crop.tobytes()] for crop in crops])

    def close(self): ...


@pytest.fixture(scope="module")
def network():
    return Network()


def restored(pictures, network, tracks=None, **settings):
    """The restored crops of a clip of one face, the stage, and the input crops."""
    crops = [filmed(picture, seed) for seed, picture in enumerate(pictures)]
    stage = stage_of(network, **settings)
    works = [work((tracks[at] if tracks else 1, crop)) for at, crop in enumerate(crops)]
    done = [one for item in works for one in stage.process(item)] + list(stage.flush())
    images = [one.patches[0].crop.image + one.patches[0].residual for one in done]
    return images, stage, crops


def swaying(at: int) -> Pose:
    return Pose(tilt_rad=0.05 * np.sin(at / 3), shift=(0.04 * np.sin(at / 4), 0.0))


def speaking(at: int) -> Pose:
    blink = max(0.0, 1 - abs(at - 5) / 2.5)
    return Pose(yaw_rad=np.radians(8) * np.sin(at / 5), blink=blink, mouth=0.8 * np.sin(np.pi * at / 13) ** 2)


@pytest.mark.parametrize("lookahead", [True, False])
@pytest.mark.parametrize("motion", [swaying, speaking])
def test_quality_stays_within_a_fifth_of_a_decibel_of_every_frame_restored(motion, lookahead, network):
    pictures = [clean(motion(at)) for at in range(13)]
    every, _, _ = restored(pictures, network, interval=1)
    spared, stage, _ = restored(pictures, network, interval=3, lookahead=lookahead)
    losses = [psnr(e, p) - psnr(s, p) for e, s, p in zip(every, spared, pictures, strict=True)]
    assert np.mean(losses) < 0.2 and max(losses) < 0.7
    if motion is swaying:
        assert stage.counts.forced == 0 and stage.counts.restored == 5
    else:
        assert stage.counts.forced > 0 and stage.counts.propagated > 0


def test_propagated_crops_flicker_no_more_than_restored_ones_and_keep_their_sharpness(network):
    pictures = [clean(swaying(at)) for at in range(13)]
    every, _, _ = restored(pictures, network, interval=1)
    spared, _, _ = restored(pictures, network, interval=3)

    def flicker(images) -> float:
        errors = [image - picture for image, picture in zip(images, pictures, strict=True)]
        return float(np.mean([((b - a) ** 2).mean() for a, b in pairwise(errors)]))

    def fine(image) -> float:
        luma = image.mean(axis=2)
        return float(((luma - cv2.GaussianBlur(luma, (0, 0), 1.5)) ** 2)[40:-40, 40:-40].mean())

    assert flicker(spared) <= flicker(every)
    ratios = [fine(s) / fine(e) for e, s in zip(every, spared, strict=True)]
    assert min(ratios) > 0.85 and max(ratios) < 1.15


def blink_between(at):
    return clean(Pose(blink=1.0 if at in (4, 5) else 0.0))


EVENTS = {
    "a scene cut": lambda at: clean(code="C001092" if at < 5 else "W000815"),
    "an obstacle crosses": lambda at: occluded(clean(), 25 * at - 60),
    "a blink between keyframes": blink_between,
    "fast motion": lambda at: clean(shift=(14 * np.sin(at), 9 * np.cos(1.7 * at))),
    "a mouth opens and shuts": lambda at: clean(Pose(mouth=float(at % 4 == 1))),
}


@pytest.mark.parametrize("lookahead", [True, False])
@pytest.mark.parametrize("event", EVENTS)
def test_nothing_of_another_frame_shows(event, lookahead, network):
    """No ghost is larger than a few px, and PSNR is not lower than if every frame is restored."""
    pictures = [EVENTS[event](at) for at in range(9)]
    every, _, _ = restored(pictures, network, interval=1)
    spared, stage, _ = restored(pictures, network, interval=3, lookahead=lookahead)
    # With look-ahead a cut lies between two restored frames. Each side follows from one of them.
    assert stage.counts.forced > 0 or event == "fast motion" or (lookahead and event == "a scene cut")
    for at, (e, s, p) in enumerate(zip(every, spared, pictures, strict=True)):
        assert visible(s, e) < 6, f"frame {at}"
        assert psnr(e, p) - psnr(s, p) < 0.6, f"frame {at}"


def test_a_new_track_in_the_same_place_gets_nothing_of_the_old_one(network):
    pictures = [clean(code="C001092" if at < 5 else "W000815") for at in range(9)]
    every, _, _ = restored(pictures, network, interval=1)
    spared, stage, _ = restored(pictures, network, tracks=[1] * 5 + [2] * 4)
    assert stage.counts.forced == 0
    assert all(visible(s, e) < 6 for e, s in zip(every, spared, strict=True))


@pytest.mark.parametrize("lookahead", ["true", "false"])
def test_a_whole_run_reports_what_was_propagated(portrait, tmp_path, lookahead):
    config = load_config("fast", overrides=[f"track.lookahead={lookahead}"])
    outcome = restore_file(portrait, tmp_path / "out.mp4", config, options=Options(duration_s=0.4))
    report = outcome.report
    assert report["frames_out"] == 10
    assert report["faces_restored"] + report["faces_carried"] == 10
    assert 4 <= report["faces_restored"] <= 6 and report["restorations_forced"] <= 2


def test_a_folder_of_pictures_is_restored_whole(tmp_path):
    jobs = []
    for at in range(4):
        path = tmp_path / f"{at}.png"
        cv2.imwrite(str(path), (filmed(clean(), at)[..., ::-1] * 255).astype(np.uint8))
        jobs.append((path, tmp_path / f"out{at}.png"))
    report = restore_images(jobs, load_config("fast"), options=Options(aligned=True)).report
    assert report["faces_restored"] == 4 and report["faces_carried"] == 0
