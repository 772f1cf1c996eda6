"""One contract for every engine: golden outputs, batches, faults, precisions."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from networks import golden_crops, golden_model, published_onnx
from waiting import LIMIT_S

from stream.errors import ConfigError, ModelError
from stream.models.engines import auto_choice, create_engine, cuda_usable, torch_compile
from stream.models.engines.cache import CACHE_VARIABLE
from stream.models.engines.openvino_engine import offered_precisions
from stream.models.info import bundled_model_path

THREADS = 2
BF16 = "bf16" in offered_precisions()


@dataclass(frozen=True)
class Case:
    """One engine with its settings, as it runs on this machine."""

    kind: str
    precision: str = "fp32"
    onnx: bool = False
    """The published export in place of our own weights."""
    atol: float = 1e-4
    """Largest difference from the golden output, whose values reach 2; a bound for the type."""
    unchanged: float = 1e-5
    """Largest difference of two runs on the same crop; types of few bits depend on the batch."""


CASES = {
    "openvino": Case("openvino"),
    "openvino fp16": Case("openvino", "fp16", atol=0.01),
    "openvino bf16": Case("openvino", "bf16", atol=0.1),
    "openvino onnx": Case("openvino", onnx=True),
    "torch": Case("torch"),
    "torch fp16": Case("torch", "fp16", atol=0.03, unchanged=0.01),
    "torch bf16": Case("torch", "bf16", atol=0.1, unchanged=0.05),
    "torch-compile": Case("torch-compile"),
    "onnxruntime": Case("onnxruntime"),
    "onnxruntime onnx": Case("onnxruntime", onnx=True),
    "auto": Case("auto"),
}
if not BF16:
    del CASES["openvino bf16"]  # it is refused, which has its own test


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """The module's own cache folder, in which everything is converted once."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(folder))
        yield folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return golden_model(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def export(weights):
    return published_onnx(weights, dynamic=True)


@pytest.fixture(scope="module")
def opened(weights, export):
    """Opens a case's engine."""

    def open_engine(case, **settings):
        path, info = export if case.onnx else (weights, None)
        settings = {"device": "cpu", "batch_size": 2, "threads": THREADS, "info": info} | settings
        with pytest.MonkeyPatch.context() as patch:
            # Inductor takes a minute for this network; it has a test of its own on a small one.
            patch.setattr(torch_compile, "BACKEND", "aot_eager")
            return create_engine(case.kind, path, precision=case.precision, **settings)

    return open_engine


@pytest.fixture(scope="module")
def engines(opened):
    made = {name: opened(case) for name, case in CASES.items()}
    yield made
    for engine in made.values():
        engine.close()


@pytest.fixture(scope="module")
def crops():
    """Five crops f32[5, 64, 64, 3] in 0..1: the two golden ones, and three that mix them."""
    first, second = golden_crops()[0]
    mixed = [first, second, (first + second) / 2, first[::-1], second[:, ::-1]]
    return np.ascontiguousarray(mixed, np.float32)


@pytest.fixture(scope="module")
def singly(engines, crops):
    """Each engine's result for every crop alone."""
    return {
        name: np.concatenate([engine.restore(crop[None]) for crop in crops])
        for name, engine in engines.items()
    }


@pytest.fixture(params=CASES)
def name(request):
    return request.param


@pytest.fixture
def case(name):
    return CASES[name]


@pytest.fixture
def engine(name, engines):
    return engines[name]


class TestContract:
    def test_the_output_is_the_golden_one(self, singly, name, case):
        np.testing.assert_allclose(singly[name][:2], golden_crops()[1], atol=case.atol)

    def test_restored_crops_have_the_shape_and_type_of_the_crops(self, engine, crops):
        restored = engine.restore(crops[:1])
        assert restored.shape == (1, 64, 64, 3)
        assert restored.dtype == np.float32
        assert restored.flags.c_contiguous
        assert restored.flags.writeable

    def test_a_batch_equals_single_runs_in_order(self, engine, name, case, crops, singly):
        np.testing.assert_allclose(engine.restore(crops), singly[name], atol=case.unchanged)

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
        assert engine.restore(crops[:0]).shape == (0, 64, 64, 3)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_a_crop_that_is_not_finite_spoils_itself_alone(self, engine, name, case, crops, singly, value):
        spoilt = crops[:3].copy()
        spoilt[1] = value
        restored = engine.restore(spoilt)
        assert not np.isfinite(restored[1]).all()
        np.testing.assert_allclose(restored[[0, 2]], singly[name][[0, 2]], atol=case.unchanged)

    @pytest.mark.parametrize(
        "make",
        [
            lambda crops: crops.astype(np.float64),
            lambda crops: (crops * 255).astype(np.uint8),
            lambda crops: crops[0],
            lambda crops: crops[:, :32, :32].copy(),
            lambda crops: crops.transpose(0, 2, 1, 3),
        ],
        ids=["f64", "u8", "no batch", "other size", "strided"],
    )
    def test_other_arrays_are_refused(self, engine, crops, make):
        with pytest.raises(ValueError, match="expected"):
            engine.restore(make(crops))

    def test_names_and_model_are_told(self, engine, case):
        assert engine.name.endswith("-cpu")
        assert case.kind in (engine.name.removesuffix("-cpu"), "auto")
        assert case.precision.upper() in engine.description
        assert engine.model.size == 64
        assert engine.model.name.startswith("gpen-64")

    def test_a_closed_engine_refuses_to_run(self, opened, case, crops):
        engine = opened(case)
        engine.close()
        engine.close()
        with pytest.raises(RuntimeError, match="closed"):
            engine.restore(crops[:1])

    def test_fidelity_is_monotonic_or_refused(self, opened, case, crops, singly, name):
        if case.onnx:
            with pytest.raises(ConfigError, match=r"restore\.fidelity"):
                opened(case, fidelity=0.5)
            return
        far = [0.0]
        for fidelity in (0.5,) if case.kind == "onnxruntime" else (0.7, 0.0):  # an export takes seconds
            engine = opened(case, fidelity=fidelity)
            far.append(float(np.abs(engine.restore(crops[:1]) - singly[name][:1]).mean()))
            engine.close()
        assert far == sorted(far)
        assert far[1] > 0.01

    def test_wrong_weights_are_told_in_one_line(self, case, weights, export, tmp_path):
        whole = export[0] if case.onnx else weights
        path = tmp_path / f"broken{whole.suffix}"
        path.write_bytes(whole.read_bytes()[:1000])
        info = replace(export[1], sha256="broken") if case.onnx else None
        with pytest.raises(ModelError) as caught:
            create_engine(case.kind, path, device="cpu", info=info)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


def test_all_engines_of_single_precision_agree(singly):
    single = [name for name, case in CASES.items() if case.precision == "fp32"]
    for name in single:
        np.testing.assert_allclose(singly[name], singly["torch"], atol=1e-4, err_msg=name)


@pytest.mark.parametrize("kind", ["openvino", "torch", "onnxruntime"])
def test_the_bundled_model_keeps_a_face_recognisable_on_every_engine(kind, face):
    import cv2

    picture = cv2.cvtColor(cv2.imread(str(face)), cv2.COLOR_BGR2RGB)[16:272, 16:272]
    crop = np.ascontiguousarray(picture[None], np.float32) / 255
    engine = create_engine(kind, bundled_model_path(), device="cpu", precision="fp32", threads=THREADS)
    restored = engine.restore(crop)
    engine.close()
    assert 1e-3 < np.abs(restored - crop).mean() < 0.05
    reference = create_engine("torch", bundled_model_path(), device="cpu", threads=THREADS)
    np.testing.assert_allclose(restored, reference.restore(crop), atol=1e-4)


def test_a_warm_cache_restores_without_importing_torch(engines, cache, weights):
    script = f"""
        import sys
        import numpy as np
        from stream.models.engines import create_engine
        engine = create_engine(
            "openvino", {str(weights)!r}, device="cpu", threads={THREADS}
        )
        assert engine.restore(np.zeros((1, 64, 64, 3), np.float32)).shape[0] == 1
        engine = create_engine("auto", {str(weights)!r}, device="cpu", threads={THREADS})
        assert engine.restore(np.zeros((1, 64, 64, 3), np.float32)).shape[0] == 1
        assert "torch" not in sys.modules, "torch was imported"
        assert sys.modules["openvino_telemetry"] is None, "OpenVINO may report to its makers"
    """
    assert auto_choice.recorded_choices()
    environment = os.environ | {CACHE_VARIABLE: str(cache)}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("caffe", {}),
        ("openvino", {"device": "cuda"}),
        ("openvino", {"precision": "int8"}),
        ("openvino", {"precision": "fp8"}),
        ("torch", {"device": "tpu"}),
        ("torch", {"device": "cuda:99"}),
        ("torch", {"device": "cpu", "precision": "int8"}),
        ("onnxruntime", {"device": "tpu"}),
        ("onnxruntime", {"device": "cpu", "precision": "fp16"}),
        ("onnxruntime", {"device": "cuda"}),
        ("tensorrt", {}),
        ("auto", {"batch_size": 0}),
        ("auto", {"threads": 0}),
        ("auto", {"fidelity": 1.5}),
    ],
)
def test_settings_that_cannot_be_met_are_refused(kind, settings):
    if cuda_usable() and (kind == "tensorrt" or settings.get("device") == "cuda"):
        pytest.skip("may be met on a machine with CUDA")
    with pytest.raises(ConfigError) as caught:
        create_engine(kind, bundled_model_path(), **settings)
    assert "\n" not in str(caught.value)


def test_torch_takes_no_onnx_files(export):
    with pytest.raises(ConfigError, match="ONNX"):
        create_engine("torch", export[0], device="cpu", info=export[1])


def test_an_onnx_file_of_another_size_is_told_in_one_line(export):
    info = replace(export[1], size=128, in_size=128, sha256="another")
    for kind in ("openvino", "onnxruntime"):
        with pytest.raises(ModelError, match="128 px") as caught:
            create_engine(kind, export[0], device="cpu", info=info)
        assert "\n" not in str(caught.value)


def test_torch_is_told_how_many_threads_to_use(weights):
    create_engine("torch", weights, device="cpu", threads=1).close()
    assert torch.get_num_threads() == 1
    torch.set_num_threads(THREADS)


def test_idle_torch_threads_do_not_spin_beside_other_processes(run_cli):
    code = "import os, stream.models.engines; print(os.environ['OMP_WAIT_POLICY'])"
    assert run_cli(code=code, env=os.environ | {"OMP_WAIT_POLICY": "ACTIVE"}).stdout.strip() == "ACTIVE"
    unset = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    assert run_cli(code=code, env=unset).stdout.strip() == "PASSIVE"


@pytest.mark.skipif(not cuda_usable(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["torch", "torch-compile"])
def test_half_precision_on_cuda_is_close_to_the_golden_output(kind, weights, crops, singly):
    engine = create_engine(kind, weights, device="cuda", batch_size=4)
    assert engine.name == f"{kind}-cuda"
    for count in (1, 3, 5):
        np.testing.assert_allclose(engine.restore(crops[:count]), singly["torch"][:count], atol=0.03)
    engine.close()
