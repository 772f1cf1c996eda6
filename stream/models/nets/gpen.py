"""GPEN's generator (Yang et al., CVPR 2021): an encoder that controls a StyleGAN2 decoder.

The encoder computes one feature map for each scale and, from the smallest map, a latent code. The decoder is
StyleGAN2 (Karras et al., 2020), with the feature maps concatenated to its activations in place of noise.

Modulation is applied to the activations: the style scales the input channels, and the demodulation factor
scales the output channels. This is the same as scaling the weights, but the weights stay the same for the
whole batch, so that every inference library runs a plain convolution.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stream.models.nets.layers import (
    ACTIVATION_GAIN,
    ACTIVATION_SLOPE,
    ActivationBias,
    Blur,
    ConvLayer,
    EqualLinear,
    binomial_kernel,
    channels_at,
)

DEMODULATION_EPSILON = 1e-8
MAPPING_RATE = 0.01
SMALLEST_STYLE = 1e-12
"""Least magnitude by which a style is divided, so that a style of zeros causes no division by zero."""


class PixelNorm(nn.Module):
    """Scales each latent to unit root mean square; the squares are computed in FP32."""

    def forward(self, x: Tensor) -> Tensor:
        """`[N, D]` -> `[N, D]`."""
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(1, keepdim=True) + 1e-8)).to(x.dtype)


def split_style(style: Tensor) -> tuple[Tensor, Tensor]:
    """Divide a style `[N, C]` by its largest magnitude: the quotient f32[N, C], the magnitude f32[N, 1]."""
    wide = style.float()
    peak = wide.abs().amax(1, keepdim=True).clamp_min(SMALLEST_STYLE)
    return wide / peak, peak


class ModulatedConv(nn.Module):
    """Convolution whose input channels are scaled by a style; `[N, in, H, W]` -> `[N, out, H', W']`.

    With `demodulate` each output channel is divided by the norm of its modulated weights (StyleGAN2,
    section 2.2). The style is first divided by its largest magnitude, which cancels in the demodulation
    if the epsilon is divided by its square. So no intermediate value becomes much larger than the result,
    and FP16 does not overflow.
    """

    power: Tensor | None
    """The result of `weight_power`, once the weights are frozen."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        style_dim: int,
        *,
        demodulate: bool = True,
        upsample: bool = False,
    ) -> None:
        super().__init__()
        self.demodulate = demodulate
        self.upsample = upsample
        self.padding = kernel // 2
        self.scale = 1.0 / math.sqrt(in_channels * kernel * kernel)
        self.weight = nn.Parameter(torch.randn(1, out_channels, in_channels, kernel, kernel))
        self.modulation = EqualLinear(style_dim, in_channels, bias_init=1.0)
        self.register_buffer("power", None, persistent=False)
        if upsample:
            self.blur = Blur(padding=1, gain=4.0)

    def weight_power(self) -> Tensor:
        """Sum of the squared scaled weights over each kernel, f32[out, in]."""
        return self.weight[0].float().square().sum((2, 3)) * (self.scale * self.scale)

    def factors(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Factors of the input channels, f32[N, in], and of the output channels, f32[N, out] or f32[N, 1]."""
        direction, peak = split_style(self.modulation(latent))
        if self.demodulate:
            power = self.weight_power() if self.power is None else self.power
            norm = F.linear(direction.square(), power) + DEMODULATION_EPSILON / peak.square()
            gain = torch.rsqrt(norm)
        else:
            gain = peak
        return direction * self.scale, gain

    def forward(self, x: Tensor, latent: Tensor, bias: Tensor, scale: float = 1.0) -> Tensor:
        """The modulated convolution, times `scale`, plus `bias` `[1, out, 1, 1]`."""
        weight = self.weight[0]
        inner, gain = self.factors(latent)
        x = x * inner.to(x.dtype)[:, :, None, None]
        if self.upsample:
            x = self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        else:
            x = F.conv2d(x, weight, padding=self.padding)
        return torch.addcmul(bias, x, (gain * scale).to(x.dtype)[:, :, None, None])


class FeatureWeight(nn.Module):
    """The learned weight `[1]` of a layer's feature map."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, concatenated with a feature map and activated."""

    def __init__(
        self, in_channels: int, out_channels: int, style_dim: int, *, upsample: bool = False
    ) -> None:
        super().__init__()
        self.conv = ModulatedConv(in_channels, out_channels, 3, style_dim, upsample=upsample)
        self.noise = FeatureWeight()
        self.activate = ActivationBias(2 * out_channels)

    def forward(self, x: Tensor, latent: Tensor, feature: Tensor | None) -> Tensor:
        """`[N, in, H, W]` and the map `[N, out, H', W']` -> `[N, 2 * out, H', W']`.

        Without a map (SR levels above the input's size) Gaussian noise is used.
        """
        own_bias, feature_bias = self.activate.scaled().view(1, -1, 1, 1).chunk(2, dim=1)
        own = self.conv(x, latent, own_bias, ACTIVATION_GAIN)
        if feature is None:
            feature = torch.randn_like(own)
        weight = self.noise.weight * ACTIVATION_GAIN
        weighted = torch.addcmul(feature_bias, feature, weight.view(1, 1, 1, 1))
        return F.leaky_relu(torch.cat((own, weighted), dim=1), ACTIVATION_SLOPE)


class UpsampleRGB(nn.Module):
    """Upsampling by two with the [1, 3, 3, 1] kernel and zeros beyond the border."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", binomial_kernel(4.0))

    def forward(self, x: Tensor) -> Tensor:
        """`[N, 3, H, W]` -> `[N, 3, 2H, 2W]`."""
        channels = x.shape[1]
        weight = self.kernel.expand(channels, 1, -1, -1)
        return F.conv_transpose2d(x, weight, stride=2, padding=1, groups=channels)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to RGB, added to the upsampled RGB of the level below."""

    def __init__(self, in_channels: int, style_dim: int, *, upsample: bool = True) -> None:
        super().__init__()
        self.conv = ModulatedConv(in_channels, 3, 1, style_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        if upsample:
            self.upsample = UpsampleRGB()

    def forward(self, x: Tensor, latent: Tensor, below: Tensor | None = None) -> Tensor:
        """`[N, in, H, W]` and the RGB below `[N, 3, H/2, W/2]` -> `[N, 3, H, W]`."""
        rgb: Tensor = self.conv(x, latent, self.bias)
        return rgb if below is None else rgb + self.upsample(below)


class ConstantInput(nn.Module):
    """The learned 4x4 map with which the decoder begins."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels, 4, 4))

    def forward(self, latent: Tensor) -> Tensor:
        """The map, `[N, C, 4, 4]`, for a batch of N latents."""
        return self.input.expand(latent.shape[0], -1, -1, -1)


class Decoder(nn.Module):
    """StyleGAN2's mapping and synthesis with concatenated feature maps; tensors ``generator.*``."""

    def __init__(
        self, size: int, style_dim: int, n_mlp: int, channel_multiplier: float, narrow: float
    ) -> None:
        super().__init__()
        mapping = [EqualLinear(style_dim, style_dim, rate=MAPPING_RATE, activated=True) for _ in range(n_mlp)]
        self.style = nn.Sequential(PixelNorm(), *mapping)
        width = channels_at(4, channel_multiplier, narrow)
        self.input = ConstantInput(width)
        self.conv1 = StyledConv(width, width, style_dim)
        self.to_rgb1 = ToRGB(2 * width, style_dim, upsample=False)
        self.convs = nn.ModuleList()
        self.to_rgbs = nn.ModuleList()
        for level in range(3, int(math.log2(size)) + 1):
            out = channels_at(2**level, channel_multiplier, narrow)
            self.convs.append(StyledConv(2 * width, out, style_dim, upsample=True))
            self.convs.append(StyledConv(2 * out, out, style_dim))
            self.to_rgbs.append(ToRGB(2 * out, style_dim))
            width = out

    def levels(self) -> Iterator[tuple[StyledConv, StyledConv, ToRGB]]:
        """The two convolutions of each scale from 8 px on, and the layer that makes RGB from them."""
        for up, plain, to_rgb in zip(self.convs[::2], self.convs[1::2], self.to_rgbs, strict=True):
            # A ModuleList does not know what it holds.
            assert isinstance(up, StyledConv) and isinstance(plain, StyledConv) and isinstance(to_rgb, ToRGB)
            yield up, plain, to_rgb

    def forward(self, code: Tensor, features: list[Tensor | None]) -> list[Tensor]:
        """The RGB at every scale, 4 px first. `features[i]` is the map for 4 * 2**i px."""
        latent = self.style(code)
        x = self.conv1(self.input(latent), latent, features[0])
        rgbs = [self.to_rgb1(x, latent)]
        for i, to_rgb in enumerate(self.to_rgbs):
            x = self.convs[2 * i](x, latent, features[i + 1])
            x = self.convs[2 * i + 1](x, latent, features[i + 1])
            rgbs.append(to_rgb(x, latent, rgbs[-1]))
        return rgbs


class GPEN(nn.Module):
    """GPEN, and with `in_size` below `size` its SR variant.

    Input `[N, 3, in_size, in_size]`, output `[N, 3, size, size]`, RGB in -1..1; the output is not clipped.
    residual: the output is input + network, which the published checkpoints do not use. Sizes are powers of
    two.
    """

    def __init__(
        self,
        size: int,
        *,
        channel_multiplier: float = 2,
        narrow: float = 1.0,
        style_dim: int = 512,
        n_mlp: int = 8,
        residual: bool = False,
        in_size: int | None = None,
    ) -> None:
        super().__init__()
        in_size = size if in_size is None else in_size
        for side in (size, in_size):
            if side < 8 or side & (side - 1):
                raise ValueError(f"GPEN's sizes are powers of two from 8 px, got {side}")
        if in_size > size or (residual and in_size != size):
            raise ValueError(
                f"got {in_size=}, {size=}, {residual=}: the input may not be larger, "
                "and a residual needs equal sizes"
            )
        self.size = size
        self.in_size = in_size
        self.residual = residual
        width = channels_at(in_size, channel_multiplier, narrow)
        self.encoder_levels = int(math.log2(in_size)) - 1
        self.ecd0 = nn.Sequential(ConvLayer(3, width, 1))
        for i in range(1, self.encoder_levels):
            out = channels_at(in_size >> i, channel_multiplier, narrow)
            self.add_module(f"ecd{i}", nn.Sequential(ConvLayer(width, out, 3, downsample=True)))
            width = out
        self.final_linear = nn.Sequential(EqualLinear(width * 16, style_dim, activated=True))
        self.generator = Decoder(size, style_dim, n_mlp, channel_multiplier, narrow)

    def freeze(self) -> None:
        """Compute once what depends on the weights only. They must not change afterwards.

        This saves about 15 % of an eager forward's time on a CPU. Call it after the last change of type
        and device. Training and conversion do not need it.
        """
        with torch.no_grad():
            for layer in self.modules():
                if isinstance(layer, ModulatedConv) and layer.demodulate:
                    layer.power = layer.weight_power()

    @torch.no_grad()
    def scale_features(self, fidelity: float) -> None:
        """Scale the feature maps by which the decoder sees the input; `fidelity` in 0..1.

        Published GPEN has no such control: at 1 the network is unchanged, bit for bit. At 0 the decoder
        knows the input by the latent only, and the details are those of its prior. Every map has one
        learned weight, which is scaled here once, so that the network is as fast as before. Levels of the
        SR variant that use noise keep it.
        """
        decoder = self.generator
        with_map = [decoder.conv1, *decoder.convs[: 2 * (self.encoder_levels - 1)]]
        for layer in with_map:
            layer.noise.weight *= fidelity

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """The decoder's RGB at 4, 8, ... `size` px for losses, without the input that a residual adds."""
        rgbs: list[Tensor] = self.generator(*self.encode(x))
        return rgbs

    def encode(self, x: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        """The code `[N, style_dim]` and the decoder's feature maps, 4 px first."""
        features: list[Tensor | None] = []
        h = x
        for i in range(self.encoder_levels):
            h = getattr(self, f"ecd{i}")(h)
            features.append(h)
        code = self.final_linear(h.reshape(h.shape[0], -1))
        features.reverse()
        features += [None] * (len(self.generator.to_rgbs) + 1 - self.encoder_levels)
        return code, features

    def forward(self, x: Tensor) -> Tensor:
        """Restore a batch of pictures."""
        out = self.pyramid(x)[-1]
        return x + out if self.residual else out
