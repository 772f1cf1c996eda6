"""Engines run a network. Only this package imports inference libraries."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from stream.errors import ConfigError
from stream.models.engines.engine import PRECISIONS, Engine
from stream.models.info import ModelInfo, read_model_info

# With this package OpenVINO would report every import and conversion to its makers.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # typeshed forbids None
# Torch's threads would wait by spinning, which is very slow beside busy processes. Torch reads this when
# it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ENGINE_KINDS = ("auto", "openvino", "torch", "torch-compile", "onnxruntime", "tensorrt")

__all__ = ["ENGINE_KINDS", "PRECISIONS", "Engine", "create_engine"]

_log = logging.getLogger(__name__)


def create_engine(
    kind: str,
    model_path: str | Path,
    *,
    device: str = "auto",
    batch_size: int = 4,
    threads: int | None = None,
    precision: str = "auto",
    fidelity: float = 1.0,
    info: ModelInfo | None = None,
) -> Engine:
    """Load the model at `model_path`, safetensors or ONNX, for restoring.

    kind: one of ENGINE_KINDS. "auto" chooses torch on CUDA if there is a usable NVIDIA card, else the
    fastest engine on this CPU: OpenVINO, or ONNX Runtime if a first measurement shows that it is clearly
    faster. ONNX Runtime is only measured for `.onnx` files and for weights that an earlier run exported.
    device: "auto", "cpu", "cuda" or "cuda:N".
    batch_size: the most crops that go to the device at once.
    threads: the most CPU threads; None: the library's choice.
    precision: one of PRECISIONS. "auto" is half precision where the device computes in it: FP16 on CUDA,
    BF16 by OpenVINO on a CPU with BF16 instructions. On first use its result is compared with FP32's. FP32
    is used if the PSNR between them is below 40 dB, and on all other devices.
    fidelity: 0..1, scales the input's features that the decoder sees; 1: the published network.
    info: the result of `read_model_info`, if the caller has it already.
    Raises ConfigError for settings that cannot be met, and ModelError for wrong weights.
    """
    if kind not in ENGINE_KINDS:
        raise ConfigError(f"engine {kind!r} is unknown; use one of {', '.join(ENGINE_KINDS)}")
    if precision not in PRECISIONS:
        raise ConfigError(f"precision {precision!r} is unknown; use one of {', '.join(PRECISIONS)}")
    if batch_size < 1 or (threads is not None and threads < 1):
        raise ConfigError(f"expected at least 1, got {batch_size = }, {threads = }")
    if not 0.0 <= fidelity <= 1.0:
        raise ConfigError(f"restore.fidelity: expected 0 to 1, got {fidelity}")
    if device == "auto":
        device = "cuda" if kind != "openvino" and cuda_usable() else "cpu"
    info = info or read_model_info(model_path)
    request = _Request(model_path, info, device, batch_size, threads, precision, fidelity)
    if kind == "auto":
        if device == "cpu":
            return _fastest_on_cpu(request)
        kind = "onnxruntime" if Path(model_path).suffix == ".onnx" else "torch"
    if kind in ("torch", "torch-compile"):
        return _torch(request, compiled=kind == "torch-compile")
    if kind == "openvino":
        if device != "cpu":
            raise ConfigError(f"engine 'openvino' runs on device cpu here, got {device!r}")
        return _openvino(request)
    return _onnxruntime(replace(request, device="tensorrt") if kind == "tensorrt" else request)


@dataclass(frozen=True, slots=True)
class _Request:
    """The arguments of `create_engine`, checked."""

    path: str | Path
    info: ModelInfo
    device: str
    batch_size: int
    threads: int | None
    precision: str
    fidelity: float


def has_nvidia_driver() -> bool:
    """Whether NVIDIA's driver is installed."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def cuda_usable() -> bool:
    """Whether torch can use a CUDA device. Torch is only imported if a driver is installed."""
    if not has_nvidia_driver():
        return False
    import torch

    return torch.cuda.is_available()


def _fastest_on_cpu(request: _Request) -> Engine:
    from stream.models.engines import auto_choice, onnx_engine

    if request.precision == "bf16" and not _bf16_is_native():
        _log.warning("restore.precision: this CPU has no BF16 of its own: computing in FP32")
        request = replace(request, precision="fp32")
    candidates: dict[str, Callable[[], Engine]] = {"openvino": lambda: _openvino(request)}
    ready = onnx_engine.is_ready_for(request.path, request.info, request.fidelity)
    if ready and request.precision in ("auto", "fp32"):
        candidates["onnxruntime"] = lambda: _onnxruntime(request)
    if len(candidates) == 1:
        return candidates["openvino"]()
    record = auto_choice.record_path(request.info, candidates, request.threads)
    return auto_choice.open_fastest(candidates, record, request.info.name, request.threads)


def _bf16_is_native() -> bool:
    from stream.models.engines.openvino_engine import offered_precisions

    return "bf16" in offered_precisions()


def _openvino(request: _Request) -> Engine:
    from stream.models.engines import auto_choice, cache, self_check
    from stream.models.engines.openvino_engine import OpenVinoEngine

    def opened(precision: str) -> Engine:
        return OpenVinoEngine(
            request.path,
            threads=request.threads,
            precision=precision,
            fidelity=request.fidelity,
            info=request.info,
        )

    model = request.info
    noisy = model.in_size < model.size  # it draws noise: each run differs
    if request.precision != "auto" or noisy or not _bf16_is_native():
        return opened(request.precision)
    engine = opened("bf16")
    key = cache.key_of(auto_choice.cpu_name(), metadata.version("openvino"), model.sha256, request.fidelity)
    record = cache.cache_folder() / "self-check" / f"{key}.json"
    if self_check.agrees(engine, lambda: opened("fp32"), record):
        return engine
    engine.close()
    return opened("fp32")


def _onnxruntime(request: _Request) -> Engine:
    accelerator = request.device.split(":")[0]
    if accelerator not in ("cpu", "cuda", "tensorrt"):
        raise ConfigError(f"device {request.device!r} is not known to ONNX Runtime; use cpu or cuda")
    from stream.models.engines.onnx_engine import OnnxEngine

    return OnnxEngine(
        request.path,
        accelerator=accelerator,
        batch_size=request.batch_size,
        threads=request.threads,
        precision=request.precision,
        fidelity=request.fidelity,
        info=request.info,
    )


def _torch(request: _Request, *, compiled: bool) -> Engine:
    kind = "torch-compile" if compiled else "torch"
    if Path(request.path).suffix == ".onnx":
        raise ConfigError(f"engine {kind!r} takes no ONNX files; use engine openvino or onnxruntime")
    from stream.models.engines.torch_engine import TorchEngine

    def opened(device: str, precision: str, *, compiled: bool) -> Engine:
        return TorchEngine(
            request.path,
            device=device,
            batch_size=request.batch_size,
            threads=request.threads,
            precision=precision,
            fidelity=request.fidelity,
            compiled=compiled,
        )

    device = request.device
    engine = opened(device, request.precision, compiled=compiled)
    if device == "cpu" or request.precision not in ("auto", "fp16"):
        return engine
    if engine.model.in_size < engine.model.size:  # it draws noise: each run differs
        return engine
    import torch

    from stream.models.engines import cache, self_check

    card = torch.cuda.get_device_name(device)
    key = cache.key_of(card, torch.__version__, engine.model.sha256, kind, request.fidelity)
    record = cache.cache_folder() / "self-check" / f"{key}.json"
    if self_check.agrees(engine, lambda: opened("cpu", "fp32", compiled=False), record):
        return engine
    engine.close()
    return opened(device, "fp32", compiled=compiled)
