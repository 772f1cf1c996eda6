"""A generator with the pipeline's crops as input and output: NHWC, RGB in 0..1."""

from __future__ import annotations

from torch import Tensor, nn


class CropNet(nn.Module):
    """`f32[N, in_size, in_size, 3]` in 0..1 -> `f32[N, size, size, 3]`, nominally 0..1 but not clipped.

    The module converts range, layout and type, so that they are part of a compiled graph. The inner
    network computes in the type of its weights. A contiguous NHWC batch is NCHW in channels-last layout.
    """

    def __init__(self, net: nn.Module, input_range: tuple[float, float]) -> None:
        super().__init__()
        self.net = net
        self.low, self.high = input_range

    def forward(self, crops: Tensor) -> Tensor:
        """Restore a batch of crops."""
        x = crops.permute(0, 3, 1, 2) * (self.high - self.low) + self.low
        y: Tensor = self.net(x.to(next(self.net.parameters()).dtype))
        return (y.float() * 0.5 + 0.5).permute(0, 2, 3, 1)
