"""The adversary: its gradient, the steps in which the network follows it, and its part of a checkpoint."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from conftest import SAMPLES
from pydantic import ValidationError
from small_models import write_model
from torch.nn import functional as F

from stream.lab.train import losses
from stream.lab.train.adversary import LARGEST_SCALE, make_adversary
from stream.lab.train.execution import Execution
from stream.lab.train.settings import TrainSettings
from stream.lab.train.step import Step
from stream.lab.train.training_pairs import inner, read_face
from stream.models.nets.loader import load_generator
from stream.models.nets.patch_critic import PatchCritic

FACES = SAMPLES / "faces"
CPU = torch.device("cpu")
SIZE = 64


def settings(kind="patch", ratio=0.3, *, own=None, **changes):
    small = {"patch": {"cut": 48, "warm_up": 0}, "gpen": {"size": 32, "warm_up": 0, "r1_every": 2}}
    small[kind] |= own or {}
    changes = {"compile": False, "device": "cpu", "loss": {"adversarial": ratio}} | changes
    return TrainSettings.model_validate(changes | {"adversary": {"kind": kind} | small})


def adversary(chosen):
    return make_adversary(chosen, SIZE, Execution(CPU, chosen.precision == "bf16", chosen.compile))


def alone(net):
    """Average the gradients of a single process, which changes nothing."""


def as_input(pictures):
    return pictures.float() / 127.5 - 1


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("start") / "small.safetensors", size=SIZE)


@pytest.fixture(scope="module")
def clean():
    """Four faces, u8[4,3,64,64]."""
    faces = [inner(read_face(path, SIZE)) for path in sorted(FACES.glob("*.jpg"))[:4]]
    return torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2).contiguous()


@pytest.fixture(scope="module")
def damaged(clean):
    """The same faces, blurred."""
    return F.avg_pool2d(clean.float(), 5, 1, 2, count_include_pad=False).round().byte()


def step_from(start, chosen):
    return Step(load_generator(start)[0], chosen, CPU)


def gradients_of(step, damaged, clean):
    """The gradients of the network's weights in one step, before clipping, and the figures."""
    found = []

    def record(net):
        found.append({name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None})

    figures = step.run(damaged, clean, record)
    step.count(len(clean))
    return found[0], figures


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- the critic ----------------------------------------------------------------------------------------


def test_no_layer_of_the_critic_stretches_anything_by_more_than_about_one(clean, damaged):
    chosen = settings(own={"lr": 3e-3})
    critic = adversary(chosen)
    for _ in range(30):
        critic.learn(as_input(clean)[..., :48, :48], as_input(damaged)[..., :48, :48], alone)
    stretches = [
        float(torch.linalg.matrix_norm(conv.weight.detach().flatten(1), 2))
        for conv in critic.network.eval().convs
    ]
    raw = [
        float(torch.linalg.matrix_norm(conv.parametrizations.weight.original.detach().flatten(1), 2))
        for conv in critic.network.convs
    ]
    assert all(0.95 < stretch < 1.15 for stretch in stretches), stretches
    assert max(raw) > 1.5, "the weights themselves are larger"


def test_a_logit_of_the_critic_sees_one_patch():
    critic = PatchCritic(width=4).eval()
    picture = torch.rand(1, 3, 160, 160, requires_grad=True)
    logits = critic(picture)
    assert logits.shape == (1, 1, 20, 20)
    (slope,) = torch.autograd.grad(logits[0, 0, 10, 10], picture)
    rows, columns = (torch.nonzero(slope.abs().sum(axes)).flatten() for axes in ((0, 1, 3), (0, 1, 2)))
    assert int(rows[-1] - rows[0]) + 1 == int(columns[-1] - columns[0]) + 1 == 54


def test_the_hinge_losses_are_those_of_their_formulas():
    logits = torch.tensor([-3.0, -0.5, 0.0, 2.0])
    assert float(losses.critic_hinge(torch.zeros(4), torch.zeros(4))) == 2
    assert float(losses.critic_hinge(torch.full((4,), 1.5), torch.full((4,), -1.5))) == 0
    assert float(losses.critic_hinge(logits, logits)) == pytest.approx((4 + 1.5 + 1) / 4 + (0.5 + 1 + 3) / 4)
    assert float(losses.generator_hinge(logits)) == pytest.approx(1.5 / 4)


@pytest.mark.parametrize(
    ("kind", "own"), [("patch", {"lr": 2e-3}), ("gpen", {"r1_every": 1000})], ids=["patch", "gpen"]
)
def test_the_adversary_learns_to_tell_noisy_faces_and_pulls_them_towards_clean_ones(clean, kind, own):
    torch.manual_seed(1)
    noisy = as_input(clean) + 0.3 * torch.randn(clean.shape)
    critic = adversary(settings(kind, own=own))
    real, fake = (pictures[..., : critic.cut, : critic.cut] for pictures in (as_input(clean), noisy))
    judgements = []
    for _ in range(40):
        judgements.append(float(critic.learn(real, fake, alone)["judgement"].detach()))
        critic.count(len(real))
    assert judgements[-1] < 0.3 * judgements[0]
    pull, figures = critic.gradient(fake, torch.ones(4, 3, SIZE, SIZE))
    assert "adversarial" in figures
    with torch.no_grad():
        at_real, at_fake = (float(critic.network(pictures).mean()) for pictures in (real, fake))
        descended = fake - 0.1 * pull / pull.square().mean().sqrt()
        assert at_real > at_fake + 2
        assert float(critic.network(descended).mean()) > at_fake + 0.2


# --- its gradient --------------------------------------------------------------------------------------


def test_the_critic_s_gradient_is_as_long_as_the_setting_says_at_every_picture(clean, damaged):
    critic = adversary(settings(ratio=0.3))
    fake = as_input(damaged)[..., :48, :48]
    others = torch.randn(4, 3, SIZE, SIZE) * torch.tensor([1e-7, 1e-6, 1e-5, 1e-4]).view(-1, 1, 1, 1)
    pull, figures = critic.gradient(fake, others)
    assert float(figures["adversarial_scale"]) < LARGEST_SCALE
    lengths = pull.flatten(1).norm(dim=1) / others.flatten(1).norm(dim=1)
    assert lengths.tolist() == pytest.approx([0.3] * 4, rel=1e-4)
    critic.network.eval()  # so that no power iteration happens between the two calls
    more, _ = critic.gradient(fake, others * 1e9)
    one, figures = critic.gradient(fake, others * 2e9)
    assert torch.allclose(more, one), "the scale is capped"
    assert float(figures["adversarial_scale"]) == LARGEST_SCALE


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_the_network_learns_from_the_losses_and_the_scaled_critic_together(
    start, clean, damaged, compiled, monkeypatch
):
    """The gradients equal those of the formula in one graph. The compiled case needs no C++ compiler."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    weights = {"adversarial": 0.3, "perceptual": 0.0, "gradients": 0.0}
    chosen = settings(own={"cut": SIZE}, loss=weights, compile=compiled)
    got, figures = gradients_of(step_from(start, chosen), damaged, clean)

    net = load_generator(start)[0].train()
    critic = adversary(chosen).network
    x, y = as_input(damaged), as_input(clean)
    rgbs = net.pyramid(x)
    out = rgbs[-1]
    total = losses.pixels(out, y) + 0.5 * losses.squares(out, y) + 0.3 * losses.scales(rgbs[:-1], y)
    wishes = -critic(out).mean((1, 2, 3))
    (others,) = torch.autograd.grad(total, out, retain_graph=True)
    (pull,) = torch.autograd.grad(wishes.mean(), out, retain_graph=True)
    scale = 0.3 * others.flatten(1).norm(dim=1) / pull.flatten(1).norm(dim=1)
    (total + (scale * wishes).mean()).backward()
    assert figures["adversarial"] == pytest.approx(float(wishes.detach().mean()), rel=1e-3)
    assert figures["adversarial_scale"] == pytest.approx(float(scale.mean()), rel=1e-3)
    wanted = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    assert got.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert float((got[name] - gradient).norm()) <= 1e-3 * float(gradient.norm()) + 1e-7, name


@pytest.mark.parametrize("kind", ["patch", "gpen"])
def test_the_network_follows_the_adversary_once_it_has_seen_enough(start, clean, damaged, kind):
    step = step_from(start, settings(kind, own={"warm_up": 8}, images=400))
    plain = step_from(start, settings(ratio=0.0, images=400))
    step.images = plain.images = 100  # images of a run without an adversary do not count
    followed = []
    for _ in range(4):
        gradients, figures = gradients_of(step, damaged, clean)
        wanted, _ = gradients_of(plain, damaged, clean)
        plain.net.load_state_dict(step.net.state_dict())
        followed.append(not same(gradients, wanted))
        assert ("adversarial" in figures) == followed[-1]
        assert "judgement" in figures, "the adversary learns in every step"
    # The weight of GPEN's discriminator rises from 0 at the end of its warm-up.
    assert followed == [False, False, kind == "patch", True]


def test_bf16_reaches_the_critic_s_convolutions_and_not_its_norms(clean, damaged):
    fake = as_input(damaged)[..., :48, :48]
    pulls, mixed = [], []
    for precision in ("fp32", "bf16"):
        critic = adversary(settings(precision=precision))
        norm = critic.network.convs[0].parametrizations.weight[0]
        norm.register_forward_pre_hook(lambda *_: mixed.append(torch.is_autocast_enabled("cpu")))
        pulls.append(critic.gradient(fake, torch.ones(4, 3, SIZE, SIZE))[0].flatten())
    assert mixed == [False, False]
    assert not torch.equal(*pulls) and F.cosine_similarity(*pulls, dim=0) > 0.98


def test_compiled_code_transposes_bf16_without_nan():
    def transposed(one, other):
        return one.contiguous(), (other * 1.5).contiguous()

    pair = [torch.randn(1, 128, 8, 8).bfloat16().contiguous(memory_format=torch.channels_last) for _ in "ab"]
    compiled = Execution(CPU, half=True, compile=True).compiled(transposed)
    assert all(map(torch.equal, compiled(*pair), transposed(*pair)))


def test_a_step_that_is_not_finite_leaves_network_and_adversary_as_they_were(start, clean, damaged):
    for kind in ("patch", "gpen"):
        step = step_from(start, settings(kind))
        with torch.no_grad():
            step.net.get_parameter("generator.conv1.conv.weight").mul_(torch.nan)
        before = {name: p.clone() for name, p in step._adversary.network.named_parameters()}
        assert step.run(damaged, clean, alone)["skipped"] == 1
        assert same(before, dict(step._adversary.network.named_parameters())), kind


def test_the_gradient_penalty_of_gpen_comes_every_so_many_steps_however_many_processes_count(clean, damaged):
    critic = adversary(settings("gpen", own={"r1_every": 3}))
    real, fake = (as_input(pictures)[..., :32, :32] for pictures in (clean, damaged))
    due = []
    for _ in range(7):
        due.append("r1" in critic.learn(real, fake, alone))
        critic.count(3 * len(real))
    assert due == [True, False, False, True, False, False, True]


# --- checkpoints and settings --------------------------------------------------------------------------


def test_a_checkpoint_of_another_adversary_starts_the_adversary_anew(start, clean, damaged):
    states = {}
    for kind, own in (("patch", {}), ("gpen", {}), ("gpen", {"size": 64})):
        chosen = settings(kind, own=own, images=400)
        step = step_from(start, chosen)
        fresh = {name: tensor.clone() for name, tensor in step._adversary.network.state_dict().items()}
        for state in states.values():
            step.load(state)
            assert step.images == 4, "the network goes on"
            assert step._adversary.images == 0
            assert same(step._adversary.network.state_dict(), fresh)
        step.load(step_from(start, settings(ratio=0.0)).state())
        step.run(damaged, clean, alone)
        step.count(4)
        states[kind, *own] = step.state()
        again = step_from(start, chosen)
        again.load(step.state())
        assert again._adversary.images == 4
        assert same(again._adversary.network.state_dict(), step._adversary.network.state_dict())
        assert not same(again._adversary.network.state_dict(), fresh)


def test_the_patch_critic_is_the_adversary_unless_another_is_named_and_no_detail_loss_is_asked_for():
    chosen = TrainSettings()
    assert (chosen.loss.detail, chosen.loss.adversarial, chosen.loss.perceptual) == (0.0, 0.0, 0.4)
    assert chosen.adversary.kind == "patch"
    for wrong in (
        {"kind": "magic"},
        {"size": 128},
        {"patch": {"cut": 16}},
        {"patch": {"lr": 0.0}},
        {"patch": {"warm_up": -1}},
        {"patch": {"r1": 1.0}},
    ):
        with pytest.raises(ValidationError):
            TrainSettings.model_validate({"adversary": wrong})
