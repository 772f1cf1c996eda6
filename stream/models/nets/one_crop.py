"""The generator for exactly one crop at a time, rewritten for inference on a CPU.

The mathematics is that of `GPEN.forward`. It is arranged for speed, as measured (`docs/performance.md`):

* Where a feature map is much larger than the weights, the style scales the weights instead of the map
  (StyleGAN2's own formulation). That saves a pass over the map before and after the convolution, and the
  bias and the activation become part of the convolution.
* The demodulation after an up-convolution is multiplied into the blur's kernel.
* From 64 px on, the two halves of a layer's output, its own and the encoder's map, are not concatenated.
  Each is convolved with its part of the weights, and the results are added.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stream.models.nets.gpen import GPEN, ModulatedConv, StyledConv, ToRGB
from stream.models.nets.layers import ACTIVATION_GAIN, ACTIVATION_SLOPE

APART_FROM_PX = 64
"""Side from which the halves stay apart. Smaller maps are copied faster than a second convolution starts."""
MAP_OVER_WEIGHTS = 4
"""The weights are scaled where input and output maps together hold this many times more values."""

Parts = tuple[Tensor, ...]
"""One map `[1, C, H, W]`, whole or divided into groups of channels."""


class OneCropGPEN(nn.Module):
    """A network for one crop that gives the same results as `net`, except for rounding.

    `net` is frozen: its weights must not change afterwards.
    """

    def __init__(self, net: GPEN) -> None:
        super().__init__()
        net.freeze()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """`[1, 3, in_size, in_size]` -> `[1, 3, size, size]`."""
        decoder = self.net.generator
        code, features = self.net.encode(x)
        latent = decoder.style(code)
        parts = _styled(decoder.conv1, (decoder.input.input,), latent, features[0], 4)
        rgb = _rgb(decoder.to_rgb1, parts, latent, None)
        for i, (up, plain, to_rgb) in enumerate(decoder.levels()):
            side = 8 << i
            parts = _styled(up, parts, latent, features[i + 1], side)
            parts = _styled(plain, parts, latent, features[i + 1], side)
            rgb = _rgb(to_rgb, parts, latent, rgb)
        return x + rgb if self.net.residual else rgb


def _styled(layer: StyledConv, parts: Parts, latent: Tensor, feature: Tensor | None, side: int) -> Parts:
    """The layer's own output and the encoder's map, activated. `side`: of the output, px."""
    conv = layer.conv
    own_bias, map_bias = layer.activate.scaled().chunk(2)
    inner, outer = conv.factors(latent)
    outer = outer * ACTIVATION_GAIN
    convolve = _upsampled if conv.upsample else _convolved
    own = convolve(conv, parts, inner, outer, own_bias, scale_weights=_map_is_larger(conv, side))
    if feature is None:
        feature = torch.randn_like(own)
    map_weight = (layer.noise.weight * ACTIVATION_GAIN).view(1, 1, 1, 1)
    weighted = torch.addcmul(_channels(map_bias), feature, map_weight)
    own, weighted = F.leaky_relu(own, ACTIVATION_SLOPE), F.leaky_relu(weighted, ACTIVATION_SLOPE)
    return (own, weighted) if side >= APART_FROM_PX else (torch.cat((own, weighted), 1),)


def _rgb(layer: ToRGB, parts: Parts, latent: Tensor, below: Tensor | None) -> Tensor:
    inner, outer = layer.conv.factors(latent)
    rgb = _convolved(layer.conv, parts, inner, outer, layer.bias.view(-1), scale_weights=False)
    return rgb if below is None else rgb + layer.upsample(below)


def _map_is_larger(conv: ModulatedConv, side: int) -> bool:
    _, out_channels, in_channels, _, _ = conv.weight.shape
    pixels = side * side
    values = out_channels * pixels + in_channels * (pixels // 4 if conv.upsample else pixels)
    return values >= MAP_OVER_WEIGHTS * conv.weight.numel()


def _convolved(
    conv: ModulatedConv, parts: Parts, inner: Tensor, outer: Tensor, bias: Tensor, *, scale_weights: bool
) -> Tensor:
    weight = conv.weight[0]
    if scale_weights:
        weight = weight * inner.view(1, -1, 1, 1) * outer.view(-1, 1, 1, 1)
    else:
        parts = _scaled(parts, inner)
    cut = torch.split(weight, [part.shape[1] for part in parts], 1)
    if scale_weights and len(parts) == 1:
        return F.conv2d(parts[0], weight, bias, padding=conv.padding)
    sums = [F.conv2d(part, w, padding=conv.padding) for part, w in zip(parts, cut, strict=True)]
    total = sums[0] if len(sums) == 1 else sums[0] + sums[1]
    if scale_weights:
        return total + _channels(bias)
    return torch.addcmul(_channels(bias), total, _channels(outer))


def _upsampled(
    conv: ModulatedConv, parts: Parts, inner: Tensor, outer: Tensor, bias: Tensor, *, scale_weights: bool
) -> Tensor:
    weight = conv.weight[0].transpose(0, 1)
    if scale_weights:
        weight = weight * inner.view(-1, 1, 1, 1)
    else:
        parts = _scaled(parts, inner)
    cut = torch.split(weight, [part.shape[1] for part in parts], 0)
    sums = [F.conv_transpose2d(part, w, stride=2) for part, w in zip(parts, cut, strict=True)]
    total = sums[0] if len(sums) == 1 else sums[0] + sums[1]
    channels = total.shape[1]
    kernel = conv.blur.kernel.expand(channels, 1, -1, -1) * outer.view(-1, 1, 1, 1)
    return F.conv2d(total, kernel, bias, padding=conv.blur.padding, groups=channels)


def _scaled(parts: Parts, factors: Tensor) -> Parts:
    cut = torch.split(_channels(factors), [part.shape[1] for part in parts], 1)
    return tuple(part * factor for part, factor in zip(parts, cut, strict=True))


def _channels(values: Tensor) -> Tensor:
    """`[C]` or `[1, C]` as `[1, C, 1, 1]`."""
    return values.view(1, -1, 1, 1)
