"""`compare`: pairing of frames, figures of a known difference, the contact sheet and the messages."""

import json
import math
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import pytest
from clips import make
from comparison import CHANGE, COUNT, LEFT, changed, film, pictures
from PIL import Image

from stream.errors import EncodeError, SourceError
from stream.lab.compare.comparison import ComparisonOutputs, compare
from stream.lab.compare.difference import colour_scale, companded, difference, heat, spot, suitable_gain
from stream.lab.compare.figures import Figure
from stream.lab.compare.medium import open_medium
from stream.lab.compare.motion_figures import STRETCH, stretches
from stream.lab.compare.pairs import PairedPictures, pair_by_time
from stream.lab.compare.selection import evenly_spaced, select_pairs


@dataclass(frozen=True)
class At:
    time_s: float


def numbers(first_ms, second_ms, tolerance_ms=20):
    """The pairs of times in ms; None stands for a missing partner."""
    items = (iter([At(t / 1000) for t in times]) for times in (first_ms, second_ms))
    pairs = pair_by_time(*items, tolerance_ms / 1000)
    return [tuple(one and round(1000 * one.time_s) for one in pair) for pair in pairs]


@pytest.fixture(scope="module")
def two(portrait, tmp_path_factory):
    """The files of videos A and B, and their pictures."""
    folder = tmp_path_factory.mktemp("two")
    frames = pictures(portrait)
    others = [changed(rgb, CHANGE if n == 8 else CHANGE // 2) for n, rgb in enumerate(frames)]
    return film(folder / "a.mp4", frames), film(folder / "b.mp4", others), frames, others


@pytest.fixture(scope="module")
def compared(two, tmp_path_factory):
    """The result of comparing both, its JSON, and the contact sheet."""
    folder = tmp_path_factory.mktemp("compared")
    outputs = ComparisonOutputs(sheet=folder / "sheet.png", json=folder / "facts.json")
    result = compare(two[0], two[1], outputs=outputs)
    return result, json.loads(outputs.json.read_text()), np.asarray(Image.open(outputs.sheet))


@pytest.fixture
def photos(portrait, tmp_path):
    """Two PNG files, A and B with the patches, and A's picture."""
    rgb = pictures(portrait, 1)[0]
    paths = tmp_path / "a.png", tmp_path / "b.png"
    for path, image in zip(paths, (rgb, changed(rgb)), strict=True):
        Image.fromarray(image).save(path)
    return *paths, rgb


def test_frames_belong_together_by_time_and_those_alone_are_told():
    assert numbers([0, 40, 80], [0, 40, 80]) == [(0, 0), (40, 40), (80, 80)]
    assert numbers([0, 33, 67, 100], [1, 34, 66, 101]) == [(0, 1), (33, 34), (67, 66), (100, 101)]
    assert numbers([0, 40, 80], [0, 80]) == [(0, 0), (40, None), (80, 80)]
    assert numbers([0, 80], [0, 20, 40, 60, 80], 10) == [(0, 0), (None, 20), (None, 40), (None, 60), (80, 80)]
    assert numbers([], [0, 40]) == [(None, 0), (None, 40)]


def test_frames_closer_than_half_a_usual_one_still_find_their_own():
    assert numbers([0, 10, 20, 90], [0, 20, 90]) == [(0, 0), (10, None), (20, 20), (90, 90)]
    assert numbers([0, 20, 90], [0, 10, 20, 90]) == [(0, 0), (None, 10), (20, 20), (90, 90)]


def test_the_figures_are_those_of_the_known_difference(compared, two):
    result, facts, _ = compared
    share = 2 * LEFT[2] * LEFT[3] / (640 * 480)
    for n, found in enumerate(facts["frames"]["difference"]):
        amount = CHANGE if n == 8 else CHANGE // 2
        assert found == pytest.approx(amount * share, abs=1e-6)
        assert facts["frames"]["psnr"]["b"][n] == pytest.approx(10 * math.log10(255**2 / (amount**2 * share)))
    mean = ((COUNT - 1) * (CHANGE // 2) ** 2 + CHANGE**2) / COUNT * share
    assert facts["figures"]["psnr"]["b"] == pytest.approx(10 * math.log10(255**2 / mean))
    assert facts["pairs"] == COUNT and not facts["only_a"] and not facts["only_b"]
    assert {"ssim", "gmsd", "haarpsi", "vif", "sharpness", "overshoot"} <= set(facts["figures"])
    for key in ("warping", "flicker", "jitter"):
        assert set(facts["figures"][key]) == {"a", "b"}
    assert all(figure.winner is None for figure in result.figures if "a" not in figure.values)


def test_the_sheet_shows_both_their_difference_and_the_face_enlarged(photos, tmp_path):
    a, b, rgb = photos
    compare(a, b, outputs=ComparisonOutputs(sheet=tmp_path / "sheet.png"))
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    levels = difference(rgb, changed(rgb))
    places = []
    for image in (rgb, changed(rgb), heat(levels, suitable_gain(levels))):
        found = cv2.matchTemplate(sheet, image, cv2.TM_SQDIFF)
        low, _, (x, y), _ = cv2.minMaxLoc(found)
        assert np.array_equal(sheet[y : y + 480, x : x + 640], image), low
        places.append((x, y))
    assert len({x for x, _ in places}) == 1 and places == sorted(places, key=lambda place: place[1])
    below = sheet[places[2][1] + 480 :]
    face = cv2.resize(rgb[60:300, 190:430], (240, 240))
    scales = [cv2.resize(face, None, fx=s, fy=s) for s in (1.2, 1.35, 1.5, 1.65, 1.8)]
    assert max(cv2.minMaxLoc(cv2.matchTemplate(below, s, cv2.TM_CCOEFF_NORMED))[1] for s in scales) > 0.9


def test_a_video_s_sheet_has_a_column_for_the_largest_difference(compared):
    _, _, sheet = compared
    gain = suitable_gain(np.full((9, 9), CHANGE, np.uint8))
    columns = {}
    for amount in (CHANGE, CHANGE // 2):
        hot = np.abs(sheet.astype(int) - colour_scale()[amount * gain]).max(axis=2) < 3
        found = np.flatnonzero(hot.sum(axis=0) > 30)
        columns[amount] = np.split(found, np.flatnonzero(np.diff(found) > 20) + 1)
    # Two patches in the frame with the largest difference, and in each of the four evenly spaced frames.
    assert [len(columns[CHANGE]), len(columns[CHANGE // 2])] == [2, 8]


def test_equal_pictures_are_called_identical(photos, tmp_path):
    a, _, rgb = photos
    Image.fromarray(rgb).save(tmp_path / "same.png")
    result = compare(a, tmp_path / "same.png", outputs=ComparisonOutputs(json=tmp_path / "facts.json"))
    texts = {figure.key: figure.text("b") for figure in result.figures}
    assert texts["psnr"] == "identical" and texts["ssim"] == "1.0000" and texts["overshoot"] == "0.00"
    assert json.loads((tmp_path / "facts.json").read_text())["figures"]["psnr"]["b"] is None


def test_against_a_reference_the_nearer_of_both_is_marked_better(photos, tmp_path):
    a, b, rgb = photos
    Image.fromarray(changed(rgb, 12)).save(tmp_path / "r.png")
    result = compare(a, b, tmp_path / "r.png")
    winners = {figure.key: figure.winner for figure in result.figures}
    assert winners["psnr"] == winners["ssim"] == winners["gmsd"] == "a"
    assert all(set(figure.values) == {"a", "b"} for figure in result.figures)


def test_sharpness_is_best_at_one():
    assert Figure("sharpness", {"a": 0.8, "b": 1.1}, 1).winner == "b"
    assert Figure("sharpness", {"a": 0.8, "b": 1.4}, 1).winner == "a"


def test_a_smaller_picture_is_enlarged_and_that_is_said(photos, tmp_path):
    a, _, rgb = photos
    small = cv2.resize(rgb, (320, 240), interpolation=cv2.INTER_AREA)
    Image.fromarray(small).save(tmp_path / "small.png")
    result = compare(tmp_path / "small.png", a, outputs=ComparisonOutputs(json=tmp_path / "facts.json"))
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["size"] == [640, 480]
    assert any("320x240, enlarged to 640x480 by Lanczos" in note for note in result.notes)
    known = cv2.PSNR(rgb, cv2.resize(small, (640, 480), interpolation=cv2.INTER_LANCZOS4))
    assert facts["figures"]["psnr"]["b"] == pytest.approx(known, abs=1e-3)


def test_unpaired_frames_are_counted_and_an_offset_finds_the_part(two, tmp_path):
    a, _, frames, others = two
    late = film(tmp_path / "late.mp4", others[4:9])
    result = compare(a, late, outputs=ComparisonOutputs(json=tmp_path / "facts.json"), offset_s=0.16)
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["frames"]["frame"] == [4, 5, 6, 7, 8]
    assert (facts["pairs"], facts["only_a"], facts["only_b"]) == (5, COUNT - 5, 0)
    assert any(f"{COUNT - 5} frames of A without a frame of B" in note for note in result.notes)
    pairs = list(
        PairedPictures(open_medium(a, 0.2, 0.12), open_medium(late, 0.2, 0.12, 0.16), None, (640, 480))
    )
    assert [round(pair.time_s, 3) for pair in pairs] == [0.2, 0.24, 0.28]
    assert all(np.array_equal(pair.a, frames[5 + n]) for n, pair in enumerate(pairs))
    assert all(np.array_equal(pair.b, others[5 + n]) for n, pair in enumerate(pairs))


def test_a_turned_video_is_compared_upright(tmp_path):
    turned = make(tmp_path / "turned.mp4", frames=3, rotation=90)
    medium = open_medium(turned)
    assert medium.size == (120, 160)
    assert next(medium.pictures()).rgb(medium.size).shape == (160, 120, 3)


def test_the_scale_rises_in_lightness_and_small_differences_survive_coding():
    luma = colour_scale() @ [0.299, 0.587, 0.114]
    assert (np.diff(luma) > -0.5).all() and luma[-1] - luma[0] > 200
    levels = np.tile(np.arange(256, dtype=np.uint8), (8, 1))
    kept = cv2.imdecode(cv2.imencode(".jpg", companded(levels), (cv2.IMWRITE_JPEG_QUALITY, 75))[1], 0)
    back = kept.astype(float) ** 2 / 255
    assert np.abs(back - levels)[:, 4:40].max() < 3


def test_the_spot_lies_where_most_differs():
    levels = np.zeros((240, 320), np.uint8)
    levels[200:230, 20:50] = 90
    x, y, width, height = spot(levels)
    assert x <= 20 and y <= 200 and x + width >= 50 and y + height >= 230
    assert x >= 0 and y + height <= 240


def test_the_frames_shown_are_spread_evenly_with_a_stretch_round_the_peak():
    difference = np.ones(1000)
    difference[700] = 5
    chosen = select_pairs(difference, 60)
    assert len(chosen.pairs) <= 60 and chosen.pairs[0] == 0 and chosen.pairs[-1] == 999
    assert 700 in chosen.dense and set(chosen.dense) <= set(chosen.pairs) and len(chosen.dense) == 20
    assert np.diff(chosen.pairs).max() < 30
    assert "of 1000 frames" in chosen.description(1000)
    assert select_pairs(difference, 1000).description(1000) == "all 1000 frames"
    assert evenly_spaced(10, 1) == [0] and evenly_spaced(3, 9) == [0, 1, 2]


def test_stretches_cover_short_clips_whole_and_long_ones_all_over():
    assert stretches(2) == [] and stretches(9) == [range(9)]
    long = stretches(5000)
    assert long[0][0] == 0 and long[-1][-1] == 4999 and {len(part) for part in long} == {STRETCH}
    assert all(first[-1] < second[0] for first, second in pairwise(long))


def test_what_cannot_be_compared_is_told_in_one_line(photos, two, tmp_path):
    a, b, rgb = photos
    cases = {
        "compare like with like": (a, two[0], ComparisonOutputs()),
        "no such file": (a, tmp_path / "none.png", ComparisonOutputs()),
        "wants two videos": (a, b, ComparisonOutputs(video=tmp_path / "v.mp4")),
        "folder does not exist": (a, b, ComparisonOutputs(sheet=tmp_path / "no" / "s.png")),
        "one of the inputs": (a, b, ComparisonOutputs(sheet=a, overwrite=True)),
        "for two outputs": (a, b, ComparisonOutputs(sheet=tmp_path / "s", json=tmp_path / "s")),
    }
    Image.fromarray(rgb[:200]).save(tmp_path / "wide.png")
    cases["another shape"] = (a, tmp_path / "wide.png", ComparisonOutputs())
    Image.fromarray(rgb[:40, :40]).save(tmp_path / "tiny.png")
    cases["too small"] = (tmp_path / "tiny.png", tmp_path / "tiny.png", ComparisonOutputs())
    (tmp_path / "old.png").write_bytes(b"old")
    cases["add --overwrite"] = (a, b, ComparisonOutputs(sheet=tmp_path / "old.png"))
    for words, (first, second, outputs) in cases.items():
        with pytest.raises((SourceError, EncodeError), match=words) as caught:
            compare(first, second, outputs=outputs)
        assert "\n" not in str(caught.value)
    with pytest.raises(SourceError, match="no two frames at the same time"):
        compare(two[0], two[1], offset_s=60)
    assert (tmp_path / "old.png").read_bytes() == b"old"


def test_the_command_prints_the_figures_and_writes_a_page_here(photos, run_cli, tmp_path):
    a, b, _ = photos
    done = run_cli("compare", a, b, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "PSNR, dB" in done.stdout and "wrote a-vs-b.html" in done.stdout
    assert (tmp_path / "a-vs-b.html").read_text().startswith("<!doctype html>")
    again = run_cli("compare", a, b, cwd=tmp_path)
    assert again.returncode == 1 and len(again.stderr.strip().splitlines()) == 1
    assert "a-vs-b.html: exists" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a.png", "b.png", "--layout", "both"), "--layout both"),
        (("a.png", "b.png", "c.png"), "--reference c.png"),
        (("x.html", "a.png", "b.png"), "compare A B x.html"),
        (("a.png", "b.png", "--sheet", "s.jpg"), "the sheet is a PNG"),
    ],
)
def test_wrong_usage_is_told_in_one_line(run_cli, tmp_path, arguments, words):
    done = run_cli("compare", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_command_line_loads_neither_torch_nor_skimage_nor_piq(run_cli):
    heavy = "'torch', 'skimage', 'piq', 'cv2'"
    code = f"import sys, stream.cli.main; print([name for name in ({heavy}) if name in sys.modules])"
    assert run_cli(code=code).stdout.strip() == "[]"
