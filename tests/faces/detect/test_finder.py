"""Faces, and only faces, are found at any size, rotation and pixel shape of the picture."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from conftest import SAMPLES
from drawn_faces import rgb_frame

from stream.config import Detect, Select
from stream.errors import ModelError
from stream.faces.detect.detectors import Haar, RetinaFace, overlap, suppress
from stream.faces.detect.finder import FaceFinder, choose, tiling
from stream.faces.track.face_axes import rms_length
from stream.media.decode import FileSource
from stream.media.probe import probe
from stream.picture.face import Detection

TURNS = {
    0: ((1, 0), (0, 1)),
    90: ((0, -1), (1, 0)),
    180: ((-1, 0), (0, -1)),
    270: ((0, 1), (-1, 0)),
    "mirrored": ((-1, 0), (0, 1)),
}


@pytest.fixture(scope="module")
def group() -> tuple[np.ndarray, list[dict]]:
    """The first picture of the group, RGB u8[540,960,3], and the people in it."""
    frame = next(iter(FileSource(probe(SAMPLES / "group.mp4")).frames()))
    truth = json.loads((SAMPLES / "group.truth.json").read_text())
    return np.rint(frame.thumbnail(960)[0] * 255).astype(np.uint8), truth["frames_truth"][0]


def stored(upright: np.ndarray, turn) -> np.ndarray:
    """The stored picture that a `View` with this turn shows as `upright`."""
    (a, b), (c, d) = turn
    image = upright[::-1] if c + d < 0 else upright
    image = image[:, ::-1] if a + b < 0 else image
    return image if a else image.swapaxes(0, 1)


def gap(hit: Detection, person: dict) -> float:
    """Root mean square distance of the landmarks in eye distances."""
    true = np.array(person["landmarks"])
    return rms_length(hit.landmarks - true) / float(np.linalg.norm(true[1] - true[0]))


def assert_all_found(hits: list[Detection], people: list[dict], within: float) -> None:
    assert len(hits) == len(people)
    for person in people:
        assert min(gap(hit, person) for hit in hits) < within


def test_every_face_of_the_group_is_found_where_it_is(finder, group):
    picture, people = group
    hits = finder(rgb_frame(picture))
    assert_all_found(hits, people, within=0.12)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(hit.landmarks.dtype == np.float32 and hit.box_xyxy.dtype == np.float32 for hit in hits)


@pytest.mark.parametrize("turn", TURNS)
def test_a_turned_or_mirrored_picture_has_the_same_faces(finder, group, turn):
    picture, people = group
    frame = rgb_frame(stored(picture, TURNS[turn]), turn=TURNS[turn])
    assert frame.view.upright_size == (960, 540)
    assert_all_found(finder(frame), people, within=0.12)


@pytest.mark.parametrize("sar", [Fraction(4, 3), Fraction(3, 4)])
def test_pixels_that_are_not_square_do_not_move_the_faces(finder, group, sar):
    picture, people = group
    size = (round(960 / sar), 540) if sar > 1 else (960, round(540 * sar))
    narrow = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    assert_all_found(finder(rgb_frame(narrow, sar=sar)), people, within=0.14)


def test_tiles_find_what_the_whole_picture_holds(group):
    picture, people = group
    large = cv2.resize(picture, (1440, 810), interpolation=cv2.INTER_CUBIC)
    finder = FaceFinder(Detect(max_side=8192, tile=640), threads=2)
    scaled = [{"landmarks": np.array(person["landmarks"]) * 1.5} for person in people]
    assert_all_found(finder(rgb_frame(large)), scaled, within=0.12)


@pytest.mark.parametrize(
    ("length", "side"), [(100, 640), (640, 640), (641, 640), (1920, 1024), (3840, 1024), (900, 64)]
)
def test_tiles_cover_the_picture_and_overlap(length, side):
    starts, size = tiling(length, side)
    assert starts[0] == 0 and starts[-1] + size == length
    for first, second in pairwise(starts):
        assert first + size - second >= 128


def test_no_face_is_seen_in_clutter(finder):
    rng = np.random.default_rng(3)
    for _ in range(6):
        coarse = rng.uniform(0, 255, (18, 32, 3)).astype(np.float32)
        picture = cv2.resize(coarse, (640, 360), interpolation=cv2.INTER_CUBIC)
        for _ in range(60):
            at = tuple(int(v) for v in rng.uniform(0, 1, 2) * (640, 360))
            reach, colour = int(rng.uniform(2, 30)), tuple(rng.uniform(0, 255, 3))
            cv2.ellipse(picture, at, (reach, max(1, reach // 2)), rng.uniform(0, 180), 0, 360, colour, -1)
            cv2.circle(picture, (at[0] + 2 * reach, at[1]), reach, colour, -1)
        assert finder.certain(rgb_frame(np.clip(picture, 0, 255).astype(np.uint8))) == []


def test_refining_steadies_the_landmarks(group):
    picture, _ = group
    scatter = {}
    for refine in (False, True):
        finder = FaceFinder(Detect(refine=refine), threads=2)
        places = []
        for shift in range(6):
            hits = finder(rgb_frame(picture[shift : shift + 352, 480 + 2 * shift : 896 + 2 * shift]))
            best = min(hits, key=lambda hit: -hit.score)
            places.append(best.landmarks + np.float32([2 * shift, shift]))
        scatter[refine] = np.std(places, axis=0).mean()
    assert scatter[True] < scatter[False]


def test_haar_finds_a_portrait_and_guesses_its_landmarks():
    portrait = cv2.imread(str(SAMPLES / "faces" / "congress_K000382_0.jpg"))[..., ::-1]
    hits = FaceFinder(Detect(detector="haar"))(rgb_frame(portrait))
    assert len(hits) == 1
    true = [[113.91, 132.99], [178.56, 134.32], [142.54, 167.09], [118.46, 196.72], [174.55, 198.3]]
    assert gap(hits[0], {"landmarks": true}) < 0.25
    assert Haar().detect(np.zeros((200, 200, 3), np.float32)) == []


def test_retinaface_without_usable_weights_is_refused_in_one_line(tmp_path):
    other = tmp_path / "other.pth"
    torch.save({"x": torch.zeros(1)}, other)
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"no weights")
    for path in (None, str(tmp_path / "missing.pth"), str(other), str(broken)):
        with pytest.raises(ModelError) as caught:
            RetinaFace(path, 0.5)
        assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning:torchvision")
def test_retinaface_loads_weights_of_the_right_shapes(tmp_path):
    from facexlib.detection.retinaface import RetinaFace as Net

    path = tmp_path / "random.pth"
    state = Net("resnet50", device="cpu").state_dict()
    torch.save({f"module.{key}": value for key, value in state.items()}, path)
    hits = RetinaFace(str(path), 0.05).detect(np.random.default_rng(0).random((96, 128, 3), np.float32))
    assert all(hit.landmarks.shape == (5, 2) and 0.05 <= hit.score <= 1 for hit in hits)


# --- choosing ---------------------------------------------------------------------------------


def hit_at(x: float, y: float, height: float, score: float = 0.9) -> Detection:
    box = np.array([x - height / 2, y - height / 2, x + height / 2, y + height / 2], np.float32)
    return Detection(box, np.zeros((5, 2), np.float32), score)


FACES = [hit_at(100, 100, 40, 0.6), hit_at(300, 100, 120), hit_at(500, 300, 80, 0.4)]


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ({}, [0, 1, 2]),
        ({"min_size": 60.0}, [1, 2]),
        ({"max_size": 100.0}, [0, 2]),
        ({"min_score": 0.5}, [0, 1]),
        ({"max_faces": 1}, [1]),
        ({"max_faces": 2}, [1, 2]),
        ({"include": ((0.0, 0.0, 0.5, 0.5),)}, [0, 1]),
        ({"exclude": ((0.0, 0.0, 0.25, 1.0),)}, [1, 2]),
    ],
)
def test_faces_are_chosen_by_size_score_region_and_number(select, expected):
    chosen = choose(FACES, Select(**select), (640, 480))
    assert [FACES.index(face) for face in chosen] == expected


def test_the_best_of_overlapping_detections_is_kept():
    kept = suppress([hit_at(100, 100, 40, 0.5), hit_at(104, 100, 40, 0.8), hit_at(200, 100, 40, 0.6)], 0.3)
    assert [hit.score for hit in kept] == [0.8, 0.6]
    boxes = np.array([[0, 0, 10, 10], [0, 0, 5, 10]], float)
    assert overlap(boxes, boxes)[0, 1] == pytest.approx(0.5)
    assert overlap(boxes, boxes, of_smaller=True)[0, 1] == pytest.approx(1.0)
