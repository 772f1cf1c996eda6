"""Restoration by torch: FP32 on a CPU, FP16 on CUDA."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from stream.engines.base import check_crops
from stream.engines.crop_net import CropNet
from stream.errors import ConfigError
from stream.nets import load_generator


class TorchEngine:
    """Eager torch, channels-last. On CUDA weights and arithmetic are FP16, results FP32.

    `threads` sets torch's pool, which belongs to the whole process; None leaves it alone.
    """

    def __init__(
        self,
        model_path: str | Path,
        *,
        device: str = "cpu",
        batch_size: int = 4,
        threads: int | None = None,
    ) -> None:
        self._device = _usable_device(device)
        self._batch_size = batch_size
        if threads is not None:
            torch.set_num_threads(threads)
        half = self._device.type == "cuda"
        self._dtype = torch.float16 if half else torch.float32
        net, self.model = load_generator(model_path)
        net = CropNet(net, self.model.input_range).requires_grad_(False).eval()
        net = _channels_last(net.to(self._device, self._dtype))
        net.net.freeze()
        self._net: CropNet | None = net
        self.name = f"torch-{self._device.type}"
        precision = "FP16 storage and arithmetic" if half else "FP32 storage and arithmetic"
        self.description = f"torch on {self._device}, {precision}"

    @torch.inference_mode()
    def restore(self, crops: np.ndarray) -> np.ndarray:
        """See `Engine.restore`; runs up to `batch_size` crops at once."""
        if self._net is None:
            raise RuntimeError("the engine is closed")
        check_crops(crops, self.model)
        side = self.model.size
        restored = np.empty((len(crops), side, side, 3), np.float32)
        for start in range(0, len(crops), self._batch_size):
            stop = start + self._batch_size
            given = np.require(crops[start:stop], requirements="W")  # torch wants it writable
            batch = torch.from_numpy(given).to(self._device, self._dtype)
            torch.from_numpy(restored[start:stop]).copy_(self._net(batch))
        return restored

    def close(self) -> None:
        """See `Engine.close`; hands cached GPU memory back."""
        self._net = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _usable_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {name!r} is not known to the torch engine; use cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {name!r} is not there for torch; use device cpu")
    return device


def _channels_last(net: CropNet) -> CropNet:
    """Lay the convolutions' weights out as channels-last, modulated ones ([1, O, I, k, k]) too."""
    for parameter in net.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        elif parameter.ndim == 5:
            weight = parameter.data[0].contiguous(memory_format=torch.channels_last)
            parameter.data = weight[None]
    return net
