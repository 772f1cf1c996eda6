"""Engines run a network; only this package knows an inference library."""

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

# OpenVINO would report every import and conversion to its makers: without this package it cannot.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # typeshed forbids None
# Threads of torch that wait by spinning collapse beside busy processes; read when torch is loaded.
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

    `kind` "auto" takes torch on CUDA where there is a usable NVIDIA card, and else the fastest on
    this CPU: OpenVINO, or ONNX Runtime where a first measurement says so. Measured is what is
    there: ONNX Runtime for `.onnx` files, and for weights that an earlier run exported for it.
    `device` is "auto", "cpu", "cuda" or "cuda:N". `batch_size` bounds the crops that go to the
    device at once. `threads` bounds the CPU threads; None leaves the library's own choice.
    `precision` is one of PRECISIONS; "auto" is half precision where the device computes in it: FP16
    on CUDA, BF16 by OpenVINO on a CPU that has it natively. On first use the result is held against
    FP32; below 40 dB, and elsewhere, it is FP32. `fidelity` in 0..1 scales what the decoder sees of
    the input's features; 1 is the published network. `info` is what `read_model_info` says of the
    file, for callers that have asked already.
    Raises ConfigError for settings that cannot be met, ModelError for the weights.
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
    asked = _Asked(model_path, info, device, batch_size, threads, precision, fidelity)
    if kind == "auto":
        if device == "cpu":
            return _fastest_on_cpu(asked)
        kind = "onnxruntime" if Path(model_path).suffix == ".onnx" else "torch"
    if kind in ("torch", "torch-compile"):
        return _torch(asked, compiled=kind == "torch-compile")
    if kind == "openvino":
        if device != "cpu":
            raise ConfigError(f"engine 'openvino' runs on device cpu here, got {device!r}")
        return _openvino(asked)
    return _onnxruntime(replace(asked, device="tensorrt") if kind == "tensorrt" else asked)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What `create_engine` was asked for."""

    path: str | Path
    info: ModelInfo
    device: str
    batch_size: int
    threads: int | None
    precision: str
    fidelity: float


def driver_present() -> bool:
    """Whether NVIDIA's driver is installed."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def cuda_usable() -> bool:
    """Whether torch can use a CUDA device; torch is imported only where a driver is present."""
    if not driver_present():
        return False
    import torch

    return torch.cuda.is_available()


def _fastest_on_cpu(asked: _Asked) -> Engine:
    from stream.models.engines import auto_choice, onnx_engine

    if asked.precision == "bf16" and not _bf16_is_native():
        _log.warning("restore.precision: this CPU has no BF16 of its own: computing in FP32")
        asked = replace(asked, precision="fp32")
    candidates: dict[str, Callable[[], Engine]] = {"openvino": lambda: _openvino(asked)}
    ready = onnx_engine.ready_for(asked.path, asked.info, asked.fidelity)
    if ready and asked.precision in ("auto", "fp32"):
        candidates["onnxruntime"] = lambda: _onnxruntime(asked)
    if len(candidates) == 1:
        return candidates["openvino"]()
    entry = auto_choice.entry_of(asked.info, candidates, asked.threads)
    return auto_choice.chosen(candidates, entry, asked.info.name, asked.threads)


def _bf16_is_native() -> bool:
    from stream.models.engines.openvino_engine import offered_precisions

    return "bf16" in offered_precisions()


def _openvino(asked: _Asked) -> Engine:
    from stream.models.engines import auto_choice, cache, self_check
    from stream.models.engines.openvino_engine import OpenVinoEngine

    def opened(precision: str) -> Engine:
        return OpenVinoEngine(
            asked.path,
            threads=asked.threads,
            precision=precision,
            fidelity=asked.fidelity,
            info=asked.info,
        )

    model = asked.info
    noisy = model.in_size < model.size  # it draws noise: no two runs are alike
    if asked.precision != "auto" or noisy or not _bf16_is_native():
        return opened(asked.precision)
    engine = opened("bf16")
    key = cache.key_of(auto_choice.cpu_name(), metadata.version("openvino"), model.sha256, asked.fidelity)
    entry = cache.cache_folder() / "self-check" / f"{key}.json"
    if self_check.trusted(engine, lambda: opened("fp32"), entry):
        return engine
    engine.close()
    return opened("fp32")


def _onnxruntime(asked: _Asked) -> Engine:
    accelerator = asked.device.split(":")[0]
    if accelerator not in ("cpu", "cuda", "tensorrt"):
        raise ConfigError(f"device {asked.device!r} is not known to ONNX Runtime; use cpu or cuda")
    from stream.models.engines.onnx_engine import OnnxEngine

    return OnnxEngine(
        asked.path,
        accelerator=accelerator,
        batch_size=asked.batch_size,
        threads=asked.threads,
        precision=asked.precision,
        fidelity=asked.fidelity,
        info=asked.info,
    )


def _torch(asked: _Asked, *, compiled: bool) -> Engine:
    kind = "torch-compile" if compiled else "torch"
    if Path(asked.path).suffix == ".onnx":
        raise ConfigError(f"engine {kind!r} takes no ONNX files; use engine openvino or onnxruntime")
    from stream.models.engines.torch_engine import TorchEngine

    def opened(device: str, precision: str, *, compiled: bool) -> Engine:
        return TorchEngine(
            asked.path,
            device=device,
            batch_size=asked.batch_size,
            threads=asked.threads,
            precision=precision,
            fidelity=asked.fidelity,
            compiled=compiled,
        )

    device = asked.device
    engine = opened(device, asked.precision, compiled=compiled)
    if device == "cpu" or asked.precision not in ("auto", "fp16"):
        return engine
    if engine.model.in_size < engine.model.size:  # it draws noise: no two runs are alike
        return engine
    import torch

    from stream.models.engines import cache, self_check

    card = torch.cuda.get_device_name(device)
    key = cache.key_of(card, torch.__version__, engine.model.sha256, kind, asked.fidelity)
    entry = cache.cache_folder() / "self-check" / f"{key}.json"
    if self_check.trusted(engine, lambda: opened("cpu", "fp32", compiled=False), entry):
        return engine
    engine.close()
    return opened(device, "fp32", compiled=compiled)
