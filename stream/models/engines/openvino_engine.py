"""Restoration by OpenVINO, the default on a CPU."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import openvino as ov

from stream.models.engines import cache
from stream.models.engines.cache import cache_folder
from stream.models.engines.engine import check_crops, check_precision
from stream.models.engines.openvino_model import convert
from stream.models.engines.openvino_runtime import cached_network, cpu_config, openvino_core, save_network
from stream.models.info import ModelInfo, read_model_info

CONVERTER_VERSION = 3
"""Must be raised when the network or its conversion changes, so that older cached models are ignored."""
_DESCRIPTIONS = {
    "fp32": "FP32 storage and arithmetic",
    "fp16": "FP16 storage, FP32 arithmetic",
    "bf16": "FP32 storage, BF16 arithmetic",
}

_log = logging.getLogger(__name__)


class OpenVinoEngine:
    """OpenVINO on the CPU.

    "fp32" (also "auto" here) stores and computes in FP32. "fp16" rounds the weights: the cached file is
    half as large, and the speed is the same. "bf16" computes in BF16 if the CPU has it natively.
    `tests/bench/bench_precision.py` measures the loss of quality. With gpen-lite-256, "bf16" took 0.56 of
    the CPU time of "fp32" and lost 0.003 dB.

    The network is compiled for one crop, and crops run one after another on all threads. Measured on two
    cores for four crops, gpen-lite-256 took 113 ms that way, 112 with two streams of one thread, 119 as a
    static batch and 135 as a dynamic batch. Single crops have the lowest latency, and no crop can affect
    another.
    """

    name = "openvino-cpu"

    def __init__(
        self,
        model_path: str | Path,
        *,
        threads: int | None = None,
        precision: str = "auto",
        fidelity: float = 1.0,
        info: ModelInfo | None = None,
    ) -> None:
        precision = "fp32" if precision == "auto" else precision
        check_precision("openvino", precision, offered_precisions())
        self.model = info or read_model_info(model_path)
        self.description = f"OpenVINO on the CPU, {_DESCRIPTIONS[precision]}"
        folder = network_folder(self.model, precision, fidelity)
        network = cached_network(folder) or _converted(model_path, self.model, folder, fidelity)
        config = cpu_config(threads, "bf16" if precision == "bf16" else "f32")
        self._request: ov.InferRequest | None = (
            openvino_core().compile_model(network, "CPU", config).create_infer_request()
        )

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


def offered_precisions() -> tuple[str, ...]:
    """The precisions at which this CPU computes natively. BF16 in software would only be slower.

    INT8 is not offered: it needs NNCF and faces for calibration, gains less than half as much as BF16, and
    loses ten times as much quality (`tests/bench/bench_precision.py --int8`).
    """
    native = "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ("fp32", "fp16", "bf16") if native else ("fp32", "fp16")


def network_folder(model: ModelInfo, precision: str = "fp32", fidelity: float = 1.0) -> Path:
    """The folder of a converted network in the cache. BF16 arithmetic uses that of FP32."""
    storage = "fp16" if precision == "fp16" else "fp32"
    key = cache.key_of(ov.get_version(), CONVERTER_VERSION, model.sha256, storage, fidelity)
    return cache_folder() / "openvino" / key


def _converted(model_path: str | Path, model: ModelInfo, folder: Path, fidelity: float) -> ov.Model:
    """Convert the network for one crop, and write it to the cache if possible.

    The written network is read again and used, so that rounded weights are rounded in the first run, too.
    """
    network = convert(Path(model_path), model, fidelity)
    save_network(network, folder, half=folder == network_folder(model, "fp16", fidelity))
    return cached_network(folder) or network
