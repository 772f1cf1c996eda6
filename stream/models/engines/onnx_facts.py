"""What an ``.onnx`` says about its input and output, read by OpenVINO."""

from __future__ import annotations

from pathlib import Path

import openvino as ov

from stream.errors import ModelError
from stream.models.engines.openvino_runtime import openvino_core


def onnx_sides(path: Path) -> tuple[int, int]:
    """Sides (px) of the square RGB pictures that go into a network and come out of it.

    It must have one input f32[N,3,in,in] and, first among its outputs, f32[N,3,size,size] with fixed
    sides that are powers of two. Raises ModelError in one line that says what it has.
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
