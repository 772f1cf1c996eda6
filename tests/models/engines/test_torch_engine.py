"""Properties of torch alone: batches for static graphs, memory, one compiled graph, FP16."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from networks import golden_crops, golden_model
from small_models import write_tiny_model

from stream.errors import ConfigError
from stream.models.engines import create_engine, torch_compile
from stream.models.engines.crop_net import CropNet
from stream.models.engines.engine import batches, graph_sizes
from stream.models.engines.torch_engine import TorchEngine, run_in_batches
from stream.models.nets import load_generator


def test_graphs_are_made_for_powers_of_two_and_the_largest_batch():
    assert graph_sizes(1) == (1,)
    assert graph_sizes(4) == (1, 2, 4)
    assert graph_sizes(6) == (1, 2, 4, 6)


@pytest.mark.parametrize("count", range(12))
@pytest.mark.parametrize("sizes", [(1,), (1, 2, 4), (1, 2, 4, 6), (4,)])
def test_batches_cover_all_crops_once_in_sizes_that_were_prepared(count, sizes):
    cut = list(batches(count, sizes))
    assert [i for part, _ in cut for i in range(count)[part]] == list(range(count))
    for part, size in cut:
        assert size in sizes
        assert part.stop - part.start <= size


class Memory:
    """The network on a device whose memory holds `fits` crops of a batch."""

    def __init__(self, net, fits):
        self.net, self.fits, self.ran = net, fits, []

    def __call__(self, batch):
        if len(batch) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.ran.append(len(batch))
        return self.net(batch)


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    return golden_model(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def net(golden):
    net, info = load_generator(golden)
    return CropNet(net, info.input_range).requires_grad_(False).eval()


@pytest.fixture(scope="module")
def five():
    first, second = golden_crops()[0]
    return torch.from_numpy(np.stack([first, second, first[::-1], second[::-1], first[:, ::-1]]))


@pytest.mark.parametrize(
    ("fits", "left", "ran"),
    [(8, (1, 2, 4), [4, 1]), (3, (1, 2), [2, 2, 1]), (1, (1,), [1, 1, 1, 1, 1])],
)
def test_out_of_memory_halves_the_batch_for_good(net, five, fits, left, ran, caplog):
    device = Memory(net, fits)
    restored = torch.zeros(5, 64, 64, 3)
    assert run_in_batches(device, five, restored, (1, 2, 4)) == left
    assert device.ran == ran
    torch.testing.assert_close(restored, net(five), atol=1e-5, rtol=0)
    assert ("out of memory" in caplog.text) is (fits < 4)


def test_a_crop_that_fits_in_no_memory_is_left_as_it_is(net, five):
    restored = torch.zeros(5, 64, 64, 3)
    assert run_in_batches(Memory(net, 0), five, restored, (1, 2, 4)) == (1,)
    assert restored.isnan().all()


def test_padding_for_a_prepared_size_changes_no_crop(net, five):
    device = Memory(net, 8)
    restored = torch.zeros(3, 64, 64, 3)
    run_in_batches(device, five[:3], restored, (1, 2, 4))
    assert device.ran == [4]
    torch.testing.assert_close(restored, net(five[:3]), atol=1e-5, rtol=0)


def test_the_network_between_crops_is_one_graph_without_a_break(net, five):
    found = torch._dynamo.explain(net)(five[:1])
    assert (found.graph_count, found.graph_break_count) == (1, 0), found.break_reasons


def test_a_break_in_the_graph_is_an_error(net, five, monkeypatch):
    class Broken(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, crops):
            torch._dynamo.graph_break()
            return self.net(crops)

    monkeypatch.setattr(torch_compile, "BACKEND", "eager")
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch_compile.compiled_net(Broken())(five[:1])


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="needs a C++ compiler")
def test_inductor_gives_the_same_picture(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    path = write_tiny_model(tmp_path / "small.safetensors")
    crops = np.random.default_rng(0).random((3, 16, 16, 3), np.float32)
    compiled = create_engine("torch-compile", path, device="cpu", threads=1)
    assert compiled.name == "torch-compile-cpu"
    expected = TorchEngine(path, threads=1).restore(crops)
    np.testing.assert_allclose(compiled.restore(crops), expected, atol=1e-4)
    compiled.close()


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="needs a C++ compiler")
def test_a_compiled_net_transposes_bf16_without_nan():
    class Transposing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = torch.nn.Parameter(torch.tensor(1.5).bfloat16(), requires_grad=False)

        def forward(self, one, other):
            return one.contiguous(), (other * self.factor).contiguous()

    pair = [torch.randn(1, 128, 8, 8).bfloat16().contiguous(memory_format=torch.channels_last) for _ in "ab"]
    net = Transposing()
    assert all(map(torch.equal, torch_compile.compiled_net(net)(*pair), net(*pair)))


def test_without_a_compiler_compiling_is_refused_in_one_line(golden, monkeypatch):
    from torch._inductor import cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    def none_found():
        raise InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none_found)
    with pytest.raises(ConfigError, match=r"C\+\+ compiler") as caught:
        create_engine("torch-compile", golden, device="cpu")
    assert "\n" not in str(caught.value)


def test_big_styles_do_not_overflow_an_engine_in_half_precision(tmp_path):
    """Styles exceed 1e3, so that StyleGAN2's sums of their squares exceed FP16."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    whole = golden_model(tmp_path)
    with safe_open(whole, framework="numpy") as file:
        metadata = file.metadata()
    state = load_file(whole)
    for key in state:
        if key.startswith("generator.conv") and key.endswith("modulation.bias"):
            state[key] = state[key] + 1e3
    big = tmp_path / "big.safetensors"
    save_file(state, big, metadata)
    crops = golden_crops()[0]
    half, single = (TorchEngine(big, threads=1, precision=p).restore(crops) for p in ("fp16", "fp32"))
    assert np.isfinite(half).all()
    spread = single.std()
    assert spread > 0.1, "a picture of one colour says nothing"
    assert np.abs(half - single).max() < 0.05 * max(spread, 1)
