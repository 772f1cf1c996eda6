"""Sharp faces are not restored: the measure of sharpness, and its stability over time."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_faces import PORTRAITS, Brighter, face_at, frame

from stream.config import Config, Restore
from stream.faces.compose.compose_stage import ComposeStage
from stream.faces.restore import sharpness
from stream.faces.restore.crop import CropStage
from stream.faces.restore.restore_stage import RestoreStage
from stream.faces.restore.sharpness import SharpnessMeter, restoration_weight
from stream.picture import pixel_formats
from stream.picture.face import Crop, FrameWork
from stream.picture.frame import View

LIMIT = Restore().skip_sharp
SAME_SIZE = np.array([[1.0, 0, 0], [0, 1.0, 0]])


def portrait(path: Path = PORTRAITS[0]) -> np.ndarray:
    """An aligned face f32[256,256,3]."""
    return cv2.imread(str(path))[16:272, 16:272, ::-1].astype(np.float32) / 255


def eight_bits(image: np.ndarray) -> np.ndarray:
    return (np.rint(np.clip(image, 0, 1) * 255) / 255).astype(np.float32)


def noisy(image: np.ndarray, levels: float, seed: int = 0) -> np.ndarray:
    return image + np.random.default_rng(seed).normal(0, levels / 255, image.shape)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    data = cv2.imencode(
        ".jpg", (image[..., ::-1] * 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    return cv2.imdecode(data[1], 1)[..., ::-1].astype(np.float32) / 255


def sharp(image: np.ndarray, scale: float = 1.0) -> float:
    return sharpness.sharpness_of_gain(sharpness.predicted_gain(eight_bits(image), scale))


@pytest.mark.parametrize("path", PORTRAITS, ids=lambda path: path.stem)
def test_a_clean_face_is_left_alone_and_a_damaged_one_is_not(path):
    face = portrait(path)
    assert restoration_weight(sharp(face), LIMIT) == 0
    assert restoration_weight(sharp(cv2.GaussianBlur(face, (0, 0), 2)), LIMIT) > 0.9
    assert restoration_weight(sharp(noisy(face, 15)), LIMIT) > 0.9, "noise counts as sharp"
    assert restoration_weight(sharp(jpeg(face, 8)), LIMIT) > 0.9, "blocks count as sharp"


def test_more_blur_is_less_sharp():
    face = portrait()
    seen = [sharp(cv2.GaussianBlur(face, (0, 0), sigma)) for sigma in (0.4, 0.8, 1.2, 2.0)]
    assert seen == sorted(seen, reverse=True)


def test_a_crop_of_another_size_is_judged_alike():
    face = cv2.GaussianBlur(portrait(), (0, 0), 1.0)
    twice = cv2.resize(face, (512, 512), interpolation=cv2.INTER_CUBIC)
    one, two = (sharpness.predicted_gain(eight_bits(f), s) for f, s in ((face, 1.0), (twice, 0.5)))
    assert abs(one - two) < 0.3


def test_the_weight_falls_from_1_to_0_without_a_step_and_a_limit_of_1_spares_none():
    weights = [restoration_weight(s, 0.7) for s in np.linspace(0, 1, 1001)]
    assert weights[0] == 1 and weights[-1] == 0
    assert max(np.abs(np.diff(weights))) < 0.005 and max(np.diff(weights)) <= 0
    assert restoration_weight(1.0, 1.0) == 1


def still_clip(frames: int) -> list[np.ndarray]:
    """A still, moderately sharp face with new noise in every frame."""
    face = cv2.GaussianBlur(portrait(), (0, 0), 1.05)
    return [eight_bits(noisy(face, 4, seed)) for seed in range(frames)]


def test_the_weight_of_a_still_noisy_face_does_not_flicker():
    clip = still_clip(40)
    meter = SharpnessMeter(by_track=True)
    shown = [meter(image, SAME_SIZE, 1) for image in clip]
    limit = float(np.median(shown)) + 0.1  # in the middle of the ramp, where flicker would be most visible
    weights = [restoration_weight(s, limit) for s in shown]
    assert min(weights) > 0.1 and max(weights) < 0.9
    assert max(weights) - min(weights) < 0.05
    assert max(np.abs(np.diff(weights))) < 0.02


def test_the_sharpness_rests_on_earlier_frames_of_the_same_track_only():
    clip = still_clip(6)
    other = eight_bits(portrait(PORTRAITS[1]))
    plain, mixed = SharpnessMeter(by_track=True), SharpnessMeter(by_track=True)
    alone = [plain(image, SAME_SIZE, 1) for image in clip]
    between = []
    for image in clip:
        between.append(mixed(image, SAME_SIZE, 1))
        mixed(other, SAME_SIZE, 2)
    assert alone == between
    again = SharpnessMeter(by_track=True)
    assert [again(image, SAME_SIZE, 1) for image in clip[:3]] == alone[:3]


def test_a_face_that_turns_soft_is_followed():
    meter = SharpnessMeter(by_track=True)
    face = eight_bits(portrait())
    before = [meter(face, SAME_SIZE, 1) for _ in range(20)][-1]
    soft = eight_bits(cv2.GaussianBlur(face, (0, 0), 2.5))
    after = [meter(soft, SAME_SIZE, 1) for _ in range(30)]
    assert restoration_weight(before, LIMIT) == 0 and restoration_weight(after[-1], LIMIT) > 0.9
    assert max(np.abs(np.diff([before, *after]))) < 0.15, "it jumped"


def test_unrelated_pictures_are_judged_one_by_one():
    meter = SharpnessMeter(by_track=False)
    face = eight_bits(portrait())
    soft = eight_bits(cv2.GaussianBlur(face, (0, 0), 2.5))
    first = meter(face, SAME_SIZE, 0)
    assert meter(soft, SAME_SIZE, 0) == meter(soft, SAME_SIZE, 0) < first == meter(face, SAME_SIZE, 0)


# --- in the stages ------------------------------------------------------------------------------


def test_a_sharp_crop_never_reaches_the_network_and_a_fairly_sharp_one_gets_less():
    grey, view = np.full((8, 8, 3), 0.4, np.float32), View(8, 8)
    crops = tuple(Crop(face_at(0, 0, 8), grey, SAME_SIZE, view, s) for s in (0.9, 0.1, 0.575, 0.7))
    engine = Brighter()
    stage = RestoreStage(lambda: engine, 4, 1.0, skip_sharp=0.7)
    stage.open()
    blank = frame(np.zeros((16, 16, 3), np.uint8))
    done = [*stage.process(FrameWork(blank, crops=crops)), *stage.flush()]
    (work,) = done
    assert len(engine.seen) == stage.counts.restored == 2 and stage.counts.left_alone == 2
    np.testing.assert_allclose(work.patches[0].residual, 0.1, atol=1e-6)
    np.testing.assert_allclose(work.patches[1].residual, 0.05, atol=1e-6)


def test_a_frame_with_sharp_faces_alone_does_not_wait_for_a_batch():
    stage = RestoreStage(Brighter, 4, 1.0, skip_sharp=0.7)
    stage.open()
    crop = Crop(face_at(0, 0, 8), np.full((8, 8, 3), 0.4, np.float32), SAME_SIZE, View(8, 8), 0.9)
    work = FrameWork(frame(np.zeros((16, 16, 3), np.uint8)), crops=(crop,))
    assert len(list(stage.process(work))) == 1


def test_a_face_free_frame_goes_through_crop_restore_and_compose_uncopied():
    rng = np.random.default_rng(0)
    work = FrameWork(frame(rng.integers(0, 255, (72, 128, 3)).astype(np.uint8), pix_fmt="yuv420p"))
    picture = work.frame.picture
    places = [plane.buffer_ptr for plane in picture.planes]
    before = [pixel_formats.view(picture, work.frame.layout, i).copy() for i in range(3)]
    restore = RestoreStage(Brighter, 4, 1.0, skip_sharp=0.7)
    restore.open()
    crop = CropStage("ffhq_512", 256, lambda faces, _: faces, SharpnessMeter(by_track=True))
    for stage in (crop, restore, ComposeStage(0.16)):
        (work,) = stage.process(work)
    assert work.frame.picture is picture
    assert [plane.buffer_ptr for plane in picture.planes] == places, "a plane was copied"
    for i, plane in enumerate(before):
        np.testing.assert_array_equal(pixel_formats.view(picture, work.frame.layout, i), plane)


def test_a_sharp_picture_comes_out_as_it_went_in_and_the_report_says_so(tmp_path):
    from stream.job import api

    path = tmp_path / "in.png"
    canvas = np.full((400, 400, 3), 120, np.uint8)
    canvas[60:348, 60:348] = cv2.imread(str(PORTRAITS[0]))
    cv2.imwrite(str(path), canvas)
    outcome = api.restore_file(path, tmp_path / "out.png")
    assert (outcome.report["faces_left_alone"], outcome.report["faces_restored"]) == (1, 0)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "out.png")), canvas)
    config = Config()
    config = config.model_copy(update={"restore": config.restore.model_copy(update={"skip_sharp": 1.0})})
    outcome = api.restore_file(path, tmp_path / "all.png", config)
    assert (outcome.report["faces_left_alone"], outcome.report["faces_restored"]) == (0, 1)
    assert (cv2.imread(str(tmp_path / "all.png")) != canvas).any()


def test_crops_have_their_sharpness():
    rgb = np.full((300, 300, 3), 120, np.uint8)
    rgb[6:294, 6:294] = cv2.imread(str(PORTRAITS[0]))[..., ::-1]
    work = FrameWork(frame(rgb, pix_fmt="yuv420p"), faces=(face_at(22, 22, 256, 3),))
    (done,) = CropStage("ffhq_512", 256, lambda faces, _: faces, SharpnessMeter(by_track=True)).process(work)
    assert done.crops[0].sharpness > 0.7
