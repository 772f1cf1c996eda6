"""The choice of the engine: the first measurement, its record on disk, and the check of half precision."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
from small_models import write_tiny_model

from stream.errors import ModelError
from stream.models.engines import ENGINE_KINDS, auto_choice, create_engine, self_check
from stream.models.engines.cache import CACHE_VARIABLE
from stream.models.engines.torch_engine import TorchEngine

FACTS = "small", 1
"""Model and threads."""


class Clock:
    """Stands in for the module `time`; only engines that run move it on."""

    def __init__(self):
        self.now_s = 0.0

    def perf_counter(self):
        return self.now_s


class Timed:
    """A real engine that takes `crop_s` by the clock, and counts how often it is opened and closed."""

    def __init__(self, path, clock, crop_s):
        self.path, self.clock, self.crop_s, self.opened, self.closed = path, clock, crop_s, 0, 0

    def __call__(self):
        self.opened += 1
        self._engine = TorchEngine(self.path, threads=1)
        self.model = self._engine.model
        return self

    def restore(self, crops):
        self.clock.now_s += self.crop_s
        return self._engine.restore(crops)

    def close(self):
        self.closed += 1


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return write_tiny_model(tmp_path / "small.safetensors")


@pytest.fixture
def record(tmp_path):
    return tmp_path / "cache" / "choice" / "record.json"


@pytest.fixture
def timed(small, monkeypatch):
    """Makes engines of the small model that take a given time for a crop, in seconds."""
    clock = Clock()
    monkeypatch.setattr(auto_choice, "time", clock)
    return lambda crop_s: Timed(small, clock, crop_s)


def refuses():
    raise ModelError("small.safetensors: does not run here")


def test_the_fastest_candidate_is_chosen_remembered_and_not_measured_again(timed, record):
    slow, fast = timed(0.1), timed(0.05)
    candidates = {"openvino": slow, "onnxruntime": fast}
    assert auto_choice.open_fastest(candidates, record, *FACTS) is fast
    assert (slow.closed, fast.closed) == (1, 0)
    (kept,) = auto_choice.recorded_choices()
    assert kept.engine == "onnxruntime"
    assert kept.ms == {"openvino": 100.0, "onnxruntime": 50.0}
    assert (kept.model, kept.threads) == FACTS
    assert auto_choice.open_fastest(candidates, record, *FACTS) is fast
    assert (slow.opened, fast.opened) == (1, 2)


@pytest.mark.parametrize(("second_s", "changes"), [(0.089, True), (0.091, False), (0.1, False), (0.2, False)])
def test_the_first_candidate_stays_where_the_other_is_hardly_faster(timed, record, second_s, changes):
    first, second = timed(0.1), timed(second_s)
    chosen = auto_choice.open_fastest({"openvino": first, "onnxruntime": second}, record, *FACTS)
    assert chosen is (second if changes else first)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b'{"engine": "openvino"}', b'{"engine": "gone", "ms": {}}'],
)
def test_a_broken_record_is_measured_again(timed, record, content):
    first, second = timed(0.05), timed(0.1)
    record.parent.mkdir(parents=True)
    record.write_bytes(content)
    assert auto_choice.open_fastest({"openvino": first, "onnxruntime": second}, record, *FACTS) is first
    assert json.loads(record.read_text())["engine"] == "openvino"


def test_a_candidate_that_does_not_open_is_left_out(timed, record, caplog):
    works = timed(0.1)
    assert auto_choice.open_fastest({"openvino": refuses, "onnxruntime": works}, record, *FACTS) is works
    assert "left out" in caplog.text


def test_a_recorded_engine_that_no_longer_opens_is_replaced(timed, record, caplog):
    first, second = timed(0.05), timed(0.1)
    auto_choice.open_fastest({"openvino": first, "onnxruntime": second}, record, *FACTS)
    assert auto_choice.open_fastest({"openvino": refuses, "onnxruntime": second}, record, *FACTS) is second
    assert "no longer opens" in caplog.text


def test_the_first_error_is_raised_where_no_candidate_opens(record):
    with pytest.raises(ModelError, match="does not run"):
        auto_choice.open_fastest({"openvino": refuses, "onnxruntime": refuses}, record, *FACTS)
    assert not record.exists()


def test_a_record_that_cannot_be_written_costs_only_the_measurement(timed, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    first, second = timed(0.05), timed(0.1)
    record = tmp_path / "file" / "record.json"
    assert auto_choice.open_fastest({"openvino": first, "onnxruntime": second}, record, *FACTS) is first
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


def test_the_command_lists_the_engines_and_the_choices_made(timed, record, run_cli):
    auto_choice.open_fastest({"openvino": timed(0.05), "onnxruntime": timed(0.1)}, record, *FACTS)
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
def reference(small):
    return TorchEngine(small, threads=1)


@pytest.mark.parametrize(
    ("error", "agrees"), [(0.0, True), (0.001, True), (0.1, False), (np.nan, False), (np.inf, False)]
)
def test_a_fast_engine_is_used_from_40_db_on(small, reference, record, caplog, error, agrees):
    fast = Wrong(reference, error)
    reopened = []

    def open_reference():
        reopened.append(1)
        return TorchEngine(small, threads=1)

    for _ in range(2):  # the second time from disk
        assert self_check.agrees(fast, open_reference, record) is agrees
    assert len(reopened) == 1
    assert ("going on in FP32" in caplog.text) is not agrees


def test_half_precision_passes_the_self_check(small, reference):
    half = TorchEngine(small, threads=1, precision="fp16")
    assert 45 < self_check.agreement_db(half, reference) < 120
    assert self_check.agreement_db(reference, reference) == math.inf


def test_a_broken_self_check_is_made_again(small, reference, record):
    record.parent.mkdir(parents=True)
    record.write_text('{"trusted": tr')
    assert self_check.agrees(reference, lambda: TorchEngine(small, threads=1), record)
    assert json.loads(record.read_text())["trusted"] is True


def test_the_fixed_crop_is_a_picture():
    crop = self_check.fixed_crop(64)
    assert crop.shape == (1, 64, 64, 3)
    assert crop.dtype == np.float32
    assert 0 <= crop.min() < crop.max() <= 1
    np.testing.assert_array_equal(crop, self_check.fixed_crop(64))
