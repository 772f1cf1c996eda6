"""The layers of a plain convolutional ONNX network, read by OpenVINO, for whoever computes them elsewhere.

Convolutions with a padding of half their kernel, biases, rectifiers and skips are all that is known.
"""

from __future__ import annotations

import numpy as np
import openvino as ov

from stream.engines.openvino_runtime import openvino_core


def read_layers(path: str, last: str) -> tuple[list[tuple], list[np.ndarray]]:
    """Layers up to the one called `last`, and the tensors f32 that they use.

    A layer is (kind, name, names of its inputs, number of its tensor or None, stride, groups); kinds
    are conv, bias, relu and skip, and "" names the network's input.
    """
    model = openvino_core().read_model(path)
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
        if name == last:
            break
    return steps, tensors


def _constant(node: ov.Node) -> np.ndarray | None:
    """The values of a constant, also where only its shape is rewritten on the way; else None."""
    while node.get_type_name() == "Reshape":
        node = node.input_value(0).get_node()
    return node.data if node.get_type_name() == "Constant" else None
