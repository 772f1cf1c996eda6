"""`align` aligns the faces of photos and videos to the template, and counts unsuitable ones."""

import json
import shutil

import cv2
import numpy as np
import pytest
from conftest import SAMPLES
from PIL import Image

from stream.errors import ConfigError, EncodeError, SourceError
from stream.faces.detect.detectors import CenterFace
from stream.lab.train.align import JOURNAL, AlignSettings, align
from stream.lab.train.training_pairs import read_face
from stream.picture.geometry import template

FACES = sorted((SAMPLES / "faces").glob("congress_*.jpg"))
BOUND = 0.1
"""Largest mean distance of the landmarks from the template, in eye distances. It comes from the shape of
real faces and from the detector's variation."""


def photo(face, path, *, turn=0.0, scale=1.4, blur=0.0, at=(500, 400), size=(1000, 800)):
    """Write a grey picture with one face; returns the affine f64[2,3] from px of the face."""
    rgb = np.asarray(Image.open(face).convert("RGB"))
    affine = cv2.getRotationMatrix2D((144, 144), turn, scale)
    affine[:, 2] += np.array(at) - 144
    wall = np.full((size[1], size[0], 3), 120, np.uint8)
    picture = cv2.warpAffine(
        rgb, affine, size, wall, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_TRANSPARENT
    )
    if blur:
        picture = cv2.GaussianBlur(picture, (0, 0), blur)
    Image.fromarray(picture).save(path, quality=97, subsampling=0)
    return affine


def off_template(path):
    """Mean distance of a file's landmarks from the template, in eye distances."""
    rgb = np.asarray(Image.open(path).convert("RGB"), np.float32) / 255
    marks = template("ffhq_512", 256) + 16
    (hit, *_) = CenterFace(0.3).detect(rgb)
    eyes = np.linalg.norm(marks[1] - marks[0])
    return np.linalg.norm(hit.landmarks - marks, axis=1).mean() / eyes


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """A folder of photos, the folder of their faces, and the counts."""
    folder = tmp_path_factory.mktemp("album")
    photos, faces = folder / "photos", folder / "faces"
    (photos / "trip").mkdir(parents=True)
    for n, (face, turn) in enumerate(zip(FACES[:4], (0, 25, -40, 12), strict=True)):
        photo(face, photos / "trip" / f"p{n}.jpg", turn=turn)
    photo(FACES[0], photos / "blurred.jpg", blur=4)
    photo(FACES[1], photos / "small.png", scale=0.5)
    photo(FACES[2], photos / "edge.jpg", at=(110, 400))
    Image.fromarray(np.full((300, 400, 3), 99, np.uint8)).save(photos / "empty.png")
    (photos / "broken.jpg").write_bytes(b"no picture")
    return photos, faces, align(photos, faces)


def test_faces_lie_on_the_template_however_the_head_was_held(album):
    _, faces, counts = album
    files = sorted(faces.glob("*.jpg"))
    assert [path.name for path in files] == [f"trip-p{n}_0.jpg" for n in range(4)]
    assert counts.kept == 4
    for path in files:
        assert read_face(path, 256).shape == (288, 288, 3)
        assert off_template(path) < BOUND


def test_a_face_comes_out_as_it_went_in(album):
    for n in range(4):
        ours = np.asarray(Image.open(album[1] / f"trip-p{n}_0.jpg"), np.float32)
        theirs = np.asarray(Image.open(FACES[n]).convert("RGB"), np.float32)
        small = [
            cv2.resize(image[48:240, 48:240], (48, 48), interpolation=cv2.INTER_AREA)
            for image in (ours, theirs)
        ]
        assert np.corrcoef(small[0].ravel(), small[1].ravel())[0, 1] > 0.9


def test_what_is_left_out_is_counted_by_its_reason(album):
    _, _, counts = album
    assert counts.left_out == {"blurred": 1, "small": 1, "cut off": 1}
    assert counts.empty == 1 and counts.files == 8
    assert len(counts.problems) == 1 and "broken.jpg" in counts.problems[0] and "\n" not in counts.problems[0]


def test_files_are_jpegs_without_chroma_loss_or_png(album, tmp_path):
    with Image.open(album[1] / "trip-p0_0.jpg") as image:
        assert image.layer[0][1:3] == image.layer[1][1:3] == (1, 1)
    source = album[0] / "trip" / "p0.jpg"
    assert align(source, tmp_path / "png", AlignSettings(format="png")).kept == 1
    assert Image.open(tmp_path / "png" / "p0_0.png").size == (288, 288)


def test_a_second_run_does_only_what_is_new_or_changed(album, tmp_path):
    photos, faces = tmp_path / "photos", tmp_path / "faces"
    shutil.copytree(album[0] / "trip", photos)
    seen = []
    assert align(photos, faces, on_file=seen.append).kept == 4
    before = {path: path.stat().st_mtime_ns for path in faces.glob("*.jpg")}
    photo(FACES[4], photos / "new.jpg")
    photo(FACES[0], photos / "p1.jpg")
    seen.clear()
    counts = align(photos, faces, on_file=seen.append)
    assert sorted(path.rpartition("/")[2] for path in seen) == ["new.jpg", "p1.jpg"]
    assert (counts.skipped, counts.files, counts.kept) == (3, 2, 2)
    touched = {path.name for path in faces.glob("*.jpg") if path.stat().st_mtime_ns != before.get(path)}
    assert touched == {"new_0.jpg", "p1_0.jpg"}


def test_a_journal_that_was_cut_off_costs_one_file(album, tmp_path):
    faces = tmp_path / "faces"
    align(album[0] / "trip", faces)
    journal = faces / JOURNAL
    journal.write_text(journal.read_text()[:-30])
    assert align(album[0] / "trip", faces).files == 1
    assert align(album[0] / "trip", faces).files == 0


def test_one_folder_is_made_with_one_set_of_rules(album):
    with pytest.raises(ConfigError, match="other settings; name another folder"):
        align(album[0], album[1], AlignSettings(size=512))


def test_a_video_gives_a_face_now_and_then(portrait, tmp_path):
    settings = AlignSettings(min_scale=0.5, min_sharpness=0, every_s=2)
    counts = align(portrait, tmp_path / "faces", settings)
    files = sorted(path.name for path in (tmp_path / "faces").glob("*.jpg"))
    assert files == [f"portrait_{frame:06d}0.jpg" for frame in (0, 50, 100, 150, 200)]
    assert counts.kept == 5
    for name in files:
        assert off_template(tmp_path / "faces" / name) < 2 * BOUND  # she turns her head


def test_nothing_to_do_is_told_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no picture and no video"):
        align(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(SourceError, match="no such file"):
        align(tmp_path / "none", tmp_path / "out")
    with pytest.raises(EncodeError, match="is IN itself"):
        align(tmp_path / "empty", tmp_path / "empty")
    with pytest.raises(ConfigError, match="--size 128"):
        AlignSettings(size=128)
    with pytest.raises(ConfigError, match="--format gif"):
        AlignSettings(format="gif")


def test_the_command_says_what_came_of_it(album, run_cli, tmp_path):
    done = run_cli("align", album[0], tmp_path / "faces")
    assert done.returncode == 1  # one file could not be read
    assert "4 faces of 8 files; left out: 1 blurred, 1 cut off, 1 small" in done.stdout.replace("\n", " ")
    assert sum(line.startswith("error: ") for line in done.stderr.splitlines()) == 1
    lines = (tmp_path / "faces" / JOURNAL).read_text().splitlines()
    assert json.loads(lines[0])["rules"]["size"] == 256 and len(lines) == 9
