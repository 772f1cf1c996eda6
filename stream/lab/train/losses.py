"""Training losses. Pictures are RGB f32`[N,3,H,W]` in -1..1.

Every loss is a mean over the batch. It is about 1 for a useless picture, so that weights can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LUMA = (0.299, 0.587, 0.114)
_DETAIL_SIGMA, _AVERAGING_SIGMA = 1.5, 3.0
"""Standard deviations of the blur that separates detail and of the averaging of its energy, px."""
_ENERGY_FLOOR = (2 / 255) ** 2
"""Energy of fine detail below which no difference is visible, for luma with a range of 1."""


def pixels(out: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute difference."""
    return (out - clean).abs().mean()


def squares(out: Tensor, clean: Tensor) -> Tensor:
    """Root mean squared difference of each picture, the quantity that PSNR measures."""
    return (out - clean).square().mean((1, 2, 3)).add(1e-8).sqrt().mean()


def gradients(out: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute difference of the first differences in x and in y."""
    error = out - clean
    across, down = error[..., 1:] - error[..., :-1], error[..., 1:, :] - error[..., :-1, :]
    return across.abs().mean() + down.abs().mean()


def scales(rgbs: Sequence[Tensor], clean: Tensor) -> Tensor:
    """Deep supervision: mean absolute difference of each intermediate RGB from the clean picture at its size.

    The result is the mean over the scales.
    """
    total = clean.new_zeros(())
    for rgb in rgbs:
        small = F.interpolate(clean, rgb.shape[-1], mode="area")
        total = total + (rgb - small).abs().mean()
    return total / len(rgbs)


def detail(out: Tensor, clean: Tensor) -> Tensor:
    """Difference in the amount of fine detail around each pixel, whatever its exact position.

    The mean absolute difference of the logarithms of `energy`, weighted by the square root of the clean
    energy, so that edges count more than skin. Regression to the mean gives soft pictures; this loss
    asks for the missing energy. It also penalises excess energy, such as overshoot.
    """
    restored, target = energy(out), energy(clean)
    weight = target.sqrt()
    return (weight * (restored / target).log().abs()).mean() / weight.mean()


def energy(picture: Tensor) -> Tensor:
    """Local energy of fine detail, `[N,1,H,W]`.

    The square of luma minus its Gaussian blur of 1.5 px, averaged by a Gaussian of 3 px, plus a floor.
    """
    luma = picture.mul(picture.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True) / 2
    fine = luma - blurred(luma, _DETAIL_SIGMA)
    return blurred(fine.square(), _AVERAGING_SIGMA) + _ENERGY_FLOOR


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of `[N,1,H,W]`, the kernel cut off at 3 sigma, the picture mirrored at its border."""
    reach = int(3 * sigma + 0.5)
    axis = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-axis.square() / (2 * sigma * sigma))
    kernel = kernel / kernel.sum()
    x = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="reflect"), kernel.view(1, 1, 1, -1))
    return F.conv2d(F.pad(x, (0, 0, reach, reach), mode="reflect"), kernel.view(1, 1, -1, 1))


def perceptual(backbone: nn.Module, out: Tensor, clean: Tensor) -> Tensor:
    """Mean relative difference of a backbone's activations. Sides must be multiples of 32 px."""
    with torch.no_grad():
        target = backbone((clean + 1) * 127.5)
    restored = backbone((out + 1) * 127.5)
    parts = [(a - b).abs().mean() / b.abs().mean().add(1e-3) for a, b in zip(restored, target, strict=True)]
    return torch.stack(parts).mean()


def realness(logits: Tensor) -> Tensor:
    """The generator's non-saturating loss from the logits of its pictures (Goodfellow et al., 2014)."""
    return F.softplus(-logits).mean()


def judgement(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's logistic loss."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def critic_hinge(real: Tensor, fake: Tensor) -> Tensor:
    """The patch critic's hinge loss (Lim & Ye, 2017).

    It is 0 if every real patch has a logit above 1 and every fake patch one below -1, and 2 if all are 0.
    """
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def generator_hinge(fake: Tensor) -> Tensor:
    """The generator's loss beside `critic_hinge` (Lim & Ye, 2017): the negative mean logit."""
    return -fake.mean()


def gradient_penalty(logits: Tensor, real: Tensor) -> Tensor:
    """R1 penalty (Mescheder et al., 2018): squared gradient of the logits at each real picture."""
    (slope,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    return slope.square().sum((1, 2, 3)).mean()
