"""GPEN as its papers describe it, the baseline of the speed figures.

Each sample modulates and demodulates its own copy of the weights (StyleGAN2, section 2.2), which a
grouped convolution applies, with one group for each sample. Upsampling is a transposed convolution
followed by the FIR filter; doubling RGB inserts zeros first. The network runs eagerly, in the tensors' own
precision. It reads the same state dict and gives the same pictures as `stream.models.nets`. The caller
chooses `no_grad` or `inference_mode`.

For devices without its CUDA kernel, the published code filters each plane as a separate picture; that is
the default here. `depthwise` uses one depthwise convolution instead. torch runs it faster on a CPU, so it
is a stricter baseline.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def fir(x: Tensor, kernel: Tensor, before: int, after: int, *, depthwise: bool) -> Tensor:
    """Filter every plane of `[N, C, H, W]` after padding both axes with zeros."""
    n, c, h, w = x.shape
    kernel = kernel.flip(0, 1)
    if depthwise:
        if before != after:
            x, before = F.pad(x, (before, after, before, after)), 0
        return F.conv2d(x, kernel.expand(c, 1, -1, -1), padding=before, groups=c)
    planes = F.pad(x.reshape(n * c, 1, h, w), (before, after, before, after))
    planes = F.conv2d(planes, kernel[None, None])
    return planes.view(n, c, *planes.shape[2:])


def with_zeros(x: Tensor) -> Tensor:
    """Insert zeros between the pixels: `[N, C, H, W]` to `[N, C, 2H, 2W]`."""
    n, c, h, w = x.shape
    doubled = x.new_zeros(n, c, h, 2, w, 2)
    doubled[:, :, :, 0, :, 0] = x
    return doubled.view(n, c, 2 * h, 2 * w)


def biased_lrelu(x: Tensor, bias: Tensor) -> Tensor:
    """Leaky ReLU of `x` plus a bias for each channel, times the square root of 2."""
    bias = bias.view(1, -1, *([1] * (x.ndim - 2)))
    return F.leaky_relu(x + bias, 0.2) * math.sqrt(2)


class PublishedGPEN:
    """The network of a generator's state dict; pictures are square."""

    def __init__(
        self, tensors: dict[str, Tensor], *, residual: bool = False, depthwise: bool = False
    ) -> None:
        self.t = tensors
        self.residual = residual
        self.depthwise = depthwise
        self.encoder_levels = sum(name.endswith("weight") for name in self._under("ecd"))
        self.n_mlp = sum(name.endswith("weight") for name in self._under("generator.style."))
        self.levels = sum(name.endswith("conv.weight") for name in self._under("generator.to_rgbs"))

    def __call__(self, x: Tensor) -> Tensor:
        """Restore `[N, 3, in_size, in_size]` in -1..1; the result is `[N, 3, size, size]`."""
        h = x
        features: list[Tensor | None] = []
        for i in range(self.encoder_levels):
            h = self._encode(h, f"ecd{i}.0")
            features.insert(0, h)
        features += [None] * (self.levels + 1 - self.encoder_levels)
        latent = self._linear(h.reshape(len(h), -1), "final_linear.0")
        latent = latent * torch.rsqrt(latent.square().mean(1, keepdim=True) + 1e-8)
        for i in range(1, self.n_mlp + 1):
            latent = self._linear(latent, f"generator.style.{i}", rate=0.01)
        h = self.t["generator.input.input"].repeat(len(x), 1, 1, 1)
        h = self._styled(h, latent, features[0], "generator.conv1")
        rgb = self._rgb(h, latent, None, "generator.to_rgb1")
        for i in range(self.levels):
            first, second = f"generator.convs.{2 * i}", f"generator.convs.{2 * i + 1}"
            h = self._styled(h, latent, features[i + 1], first, upsample=True)
            h = self._styled(h, latent, features[i + 1], second)
            rgb = self._rgb(h, latent, rgb, f"generator.to_rgbs.{i}")
        return x + rgb if self.residual else rgb

    def _under(self, prefix: str) -> list[str]:
        return [name for name in self.t if name.startswith(prefix)]

    def _encode(self, x: Tensor, name: str) -> Tensor:
        kernel = self.t.get(f"{name}.0.kernel")
        conv, bias, stride = ("0", "1", 1) if kernel is None else ("1", "2", 2)
        if kernel is not None:
            x = fir(x, kernel, 2, 2, depthwise=self.depthwise)
        weight = self.t[f"{name}.{conv}.weight"]
        x = F.conv2d(x, weight / math.sqrt(weight[0].numel()), stride=stride)
        return biased_lrelu(x, self.t[f"{name}.{bias}.bias"])

    def _linear(self, x: Tensor, name: str, rate: float = 1.0, activated: bool = True) -> Tensor:
        weight, bias = self.t[f"{name}.weight"], self.t[f"{name}.bias"] * rate
        x = F.linear(x, weight * (rate / math.sqrt(weight.shape[1])))
        return biased_lrelu(x, bias) if activated else x + bias

    def _modulated(
        self, x: Tensor, latent: Tensor, name: str, *, demodulate: bool, upsample: bool = False
    ) -> Tensor:
        n, c, h, w = x.shape
        style = self._linear(latent, f"{name}.modulation", activated=False)
        weight = self.t[f"{name}.weight"]
        _, out, _, k, _ = weight.shape
        weight = weight / math.sqrt(c * k * k) * style.view(n, 1, c, 1, 1)
        if demodulate:
            norm = torch.rsqrt(weight.square().sum((2, 3, 4)) + 1e-8)
            weight = weight * norm.view(n, out, 1, 1, 1)
        x = x.reshape(1, n * c, h, w)
        if not upsample:
            y = F.conv2d(x, weight.view(n * out, c, k, k), padding=k // 2, groups=n)
            return y.view(n, out, h, w)
        weight = weight.transpose(1, 2).reshape(n * c, out, k, k)
        y = F.conv_transpose2d(x, weight, stride=2, groups=n)
        kernel = self.t[f"{name}.blur.kernel"]
        return fir(y.view(n, out, *y.shape[2:]), kernel, 1, 1, depthwise=self.depthwise)

    def _styled(
        self, x: Tensor, latent: Tensor, feature: Tensor | None, name: str, upsample: bool = False
    ) -> Tensor:
        x = self._modulated(x, latent, f"{name}.conv", demodulate=True, upsample=upsample)
        feature = torch.randn_like(x) if feature is None else feature
        x = torch.cat((x, self.t[f"{name}.noise.weight"] * feature), 1)
        return biased_lrelu(x, self.t[f"{name}.activate.bias"])

    def _rgb(self, x: Tensor, latent: Tensor, below: Tensor | None, name: str) -> Tensor:
        rgb = self._modulated(x, latent, f"{name}.conv", demodulate=False) + self.t[f"{name}.bias"]
        if below is None:
            return rgb
        kernel = self.t[f"{name}.upsample.kernel"]
        return rgb + fir(with_zeros(below), kernel, 2, 1, depthwise=self.depthwise)
