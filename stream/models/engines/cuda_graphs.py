"""CUDA graphs: one captured graph for each batch size, replayed on static buffers.

Capturing removes the launch of some 200 small kernels for each batch. Not run by us: there was no
NVIDIA card at hand. What stands here is only the capture; cutting, padding and running out of
memory are in `torch_engine` and tested on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

WARM_UPS = 3
"""Runs on a side stream before a capture: libraries choose their kernels and allocate there."""


@dataclass(frozen=True, slots=True)
class _Graph:
    graph: torch.cuda.CUDAGraph
    given: Tensor
    """Static input on the device, f32[n, ...]."""
    result: Tensor
    """Static output on the device, f32[n, ...]."""
    staging_in: Tensor
    """Pinned memory on the host, so that copies run without a bounce buffer."""
    staging_out: Tensor


class GraphedNet:
    """Runs `net` for batches of exactly one of `sizes`, each item of `shape`."""

    def __init__(
        self, net: nn.Module, shape: tuple[int, ...], sizes: Sequence[int], device: torch.device
    ) -> None:
        self._device = device
        self._net = net
        """The graphs read its weights."""
        self._graphs: dict[int, _Graph] = {}
        largest: torch.cuda.CUDAGraph | None = None
        for size in sorted(sizes, reverse=True):  # the largest first: the others fit in its memory
            try:
                self._graphs[size] = _captured(net, (size, *shape), device, largest)
            except torch.OutOfMemoryError:
                continue  # `restore` halves the batch when it meets this size
            largest = largest or self._graphs[size].graph

    def __call__(self, batch: Tensor) -> Tensor:
        """`batch` is f32 on the CPU; the result is valid until the next call."""
        if len(batch) not in self._graphs:
            raise torch.OutOfMemoryError(f"no graph for {len(batch)} crops fitted in the memory")
        entry = self._graphs[len(batch)]
        with torch.cuda.device(self._device):
            entry.staging_in.copy_(batch)
            entry.given.copy_(entry.staging_in, non_blocking=True)
            entry.graph.replay()
            entry.staging_out.copy_(entry.result, non_blocking=True)
            torch.cuda.current_stream().synchronize()
        return entry.staging_out


@torch.inference_mode()
def _captured(
    net: nn.Module, shape: tuple[int, ...], device: torch.device, larger: torch.cuda.CUDAGraph | None
) -> _Graph:
    """The graph of one batch; it shares the memory of a `larger` one where there is one."""
    with torch.cuda.device(device):
        given = torch.zeros(shape, device=device)
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch leaves its types out
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                net(given)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=None if larger is None else larger.pool()):
            # Contiguous: a strided copy to the host would go through a temporary of its own.
            result = net(given).contiguous()
    staging_in = torch.zeros(shape, pin_memory=True)
    return _Graph(graph, given, result, staging_in, torch.empty(result.shape, pin_memory=True))
