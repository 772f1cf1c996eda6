"""A generator between crops as the pipeline holds them: NHWC, RGB in 0..1."""

from __future__ import annotations

from torch import Tensor, nn

from stream.nets import GPEN


class CropNet(nn.Module):
    """`[N, in_size, in_size, 3]` in 0..1 to `[N, size, size, 3]` in 0..1, not clipped.

    Range and layout change inside, once, so that Python touches no pixel. A contiguous NHWC batch
    seen as NCHW is channels-last already.
    """

    def __init__(self, net: GPEN, input_range: tuple[float, float]) -> None:
        super().__init__()
        self.net = net
        self.low, self.high = input_range

    def forward(self, crops: Tensor) -> Tensor:
        x = crops.permute(0, 3, 1, 2) * (self.high - self.low) + self.low
        return (self.net(x) * 0.5 + 0.5).permute(0, 2, 3, 1)
