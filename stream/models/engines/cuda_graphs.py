"""CUDA graphs: one captured graph for each batch size, replayed on static buffers.

A graph saves the launches of about 200 small kernels for each batch. This module has not been run on a
card yet. It only captures: `torch_engine` divides and pads batches and handles full memory, and the tests
cover that on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

WARM_UPS = 3
"""Runs on a side stream before a capture, in which libraries choose kernels and allocate memory."""


@dataclass(frozen=True, slots=True)
class _Graph:
    graph: torch.cuda.CUDAGraph
    input: Tensor
    """Static input on the device, f32[n, ...]."""
    output: Tensor
    """Static output on the device, f32[n, ...]."""
    staging_in: Tensor
    """Pinned memory on the host, so that copies need no intermediate buffer."""
    staging_out: Tensor


class GraphedNet:
    """Runs `net` on batches whose size is one of `sizes` and whose items have the given shape."""

    def __init__(
        self, net: nn.Module, shape: tuple[int, ...], sizes: Sequence[int], device: torch.device
    ) -> None:
        self._device = device
        self._net = net
        """Kept because the graphs read its weights."""
        self._graphs: dict[int, _Graph] = {}
        largest: torch.cuda.CUDAGraph | None = None
        for size in sorted(sizes, reverse=True):  # the largest first: the others share its memory
            try:
                self._graphs[size] = _captured(net, (size, *shape), device, largest)
            except torch.OutOfMemoryError:
                continue  # the engine halves a batch of this size
            largest = largest or self._graphs[size].graph

    def __call__(self, batch: Tensor) -> Tensor:
        """`batch` is f32 on the CPU, and so is the result, which is valid until the next call."""
        if len(batch) not in self._graphs:
            raise torch.OutOfMemoryError(f"no graph for {len(batch)} crops fitted in the memory")
        graph = self._graphs[len(batch)]
        with torch.cuda.device(self._device):
            graph.staging_in.copy_(batch)
            graph.input.copy_(graph.staging_in, non_blocking=True)
            graph.graph.replay()
            graph.staging_out.copy_(graph.output, non_blocking=True)
            torch.cuda.current_stream().synchronize()
        return graph.staging_out


@torch.inference_mode()
def _captured(
    net: nn.Module, shape: tuple[int, ...], device: torch.device, larger: torch.cuda.CUDAGraph | None
) -> _Graph:
    """Capture the graph for one batch size. It shares the memory of the `larger` one, if there is one."""
    with torch.cuda.device(device):
        static_input = torch.zeros(shape, device=device)
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch leaves its types out
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                net(static_input)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=None if larger is None else larger.pool()):
            # Contiguous: a strided copy to the host would go through a temporary of its own.
            output = net(static_input).contiguous()
    staging_in = torch.zeros(shape, pin_memory=True)
    return _Graph(graph, static_input, output, staging_in, torch.empty(output.shape, pin_memory=True))
