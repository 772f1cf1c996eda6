"""Cropping, batching and composing: order, detail, and pixels that may not change."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from drawn_faces import PORTRAITS, Brighter, face_at, frame, luma, portrait

from stream.faces.compose.compose_stage import ComposeStage
from stream.faces.restore.crop import CropStage, WholeFrameStage, cut
from stream.faces.restore.restore_stage import RestoreStage
from stream.models.engines import create_engine
from stream.models.info import bundled_model_path
from stream.picture import geometry, pixel_formats
from stream.picture.colour import Colour
from stream.picture.face import Crop, FrameWork, Patch
from stream.picture.frame import Frame, Timestamp, View

ROTATED = ((0, -1), (1, 0))


def crops_of(work: FrameWork, size=256) -> FrameWork:
    return next(iter(CropStage("ffhq_512", size, lambda faces, _: faces).process(work)))


def crop(value: float) -> Crop:
    return Crop(face_at(0, 0, 8), np.full((8, 8, 3), value, np.float32), np.eye(2, 3), View(8, 8))


def run_restore(works, strength=1.0, failing=None):
    engine = Brighter(failing)
    stage = RestoreStage(lambda: engine, 4, strength)
    stage.open()
    out = [done for work in works for done in stage.process(work)] + list(stage.flush())
    return out, engine, stage


def test_crops_are_batched_across_frames_and_every_frame_gets_its_own_back():
    faces = [1, 0, 2, 3, 0, 0, 7, 1, 0]
    rng = np.random.default_rng(0)
    blank = frame(np.zeros((16, 16, 3), np.uint8))
    works = [FrameWork(blank, crops=tuple(crop(v) for v in rng.uniform(0, 0.8, n))) for n in faces]
    out, engine, stage = run_restore(works)
    assert [len(done.patches) for done in out] == faces
    for before, after in zip(works, out, strict=True):
        assert after.crops is before.crops
        assert [patch.crop for patch in after.patches] == list(before.crops)
        for patch in after.patches:
            np.testing.assert_allclose(patch.residual, 0.1, atol=1e-6)
    assert max(engine.batches) == 4 and sum(engine.batches) == sum(faces) == stage.counts.restored


def test_frames_without_a_face_are_not_held_back():
    stage = RestoreStage(Brighter, 4, 1.0)
    stage.open()
    work = FrameWork(frame(np.zeros((16, 16, 3), np.uint8)))
    assert len(list(stage.process(work))) == 1


def test_a_crop_whose_output_is_not_finite_goes_through_unchanged_and_is_counted():
    work = FrameWork(frame(np.zeros((16, 16, 3), np.uint8)), crops=(crop(0.2), crop(0.4), crop(0.3)))
    (done,), _, stage = run_restore([work], failing=1)
    assert [bool(patch.residual.any()) for patch in done.patches] == [True, False, True]
    assert stage.counts.not_finite == 1 and stage.counts.restored == 2


def test_strength_scales_the_residual():
    work = FrameWork(frame(np.zeros((16, 16, 3), np.uint8)), crops=(crop(0.2),))
    (done,), _, _ = run_restore([work], strength=0.25)
    np.testing.assert_allclose(done.patches[0].residual, 0.025, atol=1e-6)


@pytest.mark.parametrize("size", [60, 256, 900])
def test_a_crop_holds_the_face_at_the_template_whatever_its_size(size):
    canvas = np.full((1000, 1000, 3), 90, np.uint8)
    canvas[40 : 40 + size, 30 : 30 + size] = portrait(size)
    work = crops_of(FrameWork(frame(canvas), faces=(face_at(30, 40, size),)))
    expected = portrait(256).astype(np.float32) / 255
    error = np.abs(cv2.GaussianBlur(work.crops[0].image - expected, (0, 0), 3))[16:-16, 16:-16]
    assert error.mean() < 0.02
    assert work.crops[0].image.base is None, "a slice would keep the frame alive"


@pytest.mark.parametrize(
    "turn", [((1, 0), (0, 1)), ROTATED, ((-1, 0), (0, -1)), ((0, 1), (-1, 0)), ((-1, 0), (0, 1))]
)
def test_a_turned_picture_gives_the_same_crop(turn):
    canvas = np.full((300, 400, 3), 90, np.uint8)
    canvas[10:266, 100:356] = portrait(256)
    upright = frame(canvas)
    view = View(0, 0, turn=turn)
    inverse = tuple(zip(*turn, strict=True))
    stored = np.ascontiguousarray(View(0, 0, turn=inverse).orient(canvas))
    turned = frame(stored, view=View(stored.shape[1], stored.shape[0], turn=turn))
    np.testing.assert_array_equal(view.orient(stored), canvas)
    work = [crops_of(FrameWork(f, faces=(face_at(100, 10, 256),))) for f in (upright, turned)]
    assert np.abs(work[0].crops[0].image - work[1].crops[0].image).max() < 0.02


def test_an_anamorphic_picture_gives_a_crop_with_square_pixels():
    canvas = np.full((300, 400, 3), 90, np.uint8)
    canvas[10:266, 100:356] = portrait(256)
    squeezed = cv2.resize(canvas, (300, 300), interpolation=cv2.INTER_AREA)
    view = View(300, 300, Fraction(4, 3))
    assert view.upright_size == (400, 300)
    work = crops_of(FrameWork(frame(squeezed, view=view), faces=(face_at(100, 10, 256),)))
    assert np.abs(work.crops[0].image - portrait(256) / np.float32(255))[8:-8, 8:-8].mean() < 0.02


def compose(work: FrameWork, **settings) -> FrameWork:
    return next(iter(ComposeStage(**({"feather": 0.12} | settings)).process(work)))


@pytest.mark.parametrize("path", PORTRAITS, ids=lambda path: path.stem)
def test_a_sharp_600_px_face_keeps_its_high_frequencies(path):
    """Skin-like grain of 4 levels, finer than the crop can hold, doubles the picture's fine detail."""
    rng = np.random.default_rng(1)
    size = 600
    canvas = np.full((700, 700, 3), 110, np.uint8)
    detail = rng.normal(0, 4, (size, size)).astype(np.float32)
    detail -= cv2.GaussianBlur(detail, (0, 0), size / 256)  # no crop of 256 px can hold the rest
    canvas[50 : 50 + size, 50 : 50 + size] = np.clip(portrait(size, path) + detail[..., None], 0, 255)
    engine = create_engine("auto", bundled_model_path())
    work = crops_of(FrameWork(frame(canvas), faces=(face_at(50, 50, size),)))
    before = luma(work)
    stage = RestoreStage(lambda: engine, 1, 1.0)
    stage.open()
    after = luma(compose(next(iter(stage.process(work)))))
    inner = (slice(150, 550), slice(150, 550))

    def energy(image):
        return float(((image - cv2.GaussianBlur(image, (0, 0), 1.5))[inner] ** 2).mean())

    assert np.abs(after - before)[inner].mean() > 0.2, "nothing was restored"
    assert energy(after) >= 0.98 * energy(before)


def test_a_large_turned_face_leaves_what_lies_outside_its_mask_to_the_bit():
    rng = np.random.default_rng(2)
    grain = rng.integers(60, 180, (700, 700, 3)).astype(np.uint8)
    target = frame(grain, pix_fmt="yuv444p16le")
    angle = np.deg2rad(25)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * 1.8
    to_stored = np.hstack([turn, ([[350], [350]] - turn @ [[128], [128]])])
    image = cut(target, to_stored, 256)
    smoothing = cv2.GaussianBlur(image, (0, 0), 3) - image  # removes detail, so that detail is preserved
    before = [pixel_formats.view(target.picture, target.layout, i).copy() for i in range(3)]
    cut_out = Crop(face_at(0, 0, 256), np.zeros((256, 256, 3), np.float32), to_stored, target.view)
    compose(FrameWork(target, patches=(Patch(cut_out, 3 * smoothing),)))
    inside = np.zeros((700, 700), np.uint8)
    mask = geometry.feather_mask(256, 0.12)
    warped = geometry.warp(np.dstack([mask] * 3), geometry.invert(to_stored), (700, 700), cv2.BORDER_CONSTANT)
    inside[warped[..., 0] != 0] = 1
    for i, old in enumerate(before):
        new = pixel_formats.view(target.picture, target.layout, i)
        np.testing.assert_array_equal(new[inside == 0], old[inside == 0])
    assert (new != old).mean() > 0.1


def test_a_residual_lands_where_the_crop_was_cut_and_at_its_own_size():
    canvas = np.full((400, 400, 3), 100, np.uint8)
    for size, x, y in ((64, 37.3, 52.8), (256, 60.0, 80.5), (390, 3.0, 4.0)):
        work = crops_of(FrameWork(frame(canvas, pix_fmt="yuv420p"), faces=(face_at(x, y, size),)))
        spot = np.zeros((256, 256, 3), np.float32)
        spot[112:144, 80:112] = 0.3
        crop_ = work.crops[0]
        before = luma(work)
        change = luma(compose(FrameWork(work.frame, patches=(Patch(crop_, spot),)))) - before
        mass = change.sum()
        ys, xs = np.mgrid[0:400, 0:400] + 0.5
        assert abs((change * xs).sum() / mass - (x + 96 / 256 * size)) < 0.15
        assert abs((change * ys).sum() / mass - (y + 128 / 256 * size)) < 0.15
        assert abs(mass / (0.3 * 219 * (32 / 256 * size) ** 2) - 1) < 0.06


def test_overlapping_faces_are_not_corrected_twice():
    canvas = np.full((300, 400, 3), 100, np.uint8)
    faces = (face_at(40, 20, 200, 0), face_at(70, 30, 200, 1))
    work = crops_of(FrameWork(frame(canvas), faces=faces))
    flat = np.full((256, 256, 3), 0.1, np.float32)
    before = luma(work)
    after = luma(compose(FrameWork(work.frame, patches=tuple(Patch(c, flat) for c in work.crops))))
    assert (after - before).max() <= round(0.1 * 219) + 1


def test_the_mask_ends_softly_and_is_nothing_at_the_border():
    mask = geometry.feather_mask(256, 0.12)
    assert mask[0].max() == mask[-1].max() == mask[:, 0].max() == mask[:, -1].max() == 0
    assert mask[128, 128] == 1 and mask.min() >= 0
    assert np.abs(np.diff(mask, axis=1)).max() < 0.06, "a step would show as a box"


def test_the_chroma_residual_lies_at_the_chroma_samples_own_place():
    """A linear ramp of colour keeps its slope and offset whatever the siting."""
    for site in ((0.0, 0.5), (0.5, 0.5), (0.0, 0.0), (0.0, 1.0)):
        picture = av.VideoFrame(64, 64, "yuv420p")
        for plane, value in zip(picture.planes, (110, 128, 128), strict=True):
            np.frombuffer(plane, np.uint8)[:] = value
        target = Frame(0, Timestamp(0, Fraction(1, 25)), picture, View(64, 64), Colour(1, 1, 1, False), site)
        x = (np.arange(64, dtype=np.float32) + 0.5) / 64
        ramp = np.zeros((64, 64, 3), np.float32)
        ramp[..., 2] = x[None, :] * 0.5
        target.add((0, 0, 64, 64), ramp)
        cb = pixel_formats.view(picture, target.layout, 1)[16].astype(np.float32) - 128
        _, _, kb = target.colour.weights(64, 64)
        centres = (2 * np.arange(32) + 0.5 + site[0]) / 64
        expected = (1 - kb) * centres * 0.5 / (2 - 2 * kb) * 224
        assert np.abs(cb - expected)[1:-1].max() <= 0.6
        seen = target.region((0, 0, 64, 64))
        change = seen - target.region((0, 0, 64, 64)).mean()
        assert np.isfinite(change).all()


def test_aligned_input_is_restored_whole_with_no_mask():
    canvas = np.clip(portrait(128), 20, 190)
    stage = WholeFrameStage(256)
    work = next(iter(stage.process(FrameWork(frame(canvas)))))
    flat = np.full((256, 256, 3), 0.1, np.float32)
    before = luma(work)
    after = luma(compose(FrameWork(work.frame, patches=(Patch(work.crops[0], flat),))))
    assert abs((after - before).min() - 22) <= 1 and abs((after - before).max() - 22) <= 1


def test_the_label_is_drawn_in_the_corner_and_nowhere_else():
    canvas = np.full((480, 640, 3), 120, np.uint8)
    before = luma(FrameWork(frame(canvas)))
    change = luma(compose(FrameWork(frame(canvas)), label="faces restored")) - before
    rows, columns = np.nonzero(change)
    assert rows.min() > 430 and columns.max() < 320 and len(rows) > 500


def test_a_crop_that_misses_the_picture_is_no_crop():
    target = frame(np.zeros((64, 64, 3), np.uint8))
    away = np.array([[1.0, 0, 500], [0, 1.0, 500]])
    assert cut(target, away, 64) is None
