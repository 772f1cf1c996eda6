"""The benches run, and each figure has the meaning that its heading states."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT
from safetensors.torch import save_file

from stream.config import Detect, load_config
from stream.errors import ConfigError
from stream.faces.detect.finder import FaceFinder
from stream.faces.restore.crop import WholeFrameStage
from stream.lab.bench import machine, material, measured_network, moving_clip, naive, report, worker
from stream.lab.bench.planted_faces import planted
from stream.lab.bench.product_job import ProductJob
from stream.lab.quality.fidelity import psnr
from stream.models.nets import GPEN
from stream.picture import geometry
from stream.picture.face import FrameWork

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A generator of 64 px with random weights."""
    torch.manual_seed(0)
    facts = {"size": 64, "channel_multiplier": 1, "narrow": 0.125, "style_dim": 32, "n_mlp": 2}
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    metadata = {key: str(value) for key, value in facts.items()}
    save_file(GPEN(**facts).state_dict(), path, metadata | {"arch": "FullGenerator", "template": "ffhq_512"})
    return path


def figures(run_cli, folder: Path, *arguments) -> dict:
    """The tables of a bench that the command runs. Its other outputs are checked here too."""
    target, chart = folder / "figures.json", folder / "chart.png"
    outputs = ("--json", target, "--chart", chart)
    done = run_cli(
        "bench", *arguments, *outputs, "--rounds", 1, "--threads", 2, timeout_s=560,
        env=os.environ | {"COLUMNS": "80"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert chart.read_bytes().startswith(b"\x89PNG") and cv2.imread(str(chart)).std() > 5
    data = json.loads(target.read_text(), parse_constant=pytest.fail)
    assert data["bench"] == arguments[0] and data["machine"]["threads"] == 2
    assert data["other_load"] is None or 0 <= data["other_load"] <= 1
    titles = {table["title"] for table in data["tables"]}
    assert len(titles) == len(data["tables"])
    for table in data["tables"]:
        assert table["rows"] and all(
            set(row) - set(table["columns"]) <= {"restored"} for row in table["rows"]
        )
        assert table["title"].split()[0] in done.stdout  # also on the terminal
    return {table["name"]: table["rows"] for table in data["tables"]}


# --- through the command ----------------------------------------------------------------------


def test_the_recipe_is_walked_row_by_row(run_cli, tiny, tmp_path):
    rows = ("--only", "1 ", "--only", "2 compile: OpenVINO", "--only", "3 ", "--only", "rough")
    tables = figures(run_cli, tmp_path, "recipe", "--model", tiny, "--portraits", 1, "--height", 120, *rows)
    steps = {row["row"]: row for row in tables["steps"]}
    names = ["0 baseline", "1 aligned", "2 compile: OpenVINO", "3 preprocessing"]
    assert list(steps) == names
    baseline, aligned = steps["0 baseline"], steps["1 aligned"]
    assert baseline["base"] == 1 and baseline["detect"] > baseline["network"] > 0
    assert aligned["detect"] == 0 and aligned["before"] > 1.5
    for row in steps.values():
        parts = sum(row[step] for step in ("detect", "read", "prepare", "network", "finish"))
        assert row["ms"] == pytest.approx(parts, rel=0.02) and row["peak_mb"] > 100
    assert [row["row"] for row in tables["alone"]] == ["rough crop by Haar"]
    quality = {row["row"]: row for row in tables["quality"]}
    for kind in material.DAMAGE:
        assert quality["0 baseline"][f"psnr {kind}"] == "equal"
        same = quality["2 compile: OpenVINO"]
        assert same[f"psnr {kind}"] == pytest.approx(quality["1 aligned"][f"psnr {kind}"], abs=0.1)
        assert 0 < same[f"ssim {kind}"] <= 1 and 5 < same[f"clean {kind}"] < 60


def test_a_cpu_without_bfloat16_lacks_the_half_rows_alone(tiny, monkeypatch):
    monkeypatch.setattr(measured_network, "native_bfloat16", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    side = measured_network.network(measured_network.PUBLISHED, tiny, threads=1)
    assert side(torch.zeros(1, 3, 64, 64)).isfinite().all()
    with pytest.raises(worker.Unavailable, match="bfloat16"):
        measured_network.network(measured_network.PUBLISHED, tiny, threads=1, precision="half")


def test_engines_are_compared_with_the_published_network(run_cli, tiny, tmp_path):
    known = ("--engine", "openvino", "--engine", "none-such", "--precision", "fp32")
    (rows,) = figures(run_cli, tmp_path, "engines", "--model", tiny, *known).values()
    published, depthwise, openvino, missing = rows
    assert published["engine"] == "published" and published["ratio"] == 1 and published["psnr"] == "equal"
    assert depthwise["psnr"] == "equal" or depthwise["psnr"] > 90
    # Its speed beside other tests says nothing; `gpen-stream bench engines` measures it alone.
    assert openvino["psnr"] > 70 and openvino["ratio"] > 0 and openvino["use"] > 0
    assert openvino["machine"] > 1 and openvino["gflop"] > 0
    assert "not available here" in missing["note"] and "none-such" in missing["note"]


def test_whole_videos_are_compared_with_both_baselines(run_cli, tiny, tmp_path):
    short = ("--seconds", 0.25, "--recipe-frames", 1, "--only", "speed", "--only", "stages")
    tables = figures(run_cli, tmp_path, "pipeline", "--model", tiny, *short)
    sides = {row["side"]: row for row in tables["speed"]}
    assert list(sides) == [
        "fair baseline",
        "recipe's baseline",
        "every frame, FP32",
        "every frame",
        "interval 3",
        "fast",
    ]
    assert sides["fair baseline"]["fair"] == 1 and sides["recipe's baseline"]["recipe"] == 1
    assert sides["recipe's baseline"]["frames"] == 1
    for name in ("fair baseline", "every frame", "fast"):
        side = sides[name]
        assert side["frames"] == 6 and side["fps"] > 0 and 5 < side["psnr"] < 60
    assert sides["every frame"]["restored"] == 6
    stages = {row["stage"]: row for row in tables["stages"]}
    assert {"decode", "track", "crop", "restore", "compose", "encode", "whole run"} <= set(stages)
    assert stages["restore"]["cpu"] < 5  # without a face the network never runs


def test_detection_and_tracking_are_measured_against_the_truth(run_cli, tmp_path):
    few = ("--pictures", 1, "--frames", 2, "--size", 64, "--preset", "fast", "--only", "recall")
    target = tmp_path / "out.json"
    done = run_cli("bench", "detect", *few, "--json", target)
    assert done.returncode == 0, done.stderr
    ((row,),) = (table["rows"] for table in json.loads(target.read_text())["tables"])
    assert row["recall 64"] == 1 and row["frames"] == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("engines", "out.json"), "--json out.json"),
        (("engines", "--json", "nowhere/out.json"), "its folder does not exist"),
        (("engines", "--model", "nothing.safetensors"), "known by name: gpen-lite-256, GPEN-BFR-256"),
        (("pipeline", "--only", "sound"), "choose one of speed, stages"),
        (("detect", "--clip", "crowd"), "choose one of portrait, group"),
    ],
)
def test_wrong_usage_is_refused_in_one_line(run_cli, tmp_path, arguments, told):
    done = run_cli("bench", *arguments, cwd=tmp_path, env=_environment())
    assert done.returncode in (1, 2) and done.stderr.count("\n") == 1 and told in done.stderr


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


def test_without_the_samples_one_line_says_what_to_do(run_cli, tmp_path):
    code = f"""
import pathlib, importlib.resources, stream.cli.main, stream.cli.bench, stream.lab.bench.material as material
class Elsewhere:
    files = staticmethod(lambda package: pathlib.Path({str(tmp_path)!r}) / package)
material.resources = Elsewhere
stream.cli.main.main()
"""
    done = run_cli("bench", "detect", "--only", "tracking", code=code)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert str(tmp_path / "stream" / "samples") in done.stderr and "install gpen-stream again" in done.stderr


# --- material and truth of the figures --------------------------------------------------------


def test_damage_is_seeded_and_each_kind_is_what_it_says():
    clean = material.placed(material.faces()[0], (320, 240))
    seen = {}
    for kind, damage in material.DAMAGE.items():
        seen[kind] = damage(clean.rgb, np.random.default_rng(1))
        assert seen[kind].shape == clean.rgb.shape and seen[kind].dtype == np.uint8
        assert (seen[kind] == damage(clean.rgb, np.random.default_rng(1))).all()
    assert seen["old scan"].std() < 0.8 * clean.rgb.std()  # faded
    assert seen["night shot"].mean() < 0.4 * clean.rgb.mean()  # dark
    assert 20 < psnr(seen["compressed"], clean.rgb) < 32


def test_the_truth_lies_where_the_detector_sees_the_face(finder):
    portrait = material.placed(material.faces()[0], (640, 480))
    (hit,) = finder(material.rgb_frame(portrait.rgb))
    eyes = np.linalg.norm(portrait.landmarks[1] - portrait.landmarks[0])
    assert np.abs(hit.landmarks - portrait.landmarks).max() < 0.15 * eyes


def test_the_clips_truth_lies_where_the_detector_sees_the_face(finder, tmp_path):
    made = moving_clip.make_clip(tmp_path, 0.5)
    frames = [np.dstack([luma] * 3) for luma in moving_clip._luma(made.clean)]
    assert made.frames == len(frames) == 12 and list(made.non_rigid) == list(range(6, 12))
    for i in (0, 11):
        (hit,) = finder(material.rgb_frame(frames[i]))
        assert np.abs(hit.landmarks - made.landmarks[i]).max() < 0.2 * 60
    assert moving_clip.face_psnr(made, made.clean) == math.inf
    assert 25 < moving_clip.face_psnr(made, made.path, made.rigid) < 40


def test_the_naive_script_and_the_product_prepare_the_same_crop():
    rgb = cv2.resize(material.faces()[1].rgb, (512, 512), interpolation=cv2.INTER_CUBIC)
    tensor = naive.prepare(np.ascontiguousarray(rgb[..., ::-1]), None, 256)
    assert tensor.shape == (1, 3, 256, 256) and tensor.dtype == torch.float32
    (work,) = WholeFrameStage(256).process(FrameWork(material.rgb_frame(rgb)))
    ours = work.crops[0].image
    theirs = tensor[0].permute(1, 2, 0).numpy() * 0.5 + 0.5
    assert psnr(ours, theirs, peak=1.0) > 38
    back = naive.finish(tensor)
    assert np.abs(back[..., ::-1].astype(int) - np.rint(theirs * 255)).max() <= 1


def test_pasting_changes_the_face_and_nothing_far_from_it():
    bgr = np.zeros((240, 320, 3), np.uint8)
    to_picture = np.array([[1.0, 0, 100], [0, 1.0, 60]])
    pasted = naive.paste(bgr, np.full((128, 128, 3), 200, np.uint8), to_picture)
    assert (pasted[124, 164] == 200).all() and not pasted[:50].any() and not pasted[:, 240:].any()


def test_a_side_that_fails_is_told_with_its_reason():
    with (
        pytest.raises(worker.BenchError, match="no_such_module"),
        worker.Workers({"x": partial(importlib.import_module, "no_such_module")}),
    ):
        pass
    wrong = partial(ProductJob, "default", ["restore.nothing=1"], clip="", out="", threads=1)
    with worker.Workers({"x": wrong}) as workers:
        assert "restore.nothing" in workers.missing["x"] and not workers.first


def test_each_side_has_its_own_memory_and_its_own_time():
    with worker.Workers({"matmul": partial(machine.MatmulJob, threads=1)}) as workers:
        runs = workers.interleaved(3)["matmul"]
    assert len(runs) == 3 and all(0 < run.seconds < 5 and run.peak_mb > 50 for run in runs)
    assert workers.others is None or 0 <= workers.others <= 1


def test_ratios_are_taken_round_by_round():
    assert machine.ratio([2, 40, 6], [1, 20, 2]) == 2
    assert machine.ratio([10], [1, 2, 3]) == 5


def test_numbers_are_shown_shortly_and_a_noisy_machine_is_named():
    shown = [report.cell_text(value) for value in (None, 1234.5, 0.01234, math.inf, True, 3, "x")]
    assert shown == ["–", "1,234", "0.0123", "equal", "yes", "3", "x"]
    noisy = report.BenchReport("x", {}, {}, 0.4, [])
    assert "40 %" in report.load_warning(noisy)
    assert report.load_warning(report.BenchReport("x", {}, {}, 0.01, [])) == ""


# --- the recipe's pyramid -----------------------------------------------------------------------


def test_a_pyramid_finds_a_small_face_that_one_scale_misses():
    picture, truth = planted(np.random.default_rng(5), 14, (640, 360))
    frame = material.rgb_frame(picture)

    def found(*scales: float) -> int:
        hits = FaceFinder(Detect(pyramid=scales), threads=2).certain(frame)
        centres = [hit.landmarks.mean(axis=0) for hit in hits]
        reach = [0.5 * np.linalg.norm(marks[1] - marks[0]) for marks in truth]
        near = [
            any(np.linalg.norm(c - marks.mean(axis=0)) < r for c in centres)
            for marks, r in zip(truth, reach, strict=True)
        ]
        assert len(hits) <= len(truth)  # no face counts twice
        return sum(near)

    assert found(1.0) < found(0.5, 1.0, 3.0)


def test_a_pyramid_sees_a_large_face_once_and_where_it_is(finder):
    portrait = material.placed(material.faces()[0], (640, 480))
    frame = material.rgb_frame(portrait.rgb)
    (one,), (several,) = finder(frame), FaceFinder(Detect(pyramid=(0.5, 1.0, 1.5)), threads=2)(frame)
    eyes = np.linalg.norm(portrait.landmarks[1] - portrait.landmarks[0])
    assert np.abs(one.landmarks - several.landmarks).max() < 0.05 * eyes


def test_a_pyramid_is_set_as_a_list_of_bounded_scales_and_not_with_tiles():
    assert load_config("default", None, ["detect.pyramid=[0.5, 1, 1.5]"]).detect.pyramid == (0.5, 1.0, 1.5)
    for wrong in ("[]", "[0]", "[9]", "1"):
        with pytest.raises(ConfigError, match=r"detect\.pyramid"):
            load_config("default", None, [f"detect.pyramid={wrong}"])
    with pytest.raises(ConfigError, match=r"detect\.tile=0"):
        FaceFinder(load_config("surveillance", None, ["detect.pyramid=[0.5, 1]"]).detect)


def test_geometry_of_the_baselines_crop_is_the_products():
    """Both sides see the same face: the landmarks of the crop lie on the template."""
    portrait = material.placed(material.faces()[0], (640, 480))
    to_picture = geometry.similarity(geometry.template("ffhq_512", 256), portrait.landmarks)
    dotted = np.zeros((480, 640, 3), np.uint8)
    for x, y in portrait.landmarks:
        cv2.circle(dotted, (int(x), int(y)), 2, (255, 255, 255), -1)
    crop = naive.finish(naive.prepare(dotted, to_picture, 256))
    for x, y in geometry.template("ffhq_512", 256):
        assert crop[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3].max() > 100
