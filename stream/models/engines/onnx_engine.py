"""Restoration by ONNX Runtime, on a CPU, on CUDA or with TensorRT."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from stream.errors import ConfigError, ModelError
from stream.models.engines import cache
from stream.models.engines.engine import batches, check_crops, check_precision
from stream.models.info import ModelInfo, read_model_info

if TYPE_CHECKING:  # an optional package
    from onnxruntime import InferenceSession

EXPORT_VERSION = 1
"""Must be raised when the network or its export changes, so that older exports are ignored."""
_FILES = ("model.onnx",)
_PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}

_log = logging.getLogger(__name__)


class OnnxEngine:
    """ONNX Runtime in FP32; with TensorRT also in FP16 arithmetic.

    `.onnx` files run as they are. Safetensors are exported once, into the cache. accelerator: "cpu",
    "cuda" or "tensorrt"; the latter two need `onnxruntime-gpu`.
    """

    def __init__(
        self,
        model_path: str | Path,
        *,
        accelerator: str = "cpu",
        batch_size: int = 4,
        threads: int | None = None,
        precision: str = "auto",
        fidelity: float = 1.0,
        info: ModelInfo | None = None,
    ) -> None:
        runtime = _runtime(accelerator)
        offered = ("fp16", "fp32") if accelerator == "tensorrt" else ("fp32",)
        precision = offered[0] if precision == "auto" else precision
        check_precision(f"onnxruntime on {accelerator}", precision, offered)
        self.model = info or read_model_info(model_path)
        path = Path(model_path)
        if path.suffix != ".onnx":
            path = _exported(path, self.model, fidelity)
        elif fidelity != 1.0:
            raise ConfigError(
                f"restore.fidelity: {path} has no such input; use 1.0, or the weights as safetensors"
            )
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads or 0
        # Otherwise its idle threads would spin on the cores that decoding and encoding need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = runtime.InferenceSession(path, options, _providers(accelerator, precision))
        except Exception as error:  # the library has an exception of its own for each way to fail
            reason = " ".join(str(error).split())[-200:]
            raise ModelError(f"{path}: ONNX Runtime cannot run it ({reason})") from error
        if session.get_providers()[0] != _PROVIDERS[accelerator][0]:
            raise ConfigError(
                f"restore.engine: ONNX Runtime fell back to {session.get_providers()[0]}; "
                f"install what {_PROVIDERS[accelerator][0]} needs, or use device cpu"
            )
        self._is_nchw = not _works_on_crops(path, session, self.model)
        self._input = session.get_inputs()[0].name
        fixed = session.get_inputs()[0].shape[0]
        # Batches are not faster on a CPU, and an export may be made for one crop.
        self._size = fixed if isinstance(fixed, int) else 1 if accelerator == "cpu" else batch_size
        self._session: InferenceSession | None = session
        self.name = f"onnxruntime-{accelerator}"
        self.description = f"ONNX Runtime on {accelerator}, FP32 storage, {precision.upper()} arithmetic"

    def restore(self, crops: np.ndarray) -> np.ndarray:
        """See `Engine.restore`."""
        session = self._session
        if session is None:
            raise RuntimeError("the engine is closed")
        check_crops(crops, self.model)
        side = self.model.size
        restored = np.empty((len(crops), side, side, 3), np.float32)
        for part, size in batches(len(crops), (self._size,)):
            batch = crops[part]
            if len(batch) < size:
                batch = np.concatenate((batch, np.repeat(batch[:1], size - len(batch), 0)))
            restored[part] = self._infer(session, batch)[: part.stop - part.start]
        return restored

    def _infer(self, session: InferenceSession, batch: np.ndarray) -> np.ndarray:
        restored: np.ndarray
        if not self._is_nchw:
            restored = session.run(None, {self._input: batch})[0]
            return restored
        low, high = (np.float32(bound) for bound in self.model.input_range)
        x = np.ascontiguousarray(batch.transpose(0, 3, 1, 2)) * (high - low) + low
        restored = session.run(None, {self._input: x})[0]
        return restored.transpose(0, 2, 3, 1) * np.float32(0.5) + np.float32(0.5)

    def close(self) -> None:
        """See `Engine.close`."""
        self._session = None


def installed() -> bool:
    """Whether ONNX Runtime is installed."""
    return importlib.util.find_spec("onnxruntime") is not None


def is_ready_for(path: str | Path, model: ModelInfo, fidelity: float) -> bool:
    """Whether ONNX Runtime can run the file without an export, which needs torch and many seconds."""
    return installed() and (Path(path).suffix == ".onnx" or _export_folder(model, fidelity).is_dir())


def _can_export() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("onnx", "onnxscript"))


def _export_folder(model: ModelInfo, fidelity: float) -> Path:
    key = cache.key_of(EXPORT_VERSION, model.sha256, fidelity)
    return cache.cache_folder() / "onnx" / key


def _runtime(accelerator: str) -> ModuleType:
    """The library. Raises ConfigError unless it can run on `accelerator`."""
    if not installed():
        raise ConfigError(
            "restore.engine: ONNX Runtime is not installed; pip install 'gpen-stream[onnxruntime]'"
        )
    import onnxruntime

    provider, available = _PROVIDERS[accelerator][0], onnxruntime.get_available_providers()
    if provider not in available:
        raise ConfigError(
            f"restore.engine: ONNX Runtime has no {provider} here, only {', '.join(available)}; "
            "install onnxruntime-gpu in place of onnxruntime, or use device cpu"
        )
    library: ModuleType = onnxruntime
    return library


def _providers(accelerator: str, precision: str) -> list[str | tuple[str, dict[str, str | bool]]]:
    """The execution providers in ONNX Runtime's form: names, and TensorRT's with options."""
    names = _PROVIDERS[accelerator]
    if accelerator != "tensorrt":
        return list(names)
    engines = cache.cache_folder() / "tensorrt"
    options: dict[str, str | bool] = {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(engines),
        "trt_fp16_enable": precision == "fp16",
    }
    return [(names[0], options), *names[1:]]


def _works_on_crops(path: Path, session: InferenceSession, model: ModelInfo) -> bool:
    """Whether the network's input and output are NHWC crops in 0..1. False: NCHW, as published exports.

    Raises ModelError for other shapes.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shapes = inputs[0].shape[1:], outputs[0].shape[1:]
    in_size, size = model.in_size, model.size
    single = len(inputs) == 1 and inputs[0].type == outputs[0].type == "tensor(float)"
    if single and shapes == ([in_size, in_size, 3], [size, size, 3]):
        return True
    dynamic = all(isinstance(side, str) for side in outputs[0].shape[2:])
    if not single or shapes[0] != [3, in_size, in_size] or not (dynamic or shapes[1] == [3, size, size]):
        raise ModelError(f"{path}: not an export of a {size} px generator, its shapes are {shapes}")
    return False


def _exported(path: Path, model: ModelInfo, fidelity: float) -> Path:
    """The ONNX export of a safetensors file, made now or by an earlier run."""
    folder = _export_folder(model, fidelity)
    try:
        if cache.is_intact(folder, _FILES):
            return folder / _FILES[0]
    except (OSError, ValueError) as error:
        _log.warning("%s: broken export (%s), exporting again", folder, error)
    if not _can_export():
        raise ConfigError(
            "restore.engine: exporting to ONNX needs onnx and onnxscript; "
            "pip install 'gpen-stream[onnxruntime]', or use engine openvino"
        )
    try:
        cache.write_folder(folder, _FILES, lambda draft: export(path, draft / _FILES[0], fidelity))
    except OSError as error:
        raise ConfigError(
            f"{folder}: the ONNX export cannot be kept ({error.strerror}); set {cache.CACHE_VARIABLE}"
        ) from error
    return folder / _FILES[0]


def export(path: Path, target: Path, fidelity: float = 1.0) -> None:
    """Write the generator at `path` as ONNX, for any number of NHWC crops in 0..1."""
    import torch

    from stream.models.engines.crop_net import CropNet
    from stream.models.nets import load_generator

    net, model = load_generator(path)
    net.scale_features(fidelity)
    net.freeze()
    crop_net = CropNet(net, model.input_range).requires_grad_(False).eval()
    example = torch.zeros(2, model.in_size, model.in_size, 3)
    exporter = logging.getLogger("onnxscript")
    level = exporter.level
    exporter.setLevel(logging.ERROR)  # it warns about every constant that it does not fold
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shapes = {"crops": {0: torch.export.Dim("crops")}}
            program = torch.onnx.export(
                crop_net, (example,), dynamo=True, dynamic_shapes=shapes, verbose=False
            )
            assert program is not None, "dynamo=True gives a program"
            program.save(target)
    finally:
        exporter.setLevel(level)
