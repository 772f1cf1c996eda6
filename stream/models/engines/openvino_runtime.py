"""What all networks on OpenVINO share: settings, the cache of converted networks, small ONNX networks."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import openvino as ov

from stream.errors import ModelError
from stream.models.engines import cache
from stream.pipeline.processes import in_threads

_FILES = ("model.xml", "model.bin")

_LOADING = threading.Lock()

_log = logging.getLogger(__name__)

OnnxNet = Callable[[np.ndarray], list[np.ndarray]]
"""One input array -> the network's outputs, in their order."""


def openvino_core() -> ov.Core:
    """The one core of this process.

    A thread that ends at once loads its plugin for the CPU: OpenVINO gives the loading thread an
    alternative signal stack, and frees the stack together with the core, from any thread. If the loading
    thread still ran, the next signal that it handles, such as Ctrl-C, would end the process.
    """
    with _LOADING:
        return _core()


@functools.cache
def _core() -> ov.Core:
    def load(name: str) -> ov.Core:
        core = ov.Core()
        core.get_property(name, "FULL_DEVICE_NAME")
        return core

    return in_threads(load, ["CPU"], 1)[0]


def cpu_config(threads: int | None = None, arithmetic: str = "f32") -> dict[str, object]:
    """Compile options for the lowest latency.

    threads: the most threads; None: OpenVINO's choice. arithmetic: "f32" or "bf16". By default OpenVINO
    would compute in BF16 on a CPU that has it.
    """
    config: dict[str, object] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": arithmetic,
    }
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    return config


def cached_network(folder: Path) -> ov.Model | None:
    """The network that `save_network` wrote to a folder of the cache; None if there is no intact one."""
    try:
        return openvino_core().read_model(folder / _FILES[0]) if cache.is_intact(folder, _FILES) else None
    except (OSError, ValueError, RuntimeError) as error:
        _log.warning("%s: broken cached network (%s), converting again", folder, error)
        return None


def save_network(network: ov.Model, folder: Path, *, half: bool = False) -> None:
    """Write a converted network to a folder of the cache. If that fails, a warning is logged.

    half: round the weights to FP16.
    """
    try:
        cache.write_folder(
            folder, _FILES, lambda draft: ov.save_model(network, draft / _FILES[0], compress_to_fp16=half)
        )
    except (OSError, RuntimeError) as error:
        _log.warning("%s: cannot keep the converted network (%s)", folder, error)


def compile_onnx(
    model: str | Path | bytes,
    shape: Sequence[int] | None = None,
    threads: int | None = None,
) -> OnnxNet:
    """Compile a small ONNX network with one input. The arrays that it returns are new ones.

    model: a path, or the file's bytes. The network is compiled for one static shape at a time, which runs
    faster: for `shape`, or the first input's shape, and again when the input's shape changes.
    Raises ModelError where the model cannot be read.
    """
    return _OnnxNet(model, shape, threads)


class _OnnxNet:
    def __init__(self, model: str | Path | bytes, shape: Sequence[int] | None, threads: int | None) -> None:
        self._core = openvino_core()
        self._config = cpu_config(threads)
        source = "ONNX bytes" if isinstance(model, bytes) else str(model)
        try:
            self._model = self._core.read_model(model if isinstance(model, bytes) else Path(model))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[-200:]
            raise ModelError(f"{source}: not a readable ONNX network ({reason})") from error
        if len(self._model.inputs) != 1:
            raise ModelError(f"{source}: expected one input, got {len(self._model.inputs)}")
        self._shape: tuple[int, ...] | None = None
        if shape is not None:
            self._compile(tuple(shape))

    def __call__(self, x: np.ndarray) -> list[np.ndarray]:
        if x.shape != self._shape:
            self._compile(x.shape)
        results = self._request.infer([x], share_inputs=True)
        return [results[output] for output in self._request.model_outputs]

    def _compile(self, shape: tuple[int, ...]) -> None:
        # Compiling copies the model, so it can be reshaped again and again.
        self._model.reshape(list(shape))
        compiled = self._core.compile_model(self._model, "CPU", self._config)
        self._request = compiled.create_infer_request()
        self._shape = shape
