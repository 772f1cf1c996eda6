"""Imported training files and networks: checked strictly, run no code, and get a name."""

from __future__ import annotations

import json
import os

import numpy as np
import onnx
import pytest
import torch
from networks import CHECKPOINTS, golden
from onnx import TensorProto, helper
from published_models import network
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from stream.errors import ConfigError, ModelError
from stream.models import catalog, ledger, registry
from stream.models.importing import ImportOptions, import_file
from stream.models.info import GeneratorSpec, read_model_info, sha256_of
from stream.models.nets import build_generator, load_generator
from stream.models.nets.official_checkpoint import infer_info

OFFICIAL = {
    entry.file.removesuffix(".pth"): entry for entry in catalog.entries().values() if entry.is_checkpoint
}
USUAL = GeneratorSpec("own", "restore", "arcface_gpen", (-1.0, 1.0))


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch):
    folder = tmp_path / "models"
    monkeypatch.setenv("GPEN_STREAM_MODELS", str(folder))
    monkeypatch.delenv("GPEN_STREAM_ACCEPT_LICENCE", raising=False)
    return folder


def imported(path, *, accept=False, **facts):
    said = []
    made = import_file(path, ImportOptions(**facts), accept_licence=accept, notify=said.append)
    return made, said


def refusal(path, kind=ModelError, **facts):
    with pytest.raises(kind) as caught:
        imported(path, **facts)
    message = str(caught.value)
    assert "\n" not in message, message
    return message


def saved(path, content):
    torch.save(content, path)
    return path


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_each_official_checkpoints_shapes_tell_its_figures_and_fit_strictly(name):
    facts = CHECKPOINTS[name]
    shapes = {key: tuple(shape) for key, shape in facts["tensors"].items()}
    info = infer_info(name, shapes, USUAL)
    for figure in ("size", "channel_multiplier", "narrow", "style_dim", "n_mlp"):
        assert getattr(info, figure) == facts[figure], figure
    assert info.in_size == info.size == OFFICIAL[name].size
    assert {key: tuple(t.shape) for key, t in build_generator(info).state_dict().items()} == shapes


def test_the_catalogue_knows_all_seven_with_their_tasks():
    assert set(OFFICIAL) == set(CHECKPOINTS)
    tasks = {name: entry.task for name, entry in OFFICIAL.items() if "BFR" not in name}
    assert tasks == {
        "GPEN-Colorization-1024": "colorize",
        "GPEN-Inpainting-1024": "inpaint",
        "GPEN-Seg2face-512": "segment",
    }
    generators = {name: entry.generator for name, entry in OFFICIAL.items()}
    assert {generator.template for generator in generators.values()} == {"arcface_gpen"}
    assert {n for n, one in generators.items() if one.input_range == (0.0, 1.0)} == {"GPEN-Seg2face-512"}
    assert all(entry.licence.needs_consent and entry.sha256 is None for entry in OFFICIAL.values())


@pytest.mark.parametrize("name", ["gpen-64", "gpen-128", "gpen-sr-32-64"])
def test_an_imported_network_computes_what_the_reference_implementation_did(name, tmp_path):
    metadata, state, given, expected = golden(name)
    made, _ = imported(saved(tmp_path / "a.pth", {"g": {}, "d": {}, "g_ema": state, "args": None}))
    net, info = load_generator(made.path)
    assert info.size == int(metadata.get("out_size") or metadata["size"])
    assert info.in_size == int(metadata.get("in_size") or metadata["size"])
    with torch.inference_mode():
        torch.testing.assert_close(net(given), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("wrap", ["plain", "g_ema", "module", "safetensors", "old", "half"])
def test_every_way_in_which_weights_are_saved_is_understood(wrap, tmp_path, models):
    state = network(64).state_dict()
    if wrap == "module":
        state = {f"module.{key}": value for key, value in state.items()}
    if wrap == "half":
        state = {key: value.half() for key, value in state.items()}
    path = tmp_path / ("w.safetensors" if wrap == "safetensors" else "w.pth")
    if wrap == "safetensors":
        save_file(state, path)
    else:
        content = {"g_ema": state, "g_optim": {"lr": 0.1}} if wrap == "g_ema" else state
        torch.save(content, path, _use_new_zipfile_serialization=wrap != "old")
    made, _ = imported(path, name="own")
    assert made.path == models / "imported" / sha256_of(path)[:16] / "own.safetensors"
    written = load_file(made.path)
    for key, value in network(64).state_dict().items():
        torch.testing.assert_close(written[key].float(), value, atol=0.002, rtol=0.001)
    info = read_model_info(made.path)
    assert (info.name, info.task, info.template) == ("own", "restore", "arcface_gpen")
    assert info.input_range == (-1.0, 1.0) and not info.residual and info.licence == ""
    with safe_open(made.path, framework="numpy") as file:
        assert file.metadata()["source_sha256"] == sha256_of(path)
    assert registry.resolve("own") == made.path
    assert registry.resolve(path) == (path if wrap == "safetensors" else made.path)
    assert not [p for p in models.rglob(".*") if "lock" not in p.name], "no draft is left"


def test_what_shapes_cannot_tell_is_said_and_kept(tmp_path):
    path = saved(tmp_path / "seg.pth", network(64).state_dict())
    made, _ = imported(path, task="segment", template="ffhq_512")
    info = read_model_info(made.path)
    assert (info.task, info.template, info.input_range) == ("segment", "ffhq_512", (0.0, 1.0))
    made, _ = imported(path, name="other", task="segment", input_range="-1,1")
    assert read_model_info(registry.resolve("other")).input_range == (-1.0, 1.0)
    for option, value in (("task", "paint"), ("template", "mean"), ("input_range", "0,255")):
        message = refusal(path, ConfigError, **{option: value})
        assert f"--{option.replace('_', '-')} {value}: unknown" in message
    for name in ("a b", "../x", ".x", "x" * 99):
        assert "cannot be a name" in refusal(path, ConfigError, name=name)
    assert "that of gpen-lite-256 is" in refusal(path, name="gpen-lite-256")


class Evil:
    def __reduce__(self):
        return os.system, (f"touch {os.environ['EVIL_MARK']}",)


class EvilList:
    def __reduce__(self):
        return exec, ("import os; open(os.environ['EVIL_MARK'], 'w').close()",)


@pytest.mark.parametrize("evil", [Evil, EvilList])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_run_code_is_refused_and_runs_none(evil, zipped, tmp_path, monkeypatch, models):
    mark = tmp_path / "executed"
    monkeypatch.setenv("EVIL_MARK", str(mark))
    path = tmp_path / "evil.pth"
    state = network(64).state_dict()
    torch.save({"g_ema": state, "extra": evil()}, path, _use_new_zipfile_serialization=zipped)
    message = refusal(path)
    assert "evil.pth: refused: it asks to run" in message and ("system" in message or "exec" in message)
    with pytest.raises(ModelError, match="refused"):
        registry.resolve(path)
    assert not mark.exists() and not list(models.rglob("*.safetensors"))
    torch.load(path, weights_only=False)
    assert mark.exists(), "the file is a real attack: whoever unpickles it freely runs it"


def wrong_weights():
    """Ways in which weights can be wrong, and words that the message must contain."""
    plain = network(64).state_dict()
    name = "generator.convs.3.conv.weight"
    yield {k: v for k, v in plain.items() if k != name}, [name, "missing"]
    yield plain | {"generator.surplus": torch.zeros(1)}, ["generator.surplus", "unknown"]
    yield plain | {name: torch.zeros(1, 8, 8, 3, 3)}, [name, "shape (1, 8, 8, 3, 3)", "expected"]
    yield plain | {name: torch.full_like(plain[name], torch.nan)}, [name, "finite"]
    yield plain | {"ecd0.0.1.bias": torch.zeros(4, dtype=torch.int64)}, ["ecd0.0.1.bias", "finite"]
    yield {"final_linear.0.weight": torch.zeros(3)}, ["0 encoder and 0 RGB levels"]
    yield {f"generator.to_rgbs.{i}.bias": torch.zeros(1) for i in range(10**4)}, ["10000 RGB levels"]
    yield {"g": plain, "d": plain}, ["'g_ema'", "g, d"]
    yield {"g_ema": [1, 2]}, ["'g_ema'"]
    yield {}, ["nothing"]
    yield torch.zeros(3), ["Tensor"]


@pytest.mark.parametrize("case", range(11))
def test_other_weights_are_refused_by_the_name_of_the_first_tensor(case, tmp_path, models):
    content, words = list(wrong_weights())[case]
    message = refusal(saved(tmp_path / "w.pth", content))
    assert message.startswith(f"{tmp_path / 'w.pth'}: ")
    for word in words:
        assert word in message
    assert not list(models.rglob("*.safetensors")) and not ledger.read_ledger().imports


def test_files_that_are_no_weights_are_refused(tmp_path):
    whole = saved(tmp_path / "whole.pth", network(64).state_dict()).read_bytes()
    for name, data, word in (
        ("cut.pth", whole[: len(whole) // 2], "not a whole file"),
        ("noise.pth", np.random.default_rng(0).bytes(5000), "not a whole file"),
        ("page.pth", b"<html>not found</html>", "not a whole file"),
        ("empty.pth", b"", "not a whole file"),
        ("noise.safetensors", b"\xff" * 100, "not a whole file"),
        ("a.zip", whole, "not a kind of file"),
    ):
        (tmp_path / name).write_bytes(data)
        message = refusal(tmp_path / name)
        assert name in message and word in message
    assert "check the path" in refusal(tmp_path / "none.pth")
    assert "check the path" in refusal(tmp_path)


def test_an_official_file_needs_its_licence_and_is_pinned_by_its_first_use(tmp_path):
    path = saved(tmp_path / "GPEN-BFR-256.pth", {"g_ema": network().state_dict()})
    message = refusal(path, ConfigError)
    assert "Alibaba" in message and "--accept-licence" in message and not ledger.read_ledger().pins
    made, said = imported(path, accept=True)
    assert made.name == "gpen-bfr-256" and registry.resolve("gpen-bfr-256") == made.path
    assert "licence" in said[0] and "trusted on first use" in said[1] and sha256_of(path) in said[1]
    assert ledger.read_ledger().pins == {"GPEN-BFR-256.pth": sha256_of(path)}
    info = read_model_info(made.path)
    assert (info.name, info.size, info.licence) == ("gpen-bfr-256", 256, "gpen")
    again, said = imported(path)
    assert again.path == made.path and len(said) == 1, "consent and pin are remembered"
    assert registry.resolve(path, notify=said.append) == made.path and len(said) == 1, (
        "a run says nothing more"
    )
    path = saved(path, {"g_ema": network(256, n_mlp=1).state_dict()})
    assert "that of gpen-bfr-256 is" in refusal(path)
    own, _ = imported(path, name="mine")
    assert read_model_info(own.path).licence == ""


def test_an_official_name_does_not_make_another_network_of_it(tmp_path):
    path = saved(tmp_path / "GPEN-BFR-256.pth", network(64).state_dict())
    assert "a network for 64 px, expected 256 px" in refusal(path, accept=True)
    assert not ledger.read_ledger().pins
    path = saved(tmp_path / "renamed.pth", network().state_dict())
    made, _ = imported(path, name="gpen-bfr-256", accept=True)
    assert made.name == "gpen-bfr-256"
    assert "official" in refusal(path, ConfigError, task="segment")
    assert "leave the name out" in refusal(path, ConfigError, name="mine")


def written_onnx(path, in_size=16, size=32, kind=TensorProto.FLOAT, channels=3, batch=1, inputs=1):
    """A network that enlarges by repeating pixels."""
    shapes = [(batch, channels, in_size, in_size), (batch, channels, size, size)]
    given = [helper.make_tensor_value_info(f"x{i}", kind, shapes[0]) for i in range(inputs)]
    made = helper.make_tensor_value_info("y", kind, shapes[1])
    scales = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, size / in_size, size / in_size])
    node = helper.make_node("Resize", ["x0", "", "scales"], ["y"], mode="nearest")
    graph = helper.make_graph([node], "enlarge", given, [made], [scales])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_an_onnx_gets_a_sidecar_with_its_facts_and_stays_where_it_is(tmp_path):
    path = written_onnx(tmp_path / "net.onnx")
    with pytest.raises(ModelError, match=r"net\.onnx: an unknown network; run: gpen-stream models import "):
        read_model_info(path)
    made, _ = imported(path, name="enlarger", template="ffhq_512", input_range="0,1")
    assert made.path == path and registry.resolve("enlarger") == registry.resolve(path) == path
    info = read_model_info(path)
    assert (info.in_size, info.size, info.template, info.input_range) == (16, 32, "ffhq_512", (0.0, 1.0))
    assert info.sha256 == sha256_of(path) and info.narrow == info.n_mlp == 0 and info.name == "net"
    with pytest.raises(ModelError, match="torch does not run"):
        load_generator(path)
    written_onnx(path, in_size=32)
    with pytest.raises(ModelError, match=r"not the file that net\.onnx\.json describes"):
        read_model_info(path)
    imported(path)
    assert read_model_info(path).in_size == 32
    for text in ("", "[]", "{}", '{"sha256": "", "metadata": 3}'):
        (tmp_path / "net.onnx.json").write_text(text)
        with pytest.raises(ModelError, match=r"net\.onnx\.json: not a sidecar"):
            read_model_info(path)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"channels": 1}, "its input is f32[1,1,16,16], expected f32[1,3,S,S]"),
        ({"in_size": 24, "size": 24}, "24 px wide, expected a power of two"),
        ({"in_size": 32, "size": 16}, "turns 32 px into 16 px"),
        ({"kind": TensorProto.FLOAT16}, "its input is f16"),
        ({"batch": 2}, "its input is f32[2,3,16,16]"),
        ({"inputs": 2}, "2 inputs"),
        ({"in_size": "side", "size": 64}, "fixed S"),
    ],
)
def test_an_onnx_of_another_make_is_refused(options, words, tmp_path):
    if options.get("in_size") == "side":
        path = written_onnx(tmp_path / "net.onnx")
        graph = onnx.load(path)
        graph.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "side"
        onnx.save(graph, path)
    else:
        path = written_onnx(tmp_path / "net.onnx", **options)
    assert words in refusal(path) and not (tmp_path / "net.onnx.json").exists()
    path.write_bytes(b"no network")
    assert "not a readable ONNX network" in refusal(path)


def test_a_published_onnx_is_known_by_its_digest(tmp_path, models, monkeypatch):
    path = written_onnx(tmp_path / "download.onnx", 256, 256)
    table = json.loads(json.dumps(catalog._table()))
    table["models"]["gpen-bfr-256-onnx"] |= {"sha256": sha256_of(path), "bytes": path.stat().st_size}
    monkeypatch.setattr(catalog, "_table", lambda: table)
    catalog.entries.cache_clear()
    try:
        info = read_model_info(path)
        assert (info.size, info.template, info.licence, info.task) == (256, "arcface_gpen", "gpen", "restore")
        made, _ = imported(path, accept=True)
        assert made.path == models / "GPEN-BFR-256.onnx" == registry.resolve("gpen-bfr-256-onnx")
        assert made.path.read_bytes() == path.read_bytes()
    finally:
        catalog.entries.cache_clear()
