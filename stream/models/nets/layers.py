"""Layers that the generator and the discriminator share.

They keep the official tensor names, so that published checkpoints load strictly. Equalised learning rate
(Karras et al., 2018) means that weights are stored at unit variance and scaled by ``1 / sqrt(fan_in)`` at
run time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATION_SLOPE = 0.2
ACTIVATION_GAIN = math.sqrt(2.0)
"""Keeps the variance of a leaky ReLU's output near that of its input."""


def channels_at(resolution: int, channel_multiplier: float, narrow: float) -> int:
    """Feature channels of GPEN at a square resolution in px (a power of two from 4 to 2048)."""
    if resolution <= 32:
        return int(512 * narrow)
    return int(16384 // resolution * channel_multiplier * narrow)


def binomial_kernel(gain: float = 1.0) -> Tensor:
    """The [1, 3, 3, 1] low-pass kernel, f32[4, 4], whose sum is `gain`."""
    row = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = torch.outer(row, row)
    return kernel * (gain / kernel.sum())


class Blur(nn.Module):
    """Depthwise [1, 3, 3, 1] low-pass with zero padding on all four sides."""

    kernel: Tensor

    def __init__(self, padding: int, gain: float = 1.0) -> None:
        super().__init__()
        self.padding = padding
        self.register_buffer("kernel", binomial_kernel(gain))

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` -> `[N, C, H + 2 * padding - 3, W + 2 * padding - 3]`."""
        channels = x.shape[1]
        # The kernel is symmetric, so correlation and convolution are the same here.
        weight = self.kernel.expand(channels, 1, -1, -1)
        return F.conv2d(x, weight, padding=self.padding, groups=channels)


class EqualConv(nn.Module):
    """Convolution without bias at equalised learning rate; weight `[out, in, k, k]`."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__()
        self.stride = stride
        self.padding = padding
        self.scale = 1.0 / math.sqrt(in_channels * kernel * kernel)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))

    def forward(self, x: Tensor, bias: Tensor | None = None, gain: float = 1.0) -> Tensor:
        """The convolution of `[N, in, H, W]`, times `gain`, plus `bias` `[out]`."""
        weight = self.weight * (self.scale * gain)
        return F.conv2d(x, weight, bias, stride=self.stride, padding=self.padding)


class EqualLinear(nn.Module):
    """Linear layer at equalised learning rate.

    rate: a further factor of the layer's learning rate (0.01 in the mapping network).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        rate: float = 1.0,
        bias_init: float = 0.0,
        activated: bool = False,
    ) -> None:
        super().__init__()
        self.rate = rate
        self.activated = activated
        self.scale = rate / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / rate)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init))

    def forward(self, x: Tensor) -> Tensor:
        """`[N, in]` -> `[N, out]`."""
        gain = ACTIVATION_GAIN if self.activated else 1.0
        y = F.linear(x, self.weight * (self.scale * gain), self.bias * (self.rate * gain))
        return F.leaky_relu(y, ACTIVATION_SLOPE) if self.activated else y


class ActivationBias(nn.Module):
    """The bias `[C]` that is added before an activation.

    A leaky ReLU is positively homogeneous, so the gain can be applied to its summands, which are multiplied
    anyway, instead of its output. That saves one pass over the activations.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def scaled(self) -> Tensor:
        """The bias times the activation's gain."""
        return self.bias * ACTIVATION_GAIN


class ConvLayer(nn.Sequential):
    """Convolution, with blur and stride two if `downsample`, and with an activation if `activated`.

    The order of the members determines the tensor names (``0.kernel``, ``1.weight``, ``2.bias``).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        downsample: bool = False,
        activated: bool = True,
    ) -> None:
        blur: list[nn.Module] = []
        stride, padding = 1, kernel // 2
        if downsample:
            # The blur pads for the convolution, too, so that the result is H / 2 high.
            blur, stride, padding = [Blur(padding=(kernel + 1) // 2)], 2, 0
        conv = EqualConv(in_channels, out_channels, kernel, stride=stride, padding=padding)
        bias = [ActivationBias(out_channels)] if activated else []
        super().__init__(*blur, conv, *bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, in, H, W]` -> `[N, out, H, W]`, or `[N, out, H/2, W/2]` with `downsample`."""
        if isinstance(self[0], Blur):
            x = self[0](x)
        y: Tensor
        if not isinstance(self[-1], ActivationBias):
            y = self[-1](x)
            return y
        y = self[-2](x, self[-1].scaled(), ACTIVATION_GAIN)
        return F.leaky_relu(y, ACTIVATION_SLOPE)
