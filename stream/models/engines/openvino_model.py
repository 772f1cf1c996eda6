"""A weights file of either format -> an OpenVINO network from crop to crop."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as op

from stream.errors import ConfigError, ModelError
from stream.models.engines.openvino_runtime import openvino_core
from stream.models.info import ModelInfo


def convert(path: Path, model: ModelInfo, fidelity: float = 1.0) -> ov.Model:
    """Convert the file at `path` to a network f32[1, in, in, 3] -> f32[1, size, size, 3], RGB in 0..1.

    Raises ModelError for wrong weights, and ConfigError for a fidelity that an ONNX file cannot have.
    """
    if path.suffix == ".onnx":
        if fidelity != 1.0:
            raise ConfigError(
                f"restore.fidelity: {path} has no such input; use 1.0, or the weights as safetensors"
            )
        return _from_onnx(path, model)
    return _from_weights(path, model, fidelity)


def _from_weights(path: Path, model: ModelInfo, fidelity: float) -> ov.Model:
    import torch

    from stream.models.engines.crop_net import CropNet
    from stream.models.nets import OneCropGPEN, load_generator

    net, _ = load_generator(path)
    net.scale_features(fidelity)
    crop_net = CropNet(OneCropGPEN(net), model.input_range).requires_grad_(False).eval()
    shape = [1, model.in_size, model.in_size, 3]
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates the tracer that OpenVINO uses
        return ov.convert_model(crop_net, example_input=torch.zeros(shape), input=[shape])


def _from_onnx(path: Path, model: ModelInfo) -> ov.Model:
    """Add the conversion of range and layout to an export f32[N, 3, in, in] -> f32[N, 3, size, size]."""
    try:
        network = openvino_core().read_model(path)
        if len(network.inputs) != 1 or network.input().element_type != ov.Type.f32:
            raise RuntimeError("it does not have one FP32 input")
        network.reshape([1, 3, model.in_size, model.in_size])
        if list(network.output(0).shape) != [1, 3, model.size, model.size]:
            raise RuntimeError(f"its output has shape {list(network.output(0).shape)}")
    except RuntimeError as error:
        reason = " ".join(str(error).split())[-200:]
        raise ModelError(f"{path}: not an export of a {model.size} px generator ({reason})") from error
    low, high = (np.float32(bound) for bound in model.input_range)
    crops = op.parameter([1, model.in_size, model.in_size, 3], np.float32)
    x = op.transpose(crops, op.constant([0, 3, 1, 2]))
    x = op.add(op.multiply(x, op.constant(high - low)), op.constant(low))
    old = network.input().get_node()
    for consumer in old.output(0).get_target_inputs():
        consumer.replace_source_output(x.output(0))
    y = network.output(0).get_node().input_value(0)
    y = op.add(op.multiply(y, op.constant(np.float32(0.5))), op.constant(np.float32(0.5)))
    return ov.Model([op.transpose(y, op.constant([0, 2, 3, 1]))], [crops], model.name)


def onnx_sides(path: Path) -> tuple[int, int]:
    """Sides, px, of the square RGB pictures that an ONNX network takes and gives.

    It must have one input f32[N,3,in,in] and, as its first output, f32[N,3,size,size], with fixed sides
    that are powers of two. Raises ModelError for any other network.
    """
    try:
        network = openvino_core().read_model(path)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[-160:]
        raise ModelError(f"{path}: not a readable ONNX network ({reason})") from None
    if len(network.inputs) != 1:
        raise ModelError(f"{path}: has {len(network.inputs)} inputs, expected one picture")
    return _side(path, "input", network.inputs[0]), _side(path, "output", network.outputs[0])


def _side(path: Path, what: str, port: ov.Output) -> int:
    shape = port.get_partial_shape()
    sides = (
        [-1 if length.is_dynamic else length.get_length() for length in shape] if shape.rank.is_static else []
    )
    floats = port.get_element_type() == ov.Type.f32
    if not floats or len(sides) != 4 or sides[1] != 3 or sides[2] != sides[3] or sides[0] not in (-1, 1):
        given = f"{port.get_element_type().get_type_name()}{shape}"
        raise ModelError(f"{path}: its {what} is {given}, expected f32[1,3,S,S] with a fixed S")
    side = sides[2]
    if side < 8 or side > 2048 or side & (side - 1):
        raise ModelError(f"{path}: its {what} is {side} px wide, expected a power of two from 8 to 2048")
    return side
