"""Engines run a network; only this package knows an inference library."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

from stream.engines.base import Engine
from stream.errors import ConfigError

# OpenVINO would report every import and conversion to its makers: without this package it cannot.
sys.modules.setdefault("openvino_telemetry", None)

ENGINE_KINDS = ("auto", "openvino", "torch")

__all__ = ["ENGINE_KINDS", "Engine", "create_engine"]


def create_engine(
    kind: str,
    model_path: str | Path,
    *,
    device: str = "auto",
    batch_size: int = 4,
    threads: int | None = None,
) -> Engine:
    """Load the model at `model_path` for restoring.

    `kind` "auto" takes torch on CUDA where there is a usable NVIDIA card, OpenVINO otherwise.
    `device` is "auto", "cpu", "cuda" or "cuda:N". `batch_size` bounds the crops that go to the
    device at once. `threads` bounds the CPU threads; None leaves the library's own choice.
    Raises ConfigError for settings that cannot be met, ModelError for the weights.
    """
    if kind not in ENGINE_KINDS:
        raise ConfigError(f"engine {kind!r} is unknown; use one of {', '.join(ENGINE_KINDS)}")
    if batch_size < 1 or (threads is not None and threads < 1):
        raise ConfigError(f"expected at least 1, got {batch_size = }, {threads = }")
    if device == "auto":
        device = "cuda" if kind != "openvino" and cuda_usable() else "cpu"
    if kind == "auto":
        kind = "openvino" if device == "cpu" else "torch"
    if kind == "torch":
        from stream.engines.torch_engine import TorchEngine

        return TorchEngine(model_path, device=device, batch_size=batch_size, threads=threads)
    if device != "cpu":
        raise ConfigError(f"engine 'openvino' runs on device cpu here, got {device!r}")
    from stream.engines.openvino_engine import OpenVinoEngine

    return OpenVinoEngine(model_path, threads=threads)


def cuda_usable() -> bool:
    """Whether torch can use a CUDA device; torch is imported only where a driver is present."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    import torch

    return torch.cuda.is_available()
