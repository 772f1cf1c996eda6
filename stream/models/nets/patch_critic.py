"""A PatchGAN critic (Isola et al., 2017) with spectral normalisation (Miyato et al., 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from stream.models.nets.layers import ACTIVATION_SLOPE


class PatchCritic(nn.Module):
    """Realness logits `[N, 1, H/8, W/8]` of RGB pictures `[N, 3, H, W]` in -1..1.

    Each logit judges the texture of one patch of 54x54 px, and none sees the whole face. In training mode
    every forward pass refines the estimates of the spectral norms by one power iteration. The estimates are
    part of the state dict.
    """

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            spectral_norm(conv)
            for conv in (
                nn.Conv2d(3, width, 4, stride=2, padding=1),
                nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
                nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1),
                nn.Conv2d(4 * width, 4 * width, 3, padding=1),
                nn.Conv2d(4 * width, 1, 3, padding=1),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """The logits of a batch."""
        convs = [conv for conv in self.convs if isinstance(conv, nn.Conv2d)]  # a ModuleList has no item type
        # CUDA's autocast would compute the power iterations in BF16, which has about three digits.
        with torch.autocast(x.device.type, enabled=False):
            weights = [conv.weight for conv in convs]
        for index, (conv, weight) in enumerate(zip(convs, weights, strict=True)):
            if index:
                x = F.leaky_relu(x, ACTIVATION_SLOPE)
            x = F.conv2d(x, weight, conv.bias, conv.stride, conv.padding)
        return x
