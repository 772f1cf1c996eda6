"""Properties of OpenVINO alone: the cache of converted networks, precisions, small ONNX networks."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from small_models import write_tiny_model

from stream.errors import ConfigError, ModelError
from stream.models.engines import create_engine
from stream.models.engines.cache import CACHE_VARIABLE
from stream.models.engines.openvino_engine import OpenVinoEngine, network_folder, offered_precisions
from stream.models.engines.openvino_runtime import cached_network, compile_onnx
from stream.models.info import read_model_info

THREADS = 2


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A model of 16 px, which converts fast, with its own cache folder."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return write_tiny_model(tmp_path / "small.safetensors")


def restored_zeros(path, **settings):
    return OpenVinoEngine(path, threads=THREADS, **settings).restore(np.zeros((1, 16, 16, 3), np.float32))


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
    assert entry == network_folder(read_model_info(small))
    for name, harm in harms.items():
        for path, data in zip((weights, graph, digest), whole, strict=True):
            path.write_bytes(data)
        assert cached_network(entry) is not None, name
        harm()
        assert cached_network(entry) is None, name
    np.testing.assert_array_equal(restored_zeros(small), expected)
    assert list(folder.iterdir()) == [entry]
    assert cached_network(entry) is not None


def test_a_cache_folder_that_cannot_be_written_costs_only_the_conversion(
    small, tmp_path, monkeypatch, caplog
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    assert restored_zeros(small).shape == (1, 16, 16, 3)
    assert "cannot keep" in caplog.text


def test_each_fidelity_and_storage_has_a_cached_network_of_its_own(small, tmp_path):
    for settings in ({}, {"fidelity": 0.5}, {"precision": "fp16"}):
        first, again = restored_zeros(small, **settings), restored_zeros(small, **settings)
        np.testing.assert_array_equal(first, again)
    entries = list((tmp_path / "cache" / "openvino").iterdir())
    assert len(entries) == 3
    sizes = sorted((entry / "model.bin").stat().st_size for entry in entries)
    assert sizes[0] < 0.6 * sizes[1]


class CpuWithout:
    """The OpenVINO core of a CPU without BF16."""

    def get_property(self, device, name):
        assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
        return ["FP32", "INT8", "BIN", "EXPORT_IMPORT"]


def test_bf16_is_offered_only_where_the_cpu_has_it(small, monkeypatch, caplog):
    with monkeypatch.context() as patched:
        patched.setattr("stream.models.engines.openvino_engine.openvino_core", CpuWithout)
        assert offered_precisions() == ("fp32", "fp16")
    monkeypatch.setattr("stream.models.engines.openvino_engine.offered_precisions", lambda: ("fp32", "fp16"))
    with pytest.raises(ConfigError, match=r"restore\.precision.*'bf16'") as caught:
        create_engine("openvino", small, device="cpu", precision="bf16")
    assert "\n" not in str(caught.value)
    with caplog.at_level(logging.WARNING):
        engine = create_engine("auto", small, device="cpu", precision="bf16", threads=THREADS)
    assert "FP32 storage and arithmetic" in engine.description
    assert "no BF16" in caplog.text


@pytest.mark.parametrize(("native", "least", "expected"), [
    (True, -200.0, "BF16 arithmetic"), (True, 200.0, "FP32 storage and arithmetic"),
    (False, -200.0, "FP32 storage and arithmetic"),
])  # fmt: skip
def test_auto_is_half_precision_where_it_is_native_and_close_to_single(
    small, tmp_path, monkeypatch, native, least, expected
):
    if native and "bf16" not in offered_precisions():
        native, expected = False, "FP32 storage and arithmetic"
    monkeypatch.setattr("stream.models.engines._bf16_is_native", lambda: native)
    monkeypatch.setattr("stream.models.engines.self_check.LEAST_PSNR_DB", least)
    for _ in range(2):  # measured, then read from the record
        engine = create_engine("openvino", small, device="cpu", threads=THREADS)
        assert expected in engine.description
    kept = list((tmp_path / "cache" / "self-check").glob("*.json"))
    assert len(kept) == native
    assert all(json.loads(path.read_text())["psnr_db"] > 40 for path in kept)


SIGNALLED = """
import faulthandler, os, signal, sys, threading
from stream.models.engines import create_engine
faulthandler.enable()  # gives this thread a signal stack, as OpenVINO would
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
engine = create_engine("openvino", sys.argv[1], device="cpu", threads=1)
os.kill(os.getpid(), signal.SIGUSR1)
closing = threading.Thread(target=engine.close)
closing.start()
closing.join()
del engine
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_signals_are_handled_after_an_engine_was_closed_by_another_thread(small, run_cli):
    done = run_cli(small, code=SIGNALLED)
    assert (done.returncode, done.stdout) == (0, "handled\n" * 2), done.stderr


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
