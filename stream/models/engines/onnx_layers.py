"""The layers of a plain convolutional ONNX network, read by OpenVINO, so that torch can compute them.

Only convolutions with a padding of half their kernel, biases, rectifiers and skips are understood.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import openvino as ov

from stream.models.engines.openvino_runtime import openvino_core


class Layer(NamedTuple):
    """One step of a network."""

    kind: Literal["conv", "bias", "relu", "skip"]
    name: str
    sources: list[str]
    """Names of the layers whose outputs it takes as input; "" is the network's input."""
    tensor: int | None
    """Index of its weights among the tensors; None: it has none."""
    stride: int = 1
    groups: int = 1


def read_layers(path: str, last: str) -> tuple[list[Layer], list[np.ndarray]]:
    """The layers up to the one called `last`, and their weights, f32."""
    model = openvino_core().read_model(path)
    layers: list[Layer] = []
    tensors: list[np.ndarray] = []
    names = {model.input(0).get_node().get_friendly_name(): ""}

    def add(tensor: np.ndarray) -> int:
        tensors.append(np.ascontiguousarray(tensor, np.float32))
        return len(tensors) - 1

    for node in model.get_ordered_ops():
        operation, name = node.get_type_name(), node.get_friendly_name()
        if operation not in ("Convolution", "GroupConvolution", "Relu", "Add"):
            continue
        inputs = [node.input_value(i).get_node() for i in range(node.get_input_size())]
        tensor = _constant(inputs[1]) if len(inputs) > 1 else None
        if tensor is not None:
            inputs = inputs[:1]
        if any(source.get_friendly_name() not in names for source in inputs):
            continue  # arithmetic on shapes
        sources = [names[source.get_friendly_name()] for source in inputs]
        if operation == "Relu":
            layer = Layer("relu", name, sources, None)
        elif tensor is None:
            layer = Layer("skip", name, sources, None)
        elif operation == "Add":
            layer = Layer("bias", name, sources, add(tensor.reshape(1, -1, 1, 1)))
        else:
            groups = len(tensor) if operation == "GroupConvolution" else 1  # only depthwise ones occur
            stride = node.get_attributes()["strides"][0]
            layer = Layer("conv", name, sources, add(tensor), stride, groups)
        names[name] = name
        layers.append(layer)
        if name == last:
            break
    return layers, tensors


def _constant(node: ov.Node) -> np.ndarray | None:
    """The values of a constant, even if it is reshaped on its way here; None for other nodes."""
    while node.get_type_name() == "Reshape":
        node = node.input_value(0).get_node()
    return node.data if node.get_type_name() == "Constant" else None
