"""Which engine runs: the first measurement, its memory on disk, and the GPU's self-check."""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from small_models import write_tiny_model

from stream.errors import ModelError
from stream.models.engines import ENGINE_KINDS, auto_choice, create_engine, self_check
from stream.models.engines.cache import CACHE_VARIABLE
from stream.models.engines.torch_engine import TorchEngine

FACTS = "small", 1
"""Model and threads, for people."""


class Slowed:
    """A real engine that takes `wait_s` longer, and counts how often it is opened."""

    def __init__(self, path, wait_s=0.0):
        self.path, self.wait_s, self.opened, self.closed = path, wait_s, 0, 0

    def __call__(self):
        self.opened += 1
        self._engine = TorchEngine(self.path, threads=1)
        self.model = self._engine.model
        return self

    def restore(self, crops):
        time.sleep(self.wait_s)
        return self._engine.restore(crops)

    def close(self):
        self.closed += 1


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return write_tiny_model(tmp_path / "small.safetensors")


@pytest.fixture
def entry(tmp_path):
    return tmp_path / "cache" / "choice" / "entry.json"


def refuses():
    raise ModelError("small.safetensors: does not run here")


def test_the_fastest_candidate_is_chosen_remembered_and_not_measured_again(small, entry):
    slow, fast = Slowed(small, 0.1), Slowed(small)
    candidates = {"openvino": slow, "onnxruntime": fast}
    assert auto_choice.open_fastest(candidates, entry, *FACTS) is fast
    assert (slow.closed, fast.closed) == (1, 0)
    (kept,) = auto_choice.recorded_choices()
    assert kept.engine == "onnxruntime"
    assert kept.ms["openvino"] > kept.ms["onnxruntime"]
    assert (kept.model, kept.threads) == FACTS
    assert auto_choice.open_fastest(candidates, entry, *FACTS) is fast
    assert (slow.opened, fast.opened) == (1, 2)


def test_the_first_candidate_stays_where_the_other_is_hardly_faster(small, entry):
    first, second = Slowed(small, 0.101), Slowed(small, 0.1)
    assert auto_choice.open_fastest({"openvino": first, "onnxruntime": second}, entry, *FACTS) is first


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b'{"engine": "openvino"}', b'{"engine": "gone", "ms": {}}'],
)
def test_a_broken_memory_is_measured_again(small, entry, content):
    first, second = Slowed(small), Slowed(small, 0.05)
    entry.parent.mkdir(parents=True)
    entry.write_bytes(content)
    assert auto_choice.open_fastest({"openvino": first, "onnxruntime": second}, entry, *FACTS) is first
    assert json.loads(entry.read_text())["engine"] == "openvino"


def test_a_candidate_that_does_not_open_is_left_out(small, entry, caplog):
    works = Slowed(small)
    assert auto_choice.open_fastest({"openvino": refuses, "onnxruntime": works}, entry, *FACTS) is works
    assert "left out" in caplog.text


def test_a_remembered_engine_that_no_longer_opens_is_replaced(small, entry, caplog):
    first, second = Slowed(small), Slowed(small, 0.05)
    auto_choice.open_fastest({"openvino": first, "onnxruntime": second}, entry, *FACTS)
    assert auto_choice.open_fastest({"openvino": refuses, "onnxruntime": second}, entry, *FACTS) is second
    assert "no longer opens" in caplog.text


def test_the_error_is_told_where_no_candidate_opens(small, entry):
    with pytest.raises(ModelError, match="does not run"):
        auto_choice.open_fastest({"openvino": refuses, "onnxruntime": refuses}, entry, *FACTS)
    assert not entry.exists()


def test_a_memory_that_cannot_be_kept_costs_only_the_measurement(small, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    entry = tmp_path / "file" / "entry.json"
    first = Slowed(small)
    assert (
        auto_choice.open_fastest({"openvino": first, "onnxruntime": Slowed(small, 0.05)}, entry, *FACTS)
        is first
    )
    assert "cannot be kept" in caplog.text


def test_without_onnx_runtime_nothing_is_measured(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    engine = create_engine("auto", small, device="cpu", threads=1)
    assert engine.name == "openvino-cpu"
    assert not auto_choice.recorded_choices()


def test_a_choice_is_keyed_by_what_it_depends_on(small):
    model = create_engine("torch", small, device="cpu", threads=1).model
    candidates = {"openvino": refuses, "onnxruntime": refuses}
    entries = {
        auto_choice.record_path(model, candidates, 1),
        auto_choice.record_path(model, candidates, 2),
        auto_choice.record_path(model, {"openvino": refuses}, 1),
        auto_choice.record_path(replace(model, sha256="another"), candidates, 1),
    }
    assert len(entries) == 4
    assert "openvino 2" in auto_choice.versions(candidates)
    assert auto_choice.cpu_name()


def test_the_command_lists_the_engines_and_the_choices_made(small, entry, run_cli):
    auto_choice.open_fastest({"openvino": Slowed(small), "onnxruntime": Slowed(small, 0.05)}, entry, *FACTS)
    facts = json.loads(run_cli("engines", "--json").stdout)
    lacks = {row["engine"]: row["lacks"] for row in facts["engines"]}
    assert set(lacks) == set(ENGINE_KINDS) - {"auto"}
    assert lacks["openvino"] == lacks["torch"] == ""
    assert facts["auto"][0]["engine"] == "openvino"
    text = run_cli("engines").stdout
    assert "auto, small, 1 threads: openvino" in text


class Wrong:
    """An engine whose output is off by `error`, as of a GPU with a bad kernel."""

    name = "torch-cuda"

    def __init__(self, engine, error):
        self._engine, self._error, self.model = engine, error, engine.model

    def restore(self, crops):
        return self._engine.restore(crops) + np.float32(self._error)

    def close(self):
        pass


@pytest.fixture
def sure(small):
    return TorchEngine(small, threads=1)


@pytest.mark.parametrize(
    ("error", "trusted"), [(0.0, True), (0.001, True), (0.1, False), (np.nan, False), (np.inf, False)]
)
def test_a_fast_engine_is_trusted_from_40_db_on(small, sure, entry, caplog, error, trusted):
    fast = Wrong(sure, error)
    reopened = []

    def open_sure():
        reopened.append(1)
        return TorchEngine(small, threads=1)

    for _ in range(2):  # the second time from disk
        assert self_check.agrees(fast, open_sure, entry) is trusted
    assert len(reopened) == 1
    assert ("going on in FP32" in caplog.text) is not trusted


def test_half_precision_passes_the_self_check(small, sure, entry):
    half = TorchEngine(small, threads=1, precision="fp16")
    assert 45 < self_check.agreement_db(half, sure) < 120
    assert self_check.agreement_db(sure, sure) == math.inf


def test_a_broken_self_check_is_made_again(small, sure, entry):
    entry.parent.mkdir(parents=True)
    entry.write_text('{"trusted": tr')
    assert self_check.agrees(sure, lambda: TorchEngine(small, threads=1), entry)
    assert json.loads(entry.read_text())["trusted"] is True


def test_the_fixed_crop_is_a_picture():
    crop = self_check.fixed_crop(64)
    assert crop.shape == (1, 64, 64, 3)
    assert crop.dtype == np.float32
    assert 0 <= crop.min() < crop.max() <= 1
    np.testing.assert_array_equal(crop, self_check.fixed_crop(64))
