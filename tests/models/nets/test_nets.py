"""The architectures against golden tensors, official checkpoints and half precision."""

from __future__ import annotations

import pytest
import torch
from networks import CHECKPOINTS, golden
from small_models import METADATA, write_tiny_model

from stream.errors import ModelError
from stream.lab.bench.published import PublishedGPEN
from stream.models.info import bundled_model_path, read_model_info
from stream.models.nets import GPEN, Discriminator, load_generator, one_crop
from stream.models.nets.gpen import ModulatedConv, StyledConv

GENERATORS = ("gpen-64", "gpen-128", "gpen-sr-32-64")


def golden_generator(name):
    metadata, state, given, expected = golden(name)
    net = GPEN(
        int(metadata.get("out_size") or metadata["size"]),
        channel_multiplier=float(metadata["channel_multiplier"]),
        narrow=float(metadata["narrow"]),
        style_dim=int(metadata["style_dim"]),
        n_mlp=int(metadata["n_mlp"]),
        in_size=int(metadata["in_size"]) if "in_size" in metadata else None,
    )
    net.load_state_dict(state, strict=True)
    return net.eval(), given, expected


@pytest.mark.parametrize("name", GENERATORS)
def test_the_generator_agrees_with_the_reference_implementation(name):
    net, given, expected = golden_generator(name)
    with torch.inference_mode():
        torch.testing.assert_close(net(given), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", GENERATORS)
def test_channels_last_input_gives_the_same_picture(name):
    net, given, expected = golden_generator(name)
    with torch.inference_mode():
        result = net(given.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


def test_the_discriminator_agrees_with_the_reference_implementation():
    metadata, state, given, expected = golden("gpen-d-64")
    net = Discriminator(
        int(metadata["size"]),
        channel_multiplier=float(metadata["channel_multiplier"]),
        narrow=float(metadata["narrow"]),
    )
    net.load_state_dict(state, strict=True)
    with torch.inference_mode():
        torch.testing.assert_close(net.eval()(given), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("name", GENERATORS)
def test_the_benchmarks_baseline_agrees_with_the_reference_implementation(name, depthwise):
    _, state, given, expected = golden(name)
    published = PublishedGPEN(state, depthwise=depthwise)
    torch.testing.assert_close(published(given), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_official_checkpoints_load_strictly(name):
    facts = CHECKPOINTS[name]
    with torch.device("meta"):
        net = GPEN(
            facts["size"],
            channel_multiplier=facts["channel_multiplier"],
            narrow=facts["narrow"],
            style_dim=facts["style_dim"],
            n_mlp=facts["n_mlp"],
        )
        state = {key: torch.empty(shape) for key, shape in facts["tensors"].items()}
    net.load_state_dict(state, strict=True)
    assert sum(p.numel() for p in net.parameters()) == facts["params"]


def test_big_styles_do_not_overflow_half_precision():
    torch.manual_seed(0)
    wide = StyledConv(64, 32, 16).eval()
    for parameter in wide.parameters():
        parameter.data = parameter.data.half().float()
    wide.conv.modulation.bias.data.fill_(3e4)
    x, latent = torch.randn(2, 64, 16, 16), torch.randn(2, 16)
    x, feature = x.half().float(), torch.randn(2, 32, 16, 16).half().float()
    with torch.inference_mode():
        expected = wide(x, latent.half().float(), feature)
        half = wide.half()(x.half(), latent.half(), feature.half())
    assert half.dtype == torch.float16
    assert torch.isfinite(half).all()
    torch.testing.assert_close(half.float(), expected, atol=0.02, rtol=0.01)


def test_a_style_of_zeros_gives_zeros():
    conv = ModulatedConv(8, 4, 3, 16)
    conv.modulation.bias.data.zero_()
    result = conv(torch.randn(1, 8, 8, 8), torch.zeros(1, 16), torch.zeros(1, 4, 1, 1))
    assert result.abs().max() == 0


def test_the_generator_in_half_precision_stays_close_to_single():
    net, given, expected = golden_generator("gpen-64")
    with torch.inference_mode():
        result = net.half()(given.half())
    assert result.dtype == torch.float16
    torch.testing.assert_close(result.float(), expected, atol=0.03, rtol=0.02)


def test_gradients_reach_every_parameter():
    net, given, _ = golden_generator("gpen-64")
    net.train()(given[:1]).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_the_forward_is_one_graph():
    net, given, expected = golden_generator("gpen-64")
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(given), expected, atol=1e-5, rtol=0)


def test_a_frozen_generator_gives_the_same_picture_and_state():
    net, given, expected = golden_generator("gpen-64")
    names = set(net.state_dict())
    net.freeze()
    assert set(net.state_dict()) == names
    with torch.inference_mode():
        torch.testing.assert_close(net(given), expected, atol=1e-5, rtol=0)
        half = net.half()
        half.freeze()
        assert half.generator.conv1.conv.power.dtype == torch.float32


@pytest.mark.parametrize("everywhere", [True, False])
@pytest.mark.parametrize("name", GENERATORS)
def test_the_rewriting_for_one_crop_gives_the_same_picture(name, everywhere, monkeypatch):
    """The rewriting is tried with scaled weights and separate halves at every size, and as usual."""
    if everywhere:
        monkeypatch.setattr(one_crop, "APART_FROM_PX", 1)
        monkeypatch.setattr(one_crop, "MAP_OVER_WEIGHTS", 0)
    net, given, expected = golden_generator(name)
    rewritten = one_crop.OneCropGPEN(net)
    with torch.inference_mode():
        result = torch.cat([rewritten(crop[None]) for crop in given])
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


def test_the_rewriting_keeps_the_residual_and_the_noise():
    net = GPEN(16, narrow=1 / 64, style_dim=8, n_mlp=1, residual=True)
    x = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(one_crop.OneCropGPEN(net)(x), net(x), atol=1e-5, rtol=0)
    net, given, _ = golden_generator("gpen-sr-32-64")
    net.generator.convs[-1].noise.weight.data.fill_(1.0)
    rewritten = one_crop.OneCropGPEN(net)
    assert not torch.equal(rewritten(given[:1]), rewritten(given[:1]))


def test_fidelity_is_exact_at_one_and_moves_further_as_it_falls():
    far = []
    for fidelity in (1.0, 0.9, 0.7, 0.4, 0.0):
        net, given, expected = golden_generator("gpen-64")
        with torch.inference_mode():
            before = net(given)
            net.scale_features(fidelity)
            after = net(given)
        if fidelity == 1.0:
            assert torch.equal(before, after)
        far.append(float((after - expected).abs().mean()))
    assert far == sorted(far)
    assert far[1] > 10 * far[0]


def test_fidelity_leaves_the_noise_of_the_enlarging_variant_alone():
    net, _, _ = golden_generator("gpen-sr-32-64")
    net.generator.convs[-1].noise.weight.data.fill_(1.0)
    net.scale_features(0.5)
    assert net.generator.convs[-1].noise.weight == 1.0


def test_a_residual_model_adds_its_input():
    plain = GPEN(16, narrow=1 / 64, style_dim=8, n_mlp=1)
    residual = GPEN(16, narrow=1 / 64, style_dim=8, n_mlp=1, residual=True)
    residual.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(residual(x), x + plain(x))


def test_levels_without_an_encoder_feature_take_noise():
    net, given, _ = golden_generator("gpen-sr-32-64")
    net.generator.convs[-1].noise.weight.data.fill_(1.0)
    assert net(given).shape == (2, 3, 64, 64)
    assert not torch.equal(net(given), net(given))


def test_the_pyramid_ends_in_the_picture():
    net, given, expected = golden_generator("gpen-64")
    rgbs = net.pyramid(given)
    assert [rgb.shape[-1] for rgb in rgbs] == [4, 8, 16, 32, 64]
    torch.testing.assert_close(rgbs[-1], expected, atol=1e-5, rtol=0)


def test_the_bundled_model_states_its_facts():
    net, info = load_generator(bundled_model_path())
    assert (info.name, info.size, info.narrow, info.residual) == ("gpen-lite-256", 256, 0.25, True)
    assert info.template == "ffhq_512"
    assert info.input_range == (-1.0, 1.0)
    assert not net.training
    assert net.residual


def test_a_small_model_loads(tmp_path):
    net, info = load_generator(write_tiny_model(tmp_path / "small.safetensors"))
    assert (info.name, info.size, info.residual) == ("small", 16, False)
    assert net(torch.zeros(1, 3, 16, 16)).shape == (1, 3, 16, 16)


def broken_files(folder):
    """Ways in which weights can be wrong, and a word that the message must contain."""
    whole = write_tiny_model(folder / "whole.safetensors").read_bytes()
    cut, text, empty = (folder / f"{name}.safetensors" for name in ("cut", "text", "empty"))
    cut.write_bytes(whole[: len(whole) // 2])
    text.write_text("<html>not found</html>\n" * 9)
    empty.write_bytes(b"")
    yield cut, "whole"
    yield text, "whole"
    yield empty, "whole"
    yield folder / "absent.safetensors", "path"
    yield folder, "read"
    dropped = "generator.conv1.conv.weight"
    yield write_tiny_model(folder / "names.safetensors", drop=dropped), dropped
    for key in ("arch", "size", "narrow", "template"):
        facts = {name: value for name, value in METADATA.items() if name != key}
        yield write_tiny_model(folder / f"no-{key}.safetensors", metadata=facts), key
    for key, value in (("size", "17"), ("size", "x"), ("narrow", "nan"), ("residual", "maybe")):
        facts = METADATA | {key: value}
        yield write_tiny_model(folder / f"{key}-{value}.safetensors", metadata=facts), key
    facts = METADATA | {"size": "32"}
    yield write_tiny_model(folder / "other.safetensors", metadata=facts), "missing"
    facts = METADATA | {"narrow": "0.03125"}
    yield write_tiny_model(folder / "wider.safetensors", metadata=facts), "shape"


def test_wrong_weights_are_told_in_one_line_that_names_the_file(tmp_path):
    for path, word in broken_files(tmp_path):
        with pytest.raises(ModelError) as caught:
            load_generator(path)
        message = str(caught.value)
        assert "\n" not in message
        assert str(path) in message
        assert word in message


def test_reading_a_models_facts_does_not_read_its_tensors_as_torch_does(tmp_path):
    path = write_tiny_model(tmp_path / "names.safetensors", drop="ecd0.0.0.weight")
    assert read_model_info(path).size == 16
