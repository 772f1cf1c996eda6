"""Restoration by OpenVINO: the default on a CPU.

Weights are stored and arithmetic is done in FP32. FP16 storage would halve the cached file, but
rounding the folded weights moved the output by 1.2e-4, for no gain in speed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np
import openvino as ov
from platformdirs import user_cache_dir

from stream.engines.base import check_crops
from stream.engines.openvino_runtime import cpu_config
from stream.model import ModelInfo, read_model_info

CACHE_VARIABLE = "GPEN_STREAM_CACHE"
"""Environment variable that names another cache folder."""
CONVERTER_VERSION = 1
"""Raise it whenever the network or its conversion changes: older cached models are ignored."""

_log = logging.getLogger(__name__)


class OpenVinoEngine:
    """OpenVINO on the CPU, FP32 storage and arithmetic.

    The network is compiled for one crop, and crops run one after another on all threads: measured
    on two cores for four crops, gpen-lite-256 took 113 ms that way, 112 with two streams of one
    thread, 119 as a static batch and 135 as a dynamic one. Single crops have the lowest latency,
    and no crop can disturb another.
    """

    name = "openvino-cpu"
    description = "OpenVINO on the CPU, FP32 storage and arithmetic"

    def __init__(self, model_path: str | Path, *, threads: int | None = None) -> None:
        core = ov.Core()
        self.model = read_model_info(model_path)
        network = cached_network(core, self.model) or converted_network(Path(model_path), self.model)
        compiled = core.compile_model(network, "CPU", cpu_config(threads))
        self._request: ov.InferRequest | None = compiled.create_infer_request()

    def restore(self, crops: np.ndarray) -> np.ndarray:
        """See `Engine.restore`."""
        if self._request is None:
            raise RuntimeError("the engine is closed")
        check_crops(crops, self.model)
        side = self.model.size
        restored = np.empty((len(crops), side, side, 3), np.float32)
        for i in range(len(crops)):
            result = self._request.infer([crops[i : i + 1]], share_inputs=True, share_outputs=True)
            restored[i] = result[0][0]
        return restored

    def close(self) -> None:
        """See `Engine.close`."""
        self._request = None


def cache_folder() -> Path:
    """Where converted networks are kept."""
    return Path(os.environ.get(CACHE_VARIABLE) or user_cache_dir("gpen-stream"))


def _entry(model: ModelInfo) -> Path:
    key = f"{ov.get_version()}|{CONVERTER_VERSION}|{model.sha256}"
    return cache_folder() / "openvino" / hashlib.sha256(key.encode()).hexdigest()[:32]


def cached_network(core: ov.Core, model: ModelInfo) -> ov.Model | None:
    """The converted network, or None when there is none that is whole."""
    entry = _entry(model)
    try:
        if (entry / "digest").read_text() != _digest(entry):
            raise ValueError("its digest does not match")
        return core.read_model(entry / "model.xml")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RuntimeError) as error:
        _log.warning("%s: broken cached network (%s), converting again", entry, error)
        return None


def converted_network(model_path: Path, model: ModelInfo) -> ov.Model:
    """Convert the network for one crop, and keep it in the cache where that can be written."""
    import torch

    from stream.engines.crop_net import CropNet
    from stream.nets import load_generator

    net, _ = load_generator(model_path)
    crop_net = CropNet(net, model.input_range).requires_grad_(False).eval()
    shape = [1, model.in_size, model.in_size, 3]
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer that OpenVINO uses is deprecated in torch
        network = ov.convert_model(crop_net, example_input=torch.zeros(shape), input=[shape])
    try:
        _store(network, _entry(model))
    except (OSError, RuntimeError) as error:
        _log.warning("%s: cannot keep the converted network (%s)", cache_folder(), error)
    return network


def _store(network: ov.Model, entry: Path) -> None:
    """Write a cache entry beside its place and rename it, so that no reader sees half of it."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f"{entry.name}-", dir=entry.parent))
    try:
        ov.save_model(network, draft / "model.xml", compress_to_fp16=False)
        (draft / "digest").write_text(_digest(draft))
        shutil.rmtree(entry, ignore_errors=True)
        draft.rename(entry)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _digest(entry: Path) -> str:
    """SHA-256 over both files; 32 MB take 25 ms, and a crash can leave zeros in whole files."""
    digest = hashlib.sha256()
    for name in ("model.xml", "model.bin"):
        with (entry / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
