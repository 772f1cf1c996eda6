"""`gpen-stream evaluate` on public-domain portraits through the real command, and the shipped weights."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import cv2
import numpy as np
import pytest
from conftest import SAMPLES
from PIL import Image
from skimage import data
from small_models import write_model
from waiting import LIMIT_S

from stream.config import Restore
from stream.errors import ConfigError, ModelError, SourceError
from stream.lab.damage import LEVELS
from stream.lab.quality import tables
from stream.lab.quality.contender import Contender
from stream.lab.quality.evaluation import LARGEST_PSNR, damaged, evaluate
from stream.lab.quality.picture_measures import psnr, ssim
from stream.lab.quality.portraits import Portrait, person_of, read_portraits, source_of, split
from stream.picture import geometry

pytestmark = pytest.mark.timeout(600)  # many tests share one evaluation as their fixture

FACES = SAMPLES / "faces"
PEOPLE = 4
MODEL = "gpen-lite-256"
SHIPPED = f"{MODEL}, as shipped"

# Bounds slightly below the results of the shipped weights on four portraits, so that no worse model can
# replace them. By row, level and figure: bounds of the difference from the input, or of the figure ("=").
BOUNDS = {
    MODEL: {
        "near-clean": {"psnr": (0.3, 9), "haarpsi": (-0.003, 1), "sharpness=": (0.8, 1.1)},
        "mild": {"psnr": (0.8, 9), "ssim": (0.007, 1), "haarpsi": (0.011, 1), "sharpness=": (0.6, 1.1)},
        "medium": {
            "psnr": (1.6, 9), "ssim": (0.08, 1), "gmsd": (-1, -0.04), "haarpsi": (0.1, 1),
            "vif": (0.048, 1), "sharpness=": (0.37, 1.1),
        },
        "heavy": {
            "psnr": (1.35, 9), "ssim": (0.078, 1), "gmsd": (-1, -0.035), "haarpsi": (0.11, 1),
            "vif": (0.048, 1), "sharpness=": (0.31, 1.1),
        },
    },
    SHIPPED: {
        "near-clean": {"psnr": (-0.05, 9)},
        "mild": {"psnr": (0.47, 9)},
        "medium": {"psnr": (1.6, 9)},
        "heavy": {"psnr": (1.35, 9)},
    },
}  # fmt: skip
IDENTITY_MOST = {"near-clean": 0.01, "mild": 0.02, "medium": 0.035, "heavy": 0.035}
"""Largest increase of the mean over four faces, which varies by as much. Over 48 faces no level is worse as
shipped (docs/quality.md)."""
OVERSHOOT_MOST = 0.015
CURLY = {"near-clean": (-3.6, -0.015), "mild": (-0.85, -0.003), "medium": (0.45, 0.006), "heavy": (1.1, 0.1)}
"""Least gain in dB and in SSIM on the portrait with curly hair. The portrait is soft at this size, so that a
near-clean one loses. The previous weights lost 4.9, 1.9 and 0.2 dB, and gained 0.5 dB."""


@pytest.fixture(scope="module")
def run(run_cli, tmp_path_factory):
    """One evaluation of the shipped weights: its output and its JSON."""
    path = tmp_path_factory.mktemp("evaluate") / "report.json"
    arguments = ("--model", MODEL, "--faces", FACES, "--limit", PEOPLE, "--json", path, "--identity")
    done = run_cli("evaluate", *arguments, timeout_s=560)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(path.read_text())


# --- the shipped weights ------------------------------------------------------------------------


@pytest.mark.parametrize("row", list(BOUNDS))
def test_the_shipped_weights_are_within_bounds(run, row):
    for level, figures in BOUNDS[row].items():
        means = run[1]["middles"][level]
        for name, (low, high) in figures.items():
            figure = name.rstrip("=")
            value = means[row][figure] - (0 if name.endswith("=") else means["input"][figure])
            assert low <= value <= high, f"{row}, {level}, {name}: {value:.4f}"


def test_the_shipped_weights_keep_the_person_and_do_not_overshoot(run):
    for level, rows in run[1]["middles"].items():
        assert rows[SHIPPED]["identity"] <= rows["input"]["identity"] + IDENTITY_MOST[level], level
        assert rows[MODEL]["overshoot"] <= OVERSHOOT_MOST, level


def curly() -> Portrait:
    """NASA's portrait of Eileen Collins, aligned by the truth of the portrait sample."""
    truth = json.loads((SAMPLES / "portrait.truth.json").read_text())["frames_truth"][0][0]
    marks = geometry.apply(geometry.invert(np.array(truth["rigid"])), np.array(truth["landmarks"]))
    to_picture = geometry.similarity(geometry.template("ffhq_512", 256), marks)
    rgb = data.astronaut().astype(np.float32)
    picture = geometry.warp(rgb, to_picture, (256, 256), cv2.BORDER_REFLECT_101)
    return Portrait("nasa_collins_0", np.clip(np.rint(picture), 0, 255).astype(np.uint8))


@pytest.mark.parametrize("level", list(CURLY))
def test_curly_hair_is_not_painted(level):
    """Outlines drawn into hair lower PSNR and SSIM; the previous weights fail at every level."""
    portrait, (gain, structure) = curly(), CURLY[level]
    contender = Contender(MODEL, None, 1)
    bad = damaged(portrait, level)
    before, after = (
        {figure: measure(picture, portrait.picture) for figure, measure in (("psnr", psnr), ("ssim", ssim))}
        for picture in (bad, contender.bare(bad))
    )
    contender.close()
    assert after["psnr"] - before["psnr"] >= gain
    assert after["ssim"] - before["ssim"] >= structure


# --- the command --------------------------------------------------------------------------------


def test_the_table_has_every_level_row_and_figure(run):
    shown, report = run
    for text in (*LEVELS, "input", "unsharp mask", "non-local means", MODEL, SHIPPED):
        assert text in shown
    for heading in tables.HEADINGS.values():
        assert heading in shown or heading == "LPIPS"
    assert len(report["faces"]) == PEOPLE and set(report["faces"]) <= {path.stem for path in FACES.iterdir()}
    assert report["rows"] == ["input", "unsharp mask", "non-local means", MODEL, SHIPPED]
    assert len(report["by_face"]["mild"][MODEL]["psnr"]) == PEOPLE


def test_damage_gets_worse_from_level_to_level(run):
    inputs = [run[1]["middles"][level]["input"] for level in LEVELS]
    for figure, better in (
        ("psnr", 1),
        ("ssim", 1),
        ("haarpsi", 1),
        ("vif", 1),
        ("gmsd", -1),
        ("identity", -1),
    ):
        values = [better * each[figure] for each in inputs]
        assert values == sorted(values, reverse=True), figure


def test_every_difference_has_its_interval_and_verdict(run):
    report = run[1]
    better = {"psnr": 1, "gmsd": -1}
    for each in report["differences"]:
        assert each["low"] <= each["difference"] <= each["high"]
        assert each["pairs"] == PEOPLE or each["figure"] == "landmarks"
        if each["figure"] in better:
            sign = better[each["figure"]]
            ends = sorted((sign * each["low"], sign * each["high"]))
            expected = "better" if ends[0] > 0 else "worse" if ends[1] < 0 else ""
            assert each["verdict"] == expected
    compared = {(each["row"], each["against"]) for each in report["differences"]}
    assert compared >= {
        (MODEL, "input"),
        (SHIPPED, "input"),
        (MODEL, "unsharp mask"),
        ("unsharp mask", "input"),
    }


def test_unsharp_masking_sharpens_and_overshoots_on_good_pictures(run):
    for level in ("near-clean", "mild"):
        rows = run[1]["middles"][level]
        assert rows["unsharp mask"]["sharpness"] > 1.6 * rows["input"]["sharpness"]
        assert rows["unsharp mask"]["overshoot"] > rows["input"]["overshoot"] + 0.02
        assert rows["unsharp mask"]["psnr"] < rows["input"]["psnr"]


def test_figures_repeat_whichever_other_faces_levels_and_threads_there_are(run):
    """The other run was a process of its own, with two threads, more faces and all levels."""
    at, portrait = 2, next(each for each in read_portraits(FACES) if each.name == run[1]["faces"][2])
    model = Contender(MODEL)
    again = evaluate({MODEL: model.bare, SHIPPED: model.shipped}, [portrait], ["medium"], identity=True)
    for row, figures in again.values["medium"].items():
        for figure, values in figures.items():
            assert values[0] == pytest.approx(run[1]["by_face"]["medium"][row][figure][at], rel=1e-3), figure
    model.close()


def test_a_second_model_is_compared_with_the_first(run_cli, tmp_path):
    other = write_model(tmp_path / "other.safetensors", answer=(0.5, 0.5, 0.5))
    path = tmp_path / "report.json"
    arguments = ("--model", MODEL, "--against", other, "--faces", FACES, "--limit", 2, "--levels", "medium")
    done = run_cli("evaluate", *arguments, "--no-identity", "--json", path)
    assert done.returncode == 0, done.stderr
    report = json.loads(path.read_text())
    assert report["rows"][-1] == "other" and list(report["against"]) == ["other"]
    [psnr] = [
        each for each in report["differences"]
        if (each["row"], each["against"], each["figure"]) == (MODEL, "other", "psnr")
    ]  # fmt: skip
    assert psnr["verdict"] == "better" and psnr["low"] > 5
    assert "identity" not in report["figures"]


def test_wrong_use_is_told_in_one_line(run_cli, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    Image.new("RGB", (200, 200)).save(small / "a.png")
    (tmp_path / "empty").mkdir()
    faces = ("--model", MODEL, "--faces", FACES)
    for arguments, said in (
        (("--model", MODEL, "--faces", tmp_path / "none"), "no such folder"),
        (("--model", MODEL, "--faces", tmp_path / "empty"), "holds no faces"),
        (("--model", MODEL, "--faces", small), "a.png: is 200x200; aligned faces are 256x256 or 288x288"),
        (("--model", "no-such-model", "--faces", FACES), "neither a model's name nor a file"),
        ((*faces, "--levels", "mild,awful"), "--levels awful: unknown"),
        ((*faces, "--split", "half"), "--split half: unknown"),
        ((*faces, "--json", tmp_path / "no" / "x.json"), "its folder does not exist"),
    ):
        done = run_cli("evaluate", *arguments)
        assert done.returncode in (1, 2) and done.stderr.count("\n") == 1 and said in done.stderr


def test_the_command_line_loads_no_yardstick_until_it_is_asked_for_one():
    heavy = "'torch', 'skimage', 'piq', 'scipy'"
    code = f"import sys, stream.cli.main; print([name for name in ({heavy}) if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT_S)
    assert done.stdout.strip() == "[]", done.stderr


# --- halves -------------------------------------------------------------------------------------


def names(people: int, pictures: int = 1) -> list[str]:
    return [
        f"{source}_{i:04d}_{n}" for source in ("a", "bc", "d") for i in range(people) for n in range(pictures)
    ]


def test_halves_are_exact_disjoint_and_of_every_source():
    for people in (16, 7):
        choose, report = split(names(people), "choose"), split(names(people), "report")
        assert sorted(choose + report) == sorted(names(people))
        assert abs(len(choose) - len(report)) <= 1
        for half in (choose, report):
            counts = Counter(map(source_of, half))
            assert all(abs(counts[source] - people / 2) <= 1 for source in ("a", "bc", "d"))
    assert len(split(names(16), "choose")) == 24


def test_no_person_is_in_both_halves_and_order_does_not_matter():
    every = names(9, pictures=3)
    choose = split(every, "choose")
    assert not {person_of(name) for name in choose} & {person_of(name) for name in split(every, "report")}
    assert split(every[::-1], "choose") == choose
    with pytest.raises(ConfigError):
        split(every, "both")


def test_a_margin_is_cut_off_and_another_size_refused(tmp_path):
    whole = np.random.default_rng(0).integers(0, 256, (288, 288, 3), np.uint8)
    for name, picture in (("x_1_0", whole), ("x_2_0", whole[:256, :256])):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    (tmp_path / "notes.txt").write_text("no face")
    with_margin, plain = read_portraits(tmp_path)
    assert (with_margin.picture == whole[16:-16, 16:-16]).all()
    assert (plain.picture == whole[:256, :256]).all()
    (tmp_path / "x_3_0.jpg").write_bytes(b"no picture")
    with pytest.raises(SourceError, match=r"x_3_0\.jpg"):
        read_portraits(tmp_path)


# --- contenders ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def portrait():
    return read_portraits(FACES)[0]


def test_the_model_as_shipped_is_what_restore_shows(portrait, run_cli, tmp_path):
    """The test looks at the middle only, because restore blends the crop's rim into the picture."""
    contender = Contender(MODEL)
    for level in ("mild", "heavy"):
        bad = damaged(portrait, level)
        Image.fromarray(bad).save(tmp_path / "bad.png")
        done = run_cli("restore", tmp_path / "bad.png", tmp_path / "good.png", "--aligned", "--overwrite",
                       "--set", "restore.precision=fp32", "--set", "compose.guard=false")  # fmt: skip
        assert done.returncode == 0, done.stderr
        product = np.array(Image.open(tmp_path / "good.png")).astype(int)
        inner = np.s_[64:-64, 64:-64]
        assert np.abs(product - contender.shipped(bad))[inner].max() <= 1, level
    contender.close()


def test_strength_and_sharpness_decide_how_much_is_left(portrait):
    bad = damaged(portrait, "heavy")
    half = Contender(MODEL, Restore(strength=0.5, skip_sharp=1))
    assert np.abs(half.shipped(bad) - (bad + half.bare(bad).astype(float)) / 2).max() <= 1
    for never in (Restore(strength=0), Restore(skip_sharp=0)):
        assert Contender(MODEL, never).shipped(bad) is bad
    assert (half.bare(bad) == Contender(MODEL, Restore(skip_sharp=1)).shipped(bad)).all()


def test_a_model_of_another_template_and_size_is_shown_what_it_expects(portrait, tmp_path):
    echo = Contender(write_model(tmp_path / "echo.safetensors", answer="input", template="arcface_gpen"))
    assert np.abs(echo.bare(portrait.picture).astype(int) - portrait.picture).max() <= 1
    # Its crop is smaller than the picture, whose other parts stay unchanged.
    red = Contender(write_model(tmp_path / "red.safetensors", answer=(0.9, 0.1, 0.1), template="arcface_128"))
    made = red.bare(portrait.picture)
    assert made[96:160, 96:160].mean(axis=(0, 1)) == pytest.approx((230, 26, 26), abs=6)
    assert (made[:4, :4] == portrait.picture[:4, :4]).all()


def test_a_model_for_another_task_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="task 'colorize'"):
        Contender(write_model(tmp_path / "c.safetensors", task="colorize"))
    with pytest.raises(ModelError):
        Contender(tmp_path / "missing.safetensors")


def test_any_function_can_be_judged(portrait):
    """Training scripts do this. Equal pictures have a finite PSNR, so that means exist."""
    found = evaluate({"truth": lambda _: portrait.picture.copy()}, [portrait], ["heavy"], threads=2)
    assert found.average("heavy", "truth", "psnr") == LARGEST_PSNR
    assert found.average("heavy", "truth", "landmarks") == 0
    assert found.difference("heavy", "truth", "input", "haarpsi").verdict(+1) == "better"

    def broken(_):
        raise RuntimeError("no answer")

    with pytest.raises(RuntimeError, match="no answer"):
        evaluate({"broken": broken}, [portrait], ["heavy"])


def test_a_report_becomes_markdown_and_another_file_does_not(run, tmp_path):
    tables.save(run[1], tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == run[1]
    text = tables.markdown(tables.load(tmp_path / "report.json"))
    assert text.count("| input |") == 4 and "| heavy | PSNR dB |" in text and f"| {SHIPPED} |" in text
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(SourceError, match="no evaluation"):
        tables.load(tmp_path / "other.json")
