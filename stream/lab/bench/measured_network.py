"""The networks that are measured: the published formulation and the product's engines."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch

from stream.errors import ConfigError
from stream.lab.bench.bench_models import PublishedModel
from stream.lab.bench.worker import Unavailable
from stream.models.engines import create_engine

PUBLISHED = "published"
DEPTHWISE = "published, depthwise"


class PublishedSide:
    """The published formulation, on CUDA if there is a GPU."""

    def __init__(self, path: Path, *, depthwise: bool, precision: str, inference_mode: bool) -> None:
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = _half(self._device) if precision == "half" else torch.float32
        self._net = PublishedModel(path, depthwise=depthwise, dtype=dtype, device=self._device)
        self.model = self._net.model
        self._mode: Callable[[], AbstractContextManager[None]] = (
            torch.inference_mode if inference_mode else torch.no_grad
        )
        self.description = f"eager torch on {self._device}, {dtype}".replace("torch.", "")

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Restore f32[N,3,S,S] in -1..1 on the CPU; the result is alike."""
        return self._net(x.to(self._device), self._mode).cpu()


class EngineSide:
    """One of the product's engines."""

    def __init__(
        self, kind: str, path: Path, *, batch_size: int, threads: int, precision: str, fidelity: float
    ) -> None:
        try:
            self._engine = create_engine(
                kind, path, batch_size=batch_size, threads=threads, precision=precision, fidelity=fidelity
            )
        except (ConfigError, ImportError) as reason:
            raise Unavailable(str(reason)) from reason
        self.model = self._engine.model
        self.description = self._engine.description

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        """Restore f32[N,S,S,3] in 0..1; the result is alike."""
        return self._engine.restore(crops)


def network(
    kind: str,
    path: Path,
    *,
    threads: int,
    precision: str = "fp32",
    batch_size: int = 1,
    inference_mode: bool = False,
    fidelity: float = 1.0,
) -> PublishedSide | EngineSide:
    """The network of `path`, run by `kind`: PUBLISHED, DEPTHWISE or the name of an engine.

    The precision "half" is the half precision of this machine's device. Raises Unavailable, with the
    reason, if this machine cannot run the network.
    """
    torch.set_num_threads(threads)
    if kind in (PUBLISHED, DEPTHWISE):
        return PublishedSide(
            path, depthwise=kind == DEPTHWISE, precision=precision, inference_mode=inference_mode
        )
    return EngineSide(
        kind,
        path,
        batch_size=batch_size,
        threads=threads,
        precision=half_name() if precision == "half" else precision,
        fidelity=fidelity,
    )


def half_name() -> str:
    """The half precision of this machine: fp16 with CUDA, else bf16."""
    return "fp16" if torch.cuda.is_available() else "bf16"


def _half(device: str) -> torch.dtype:
    if device == "cuda":
        return torch.float16
    if not native_bfloat16():
        raise Unavailable("this CPU has no bfloat16 arithmetic")
    return torch.bfloat16


def native_bfloat16() -> bool:
    """Whether the CPU has bfloat16 arithmetic (AVX-512 BF16 or AMX); False where the system is not Linux."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
