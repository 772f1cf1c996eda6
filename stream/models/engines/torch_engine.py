"""Restoration by torch: eager on a CPU, by torch.compile, or by CUDA graphs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stream.errors import ConfigError
from stream.models.engines.crop_net import CropNet
from stream.models.engines.engine import batches, check_crops, check_precision, graph_sizes
from stream.models.nets import load_generator

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

_log = logging.getLogger(__name__)

BatchFunction = Callable[[Tensor], Tensor]
"""`f32[n, in, in, 3]` -> `f32[n, size, size, 3]`, both on the CPU, for a batch size n that was prepared."""


class TorchEngine:
    """torch in channels-last layout: eager on a CPU, one captured graph for each batch size on CUDA.

    The precision "auto" is FP16 in storage and arithmetic on CUDA, and FP32 on a CPU. Results are FP32.
    compiled: run the network as one graph by torch.compile instead, on either device. threads: the size of
    torch's thread pool, which belongs to the whole process; None leaves it as it is.
    """

    def __init__(
        self,
        model_path: str | Path,
        *,
        device: str = "cpu",
        batch_size: int = 4,
        threads: int | None = None,
        precision: str = "auto",
        fidelity: float = 1.0,
        compiled: bool = False,
    ) -> None:
        self._device = usable_device(device)
        on_cuda = self._device.type == "cuda"
        if precision == "auto":
            precision = "fp16" if on_cuda else "fp32"
        kind = "torch-compile" if compiled else "torch"
        check_precision(kind, precision, tuple(DTYPES))
        if threads is not None:
            torch.set_num_threads(threads)
        generator, self.model = load_generator(model_path)
        generator.scale_features(fidelity)
        net = CropNet(generator, self.model.input_range).requires_grad_(False).eval()
        net = _channels_last(net.to(self._device, DTYPES[precision]))
        generator.freeze()
        self._sizes = tuple(range(1, batch_size + 1))
        if compiled or on_cuda:  # a graph has one size; a CPU gains too little from several
            self._sizes = graph_sizes(batch_size) if on_cuda else (1,)
        self._run: BatchFunction | None = self._prepared(net, compiled)
        """None once the engine is closed."""
        self.name = f"{kind}-{self._device.type}"
        method = "one compiled graph" if compiled else "CUDA graphs" if on_cuda else "eager"
        self.description = f"torch on {self._device}, {method}, {precision.upper()} storage and arithmetic"

    def _prepared(self, net: CropNet, compiled: bool) -> BatchFunction:
        """The function that runs one batch, compiled or captured."""
        if compiled:
            from stream.models.engines.torch_compile import compiled_net

            if self._device.type == "cuda":
                torch.set_float32_matmul_precision("high")
            return self._warmed(compiled_net(net))
        if self._device.type == "cpu":
            return net
        from stream.models.engines.cuda_graphs import GraphedNet

        side = self.model.in_size
        return GraphedNet(net, (side, side, 3), self._sizes, self._device)

    def _warmed(self, net: BatchFunction) -> BatchFunction:
        """Run every batch size once, so that torch compiles now."""

        def run(batch: Tensor) -> Tensor:
            return net(batch.to(self._device)).cpu()

        side = self.model.in_size
        with torch.inference_mode():
            for size in self._sizes:
                run(torch.zeros(size, side, side, 3))
        return run

    @torch.inference_mode()
    def restore(self, crops: np.ndarray) -> np.ndarray:
        """See `Engine.restore`. Up to `batch_size` crops run at once."""
        if self._run is None:
            raise RuntimeError("the engine is closed")
        check_crops(crops, self.model)
        side = self.model.size
        restored = np.empty((len(crops), side, side, 3), np.float32)
        batch = torch.from_numpy(np.require(crops, requirements="W"))  # torch wants it writable
        self._sizes = run_in_batches(self._run, batch, torch.from_numpy(restored), self._sizes)
        return restored

    def close(self) -> None:
        """See `Engine.close`. Cached GPU memory is released."""
        self._run = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def run_in_batches(
    run: BatchFunction, crops: Tensor, restored: Tensor, sizes: Sequence[int]
) -> tuple[int, ...]:
    """Fill `restored` in batches of the ascending `sizes`, and return the sizes that fit the memory.

    When the device runs out of memory, the batch size is halved for good and the batch is run again. The
    result is NaN for a crop that does not fit alone.
    """
    sizes = tuple(sizes)
    for part, size in batches(len(crops), sizes):
        batch = crops[part]
        try:
            if len(batch) < size:  # padded by repeated crops, not zeros: they behave like a face
                batch = torch.cat((batch, batch[:1].expand(size - len(batch), -1, -1, -1)))
            restored[part] = run(batch)[: part.stop - part.start]
        except torch.OutOfMemoryError:
            smaller = tuple(s for s in sizes if s <= size // 2)
            torch.cuda.empty_cache()
            if not smaller:
                _log.warning("out of memory for one crop: it is left as it is")
                restored[part] = torch.nan
                continue
            _log.warning("out of memory for %d crops at once: going on with %d", size, smaller[-1])
            rest = slice(part.start, None)
            return run_in_batches(run, crops[rest], restored[rest], smaller)
    return sizes


def usable_device(name: str) -> torch.device:
    """The device called `name`. Raises ConfigError unless it is a CPU or an existing CUDA device."""
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
    """Change the convolutions' weights to channels-last, also modulated ones ([1, O, I, k, k])."""
    for parameter in net.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        elif parameter.ndim == 5:
            weight = parameter.data[0].contiguous(memory_format=torch.channels_last)
            parameter.data = weight[None]
    return net
