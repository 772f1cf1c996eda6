"""What every network on OpenVINO needs: settings, the cache of converted ones, small ONNX networks."""

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


def openvino_core() -> ov.Core:
    """The one core of this process; its plugin for the CPU is loaded by a thread that ends at once.

    Where it is loaded OpenVINO gives that thread a signal stack of its own, and takes the stack away
    again together with the core, in whichever thread that happens. The next signal that the thread
    handles, a Ctrl-C for one, would then end the process without a word.
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
    """Compile options: lowest latency, `arithmetic` "f32" or "bf16", at most `threads` threads.

    Left to itself OpenVINO would compute in BF16 where the CPU has it.
    """
    config: dict[str, object] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": arithmetic,
    }
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    return config


def cached_network(entry: Path) -> ov.Model | None:
    """The network that `keep_network` kept in a cache folder; None where there is none that is whole."""
    try:
        return openvino_core().read_model(entry / _FILES[0]) if cache.whole(entry, _FILES) else None
    except (OSError, ValueError, RuntimeError) as error:
        _log.warning("%s: broken cached network (%s), converting again", entry, error)
        return None


def keep_network(network: ov.Model, entry: Path, *, half: bool = False) -> None:
    """Keep a converted network, its weights rounded to FP16 if `half`, where that can be written."""
    try:
        cache.store(
            entry, _FILES, lambda draft: ov.save_model(network, draft / _FILES[0], compress_to_fp16=half)
        )
    except (OSError, RuntimeError) as error:
        _log.warning("%s: cannot keep the converted network (%s)", entry, error)


def compile_onnx(
    model: str | Path | bytes,
    shape: Sequence[int] | None = None,
    threads: int | None = None,
) -> OnnxNet:
    """A callable from one input array to the list of the network's outputs, in their order.

    `model` is a path or the file's bytes. The network is compiled for one static shape at a time
    (`shape`, or that of the first input) and again when the input's shape changes, which is cheap
    for small networks and lets static ones run faster. The outputs are the caller's own.
    Raises ModelError when the model cannot be read.
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
        # A model that was read can be reshaped again and again; compiling copies it.
        self._model.reshape(list(shape))
        compiled = self._core.compile_model(self._model, "CPU", self._config)
        self._request = compiled.create_infer_request()
        self._shape = shape
