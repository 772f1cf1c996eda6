"""StyleGAN2's residual discriminator (Karras et al., 2020), at GPEN's channel counts."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from stream.models.nets.layers import ConvLayer, EqualLinear, channels_at

STDDEV_GROUP = 4
"""Pictures whose standard deviation is computed together. A larger batch must be a multiple of it."""


class ResidualBlock(nn.Module):
    """Two convolutions, and a linear skip connection; both halve the resolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = ConvLayer(in_channels, in_channels, 3)
        self.conv2 = ConvLayer(in_channels, out_channels, 3, downsample=True)
        self.skip = ConvLayer(in_channels, out_channels, 1, downsample=True, activated=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, in, H, W]` -> `[N, out, H/2, W/2]`."""
        y: Tensor = (self.conv2(self.conv1(x)) + self.skip(x)) * math.sqrt(0.5)
        return y


def append_batch_stddev(x: Tensor) -> Tensor:
    """Append one channel: the mean standard deviation over groups of pictures (Karras et al., 2018)."""
    n, c, h, w = x.shape
    group = min(n, STDDEV_GROUP)
    grouped = x.view(group, n // group, c, h, w)
    spread = torch.sqrt(grouped.var(0, unbiased=False) + 1e-8).mean((1, 2, 3))
    plane = spread.repeat(group).view(n, 1, 1, 1).expand(n, 1, h, w)
    return torch.cat((x, plane), dim=1)


class Discriminator(nn.Module):
    """Realness logits `[N, 1]` of RGB pictures `[N, 3, size, size]` in -1..1."""

    def __init__(self, size: int, *, channel_multiplier: float = 2, narrow: float = 1.0) -> None:
        super().__init__()
        width = channels_at(size, channel_multiplier, narrow)
        members: list[nn.Module] = [ConvLayer(3, width, 1)]
        for level in range(int(math.log2(size)) - 1, 1, -1):
            out = channels_at(2**level, channel_multiplier, narrow)
            members.append(ResidualBlock(width, out))
            width = out
        self.convs = nn.Sequential(*members)
        self.final_conv = ConvLayer(width + 1, width, 3)
        self.final_linear = nn.Sequential(
            EqualLinear(width * 16, width, activated=True), EqualLinear(width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The logits of a batch."""
        h = self.final_conv(append_batch_stddev(self.convs(x)))
        logits: Tensor = self.final_linear(h.flatten(1))
        return logits
