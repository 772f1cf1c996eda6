"""What a restored picture is judged by while training. Pictures are RGB `[N,3,H,W]` in -1..1, FP32.

Every loss is a mean over the batch and about 1 where the picture is useless, so that weights compare.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LUMA = (0.299, 0.587, 0.114)
_FINE_SIGMA, _CELL_SIGMA = 1.5, 3.0
_QUIET = (2 / 255) ** 2
"""Energy of fine detail, in units of (-1..1)^2 / 4, below which nobody sees a difference."""


def pixels(out: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute difference."""
    return (out - clean).abs().mean()


def squares(out: Tensor, clean: Tensor) -> Tensor:
    """Root of the mean squared difference of each picture: what PSNR measures."""
    return (out - clean).square().mean((1, 2, 3)).add(1e-8).sqrt().mean()


def gradients(out: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute difference of the first differences in x and in y."""
    error = out - clean
    across, down = error[..., 1:] - error[..., :-1], error[..., 1:, :] - error[..., :-1, :]
    return across.abs().mean() + down.abs().mean()


def scales(rgbs: Sequence[Tensor], clean: Tensor) -> Tensor:
    """Deep supervision: every intermediate RGB against the clean picture at its size, mean over scales."""
    total = clean.new_zeros(())
    for rgb in rgbs:
        small = F.interpolate(clean, rgb.shape[-1], mode="area")
        total = total + (rgb - small).abs().mean()
    return total / len(rgbs)


def detail(out: Tensor, clean: Tensor) -> Tensor:
    """How far the amount of fine detail is off, wherever it lies exactly.

    Per place, the energy of luma above a Gaussian blur of 1.5 px, averaged over 3 px, as a logarithm,
    weighted by the square root of the clean energy: edges count for more than skin. A regression to the
    mean is soft; this asks for the energy it leaves out, and for no more than that: overshoot costs too.
    """
    there, wanted = energy(out), energy(clean)
    weight = wanted.sqrt()
    return (weight * (there / wanted).log().abs()).mean() / weight.mean()


def energy(picture: Tensor) -> Tensor:
    """Local energy `[N,1,H,W]` of luma above a Gaussian of 1.5 px, never below a quiet floor."""
    luma = picture.mul(picture.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True) / 2
    fine = luma - blurred(luma, _FINE_SIGMA)
    return blurred(fine.square(), _CELL_SIGMA) + _QUIET


def blurred(x: Tensor, sigma: float) -> Tensor:
    """`[N,1,H,W]` through a Gaussian cut at 3 sigma, mirrored at the border."""
    reach = int(3 * sigma + 0.5)
    axis = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-axis.square() / (2 * sigma * sigma))
    kernel = kernel / kernel.sum()
    x = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="reflect"), kernel.view(1, 1, 1, -1))
    return F.conv2d(F.pad(x, (0, 0, reach, reach), mode="reflect"), kernel.view(1, 1, -1, 1))


def perceptual(backbone: nn.Module, out: Tensor, clean: Tensor) -> Tensor:
    """Mean relative difference of a backbone's activations; sides multiples of 32 px."""
    with torch.no_grad():
        wanted = backbone((clean + 1) * 127.5)
    seen = backbone((out + 1) * 127.5)
    parts = [(a - b).abs().mean() / b.abs().mean().add(1e-3) for a, b in zip(seen, wanted, strict=True)]
    return torch.stack(parts).mean()


def realness(logits: Tensor) -> Tensor:
    """Of fakes, for the generator: non-saturating (Goodfellow et al., 2014)."""
    return F.softplus(-logits).mean()


def judgement(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's logistic loss."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def critic_hinge(real: Tensor, fake: Tensor) -> Tensor:
    """The patch critic's hinge loss (Lim & Ye, 2017).

    0 where every real patch has a logit above 1 and every fake one below -1; 2 where all are 0.
    """
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def generator_hinge(fake: Tensor) -> Tensor:
    """What goes with `critic_hinge` for the generator (Lim & Ye, 2017): minus the mean logit."""
    return -fake.mean()


def gradient_penalty(logits: Tensor, real: Tensor) -> Tensor:
    """R1 (Mescheder et al., 2018): squared gradient of the logits at real pictures, per picture."""
    (slope,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    return slope.square().sum((1, 2, 3)).mean()
