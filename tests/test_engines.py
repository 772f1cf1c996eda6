"""One contract for every engine, and what is particular to each."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import numpy as np
import openvino as ov
import pytest
import torch

from stream.engines import create_engine, cuda_usable, openvino_engine
from stream.engines.openvino_engine import CACHE_VARIABLE, OpenVinoEngine
from stream.engines.openvino_runtime import compile_onnx
from stream.errors import ConfigError, ModelError
from stream.model import bundled_model_path, read_model_info

KINDS = ("openvino", "torch")
THREADS = 2


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A cache folder of the session's own, so that the bundled model is converted once."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(folder))
        yield folder


@pytest.fixture(scope="session")
def engines(cache):
    made = {
        kind: create_engine(kind, bundled_model_path(), device="cpu", batch_size=2, threads=THREADS)
        for kind in KINDS
    }
    yield made
    for engine in made.values():
        engine.close()


@pytest.fixture(params=KINDS)
def engine(request, engines):
    return engines[request.param]


@pytest.fixture(scope="module")
def crops():
    """Five crops f32[5, 256, 256, 3] that differ from one another, in 0..1."""
    random = np.random.default_rng(7)
    coarse = random.random((5, 16, 16, 3), np.float32)
    return np.ascontiguousarray(coarse.repeat(16, 1).repeat(16, 2))


@pytest.fixture(scope="module")
def singly(engines, crops):
    """What each engine makes of every crop on its own."""
    return {
        kind: np.concatenate([engine.restore(crop[None]) for crop in crops])
        for kind, engine in engines.items()
    }


class TestContract:
    def test_restored_crops_have_the_shape_and_type_of_the_crops(self, engine, crops):
        restored = engine.restore(crops[:1])
        assert restored.shape == (1, 256, 256, 3)
        assert restored.dtype == np.float32
        assert restored.flags.c_contiguous
        assert restored.flags.writeable

    def test_a_batch_equals_single_runs_in_order(self, engine, engines, crops, singly):
        kind = next(kind for kind in KINDS if engines[kind] is engine)
        np.testing.assert_allclose(engine.restore(crops), singly[kind], atol=1e-5)

    def test_the_result_stays_when_the_engine_runs_again(self, engine, crops):
        first = engine.restore(crops[:1])
        kept = first.copy()
        engine.restore(crops[1:2])
        np.testing.assert_array_equal(first, kept)

    def test_the_input_is_left_alone(self, engine, crops):
        given = crops[:2].copy()
        given.flags.writeable = False
        engine.restore(given)
        np.testing.assert_array_equal(given, crops[:2])

    def test_no_crops_give_no_crops(self, engine, crops):
        assert engine.restore(crops[:0]).shape == (0, 256, 256, 3)

    def test_a_crop_that_is_not_a_number_spoils_itself_alone(self, engine, engines, crops, singly):
        kind = next(kind for kind in KINDS if engines[kind] is engine)
        spoilt = crops[:3].copy()
        spoilt[1] = np.nan
        restored = engine.restore(spoilt)
        assert np.isnan(restored[1]).any()
        np.testing.assert_allclose(restored[[0, 2]], singly[kind][[0, 2]], atol=1e-5)

    def test_a_residual_model_keeps_the_picture_recognisable(self, engine, crops):
        assert np.abs(engine.restore(crops[:1]) - crops[:1]).mean() < 0.2

    @pytest.mark.parametrize(
        "make",
        [
            lambda crops: crops.astype(np.float64),
            lambda crops: (crops * 255).astype(np.uint8),
            lambda crops: crops[0],
            lambda crops: crops[:, :128, :128].copy(),
            lambda crops: crops.transpose(0, 2, 1, 3),
        ],
        ids=["f64", "u8", "no batch", "other size", "strided"],
    )
    def test_other_arrays_are_refused(self, engine, crops, make):
        with pytest.raises(ValueError, match="expected"):
            engine.restore(make(crops))

    def test_names_and_model_are_told(self, engine):
        assert engine.name.endswith("-cpu")
        assert "FP32" in engine.description
        assert engine.model.name == "gpen-lite-256"


def test_openvino_agrees_with_torch(singly):
    np.testing.assert_allclose(singly["openvino"], singly["torch"], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_engine_refuses_to_run(kind, cache, crops):
    engine = create_engine(kind, bundled_model_path(), device="cpu", threads=THREADS)
    engine.close()
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.restore(crops[:1])


def test_a_warm_cache_restores_without_importing_torch(engines, cache):
    script = f"""
        import sys
        import numpy as np
        from stream.engines import create_engine
        from stream.model import bundled_model_path
        engine = create_engine(
            "auto", bundled_model_path(), device="cpu", threads={THREADS}
        )
        assert engine.name == "openvino-cpu"
        assert engine.restore(np.zeros((1, 256, 256, 3), np.float32)).shape[0] == 1
        assert "torch" not in sys.modules, "torch was imported"
        assert sys.modules["openvino_telemetry"] is None, "OpenVINO may report to its makers"
    """
    environment = os.environ | {CACHE_VARIABLE: str(cache)}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def small(tmp_path):
    """A model of 16 px, which converts fast, and a cache folder of its own."""
    from test_nets import write_model

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
        yield write_model(tmp_path / "small.safetensors")


def restored_zeros(path):
    return OpenVinoEngine(path, threads=THREADS).restore(np.zeros((1, 16, 16, 3), np.float32))


def test_a_broken_cache_is_noticed_and_converted_again(small, tmp_path):
    expected = restored_zeros(small)
    folder = tmp_path / "cache" / "openvino"
    (entry,) = folder.iterdir()
    weights, graph, digest = (entry / name for name in ("model.bin", "model.xml", "digest"))
    whole = weights.read_bytes(), graph.read_bytes(), digest.read_bytes()
    harms = {
        "no digest": digest.unlink,
        "no graph": graph.unlink,
        "garbage graph": lambda: graph.write_text("<net>"),
        "cut weights": lambda: weights.write_bytes(whole[0][: len(whole[0]) // 2]),
        "zeroed weights": lambda: weights.write_bytes(bytes(len(whole[0]))),
    }
    core, info = ov.Core(), read_model_info(small)
    for name, harm in harms.items():
        for path, data in zip((weights, graph, digest), whole, strict=True):
            path.write_bytes(data)
        assert openvino_engine.cached_network(core, info) is not None, name
        harm()
        assert openvino_engine.cached_network(core, info) is None, name
    np.testing.assert_array_equal(restored_zeros(small), expected)
    assert list(folder.iterdir()) == [entry]
    assert openvino_engine.cached_network(core, info) is not None


def test_a_cache_folder_that_cannot_be_written_costs_only_the_conversion(
    small, tmp_path, monkeypatch, caplog
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    assert restored_zeros(small).shape == (1, 16, 16, 3)
    assert "cannot keep" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_weights_are_told_in_one_line(kind, tmp_path):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(bundled_model_path().read_bytes()[:1000])
    with pytest.raises(ModelError) as caught:
        create_engine(kind, path, device="cpu")
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("tensorrt", {}),
        ("openvino", {"device": "cuda"}),
        ("torch", {"device": "tpu"}),
        ("torch", {"device": "cuda:99"}),
        ("auto", {"batch_size": 0}),
        ("auto", {"threads": 0}),
    ],
)
def test_settings_that_cannot_be_met_are_refused(kind, settings):
    with pytest.raises(ConfigError) as caught:
        create_engine(kind, bundled_model_path(), **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not cuda_usable(), reason="needs a CUDA device")
def test_half_precision_on_cuda_stays_close_to_single(engines, crops, singly):
    engine = create_engine("auto", bundled_model_path())
    assert engine.name == "torch-cuda"
    np.testing.assert_allclose(engine.restore(crops), singly["torch"], atol=0.02)
    engine.close()


def onnx_bytes():
    """ONNX of y = relu(x), z = -x for f32[1, 3, h, w], put together field by field."""

    def field(number, value):
        if isinstance(value, int):
            return bytes([number << 3, value])
        value = value.encode() if isinstance(value, str) else b"".join(value)
        assert len(value) < 2**14
        return bytes([number << 3 | 2, len(value) & 127 | 128, len(value) >> 7]) + value

    def value_info(name):
        sides = [field(1, [field(1, 1)]), field(1, [field(1, 3)])]
        sides += [field(1, [field(2, "h")]), field(1, [field(2, "w")])]
        tensor = field(1, [field(1, 1), field(2, sides)])
        return [field(1, name), field(2, [tensor])]

    def node(kind, result):
        return field(1, [field(1, "x"), field(2, result), field(4, kind)])

    graph = [node("Relu", "y"), node("Neg", "z"), field(2, "two"), field(11, value_info("x"))]
    graph += [field(12, value_info("y")), field(12, value_info("z"))]
    return b"".join([field(1, 8), field(7, graph), field(8, [field(2, 13)])])


def test_an_onnx_network_follows_its_inputs_shape():
    net = compile_onnx(onnx_bytes(), shape=(1, 3, 8, 8), threads=THREADS)
    for side in (8, 12, 8):
        x = np.random.default_rng(0).standard_normal((1, 3, side, side)).astype(np.float32)
        y, z = net(x)
        np.testing.assert_array_equal(y, np.maximum(x, 0))
        np.testing.assert_array_equal(z, -x)


def test_an_unreadable_onnx_network_is_told_in_one_line(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"nothing")
    for model in (path, b"nothing", tmp_path / "absent.onnx"):
        with pytest.raises(ModelError) as caught:
            compile_onnx(model)
        assert "\n" not in str(caught.value)


def test_torch_is_told_how_many_threads_to_use(cache):
    create_engine("torch", bundled_model_path(), device="cpu", threads=1).close()
    assert torch.get_num_threads() == 1
    torch.set_num_threads(THREADS)
