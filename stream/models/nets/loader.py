"""A weights file -> the generator with its weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from stream.errors import ModelError
from stream.models.info import ModelInfo, read_model_info
from stream.models.nets.gpen import GPEN


def build_generator(info: ModelInfo) -> GPEN:
    """The network that `info` describes, on the meta device, without weights."""
    with torch.device("meta"):
        return GPEN(
            info.size,
            channel_multiplier=info.channel_multiplier,
            narrow=info.narrow,
            style_dim=info.style_dim,
            n_mlp=info.n_mlp,
            residual=info.residual,
            in_size=info.in_size,
        )


def load_generator(path: str | Path) -> tuple[GPEN, ModelInfo]:
    """The generator of a safetensors file, FP32 on the CPU, in evaluation mode, and the file's facts.

    Raises ModelError unless the tensors have exactly the expected names and shapes.
    """
    info = read_model_info(path)
    if not info.narrow:
        raise ModelError(f"{path}: an ONNX network, which torch does not run; choose another restore.engine")
    net = build_generator(info)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); fetch it again") from error
    expected = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != found:
        raise ModelError(f"{path}: {difference(expected, found)}; these are other weights")
    wrong_type = next((name for name, t in tensors.items() if not t.is_floating_point()), None)
    if wrong_type:
        raise ModelError(f"{path}: tensor {wrong_type} is not floating point")
    net.load_state_dict({name: t.float() for name, t in tensors.items()}, assign=True)
    return net.requires_grad_(True).eval(), info


def difference(expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]) -> str:
    """The first difference between expected and found tensors (shapes by name), in words."""
    missing = sorted(expected.keys() - found.keys())
    if missing:
        return f"{len(missing)} tensors are missing, the first is {missing[0]}"
    unknown = sorted(found.keys() - expected.keys())
    if unknown:
        return f"{len(unknown)} tensors are unknown, the first is {unknown[0]}"
    name = next(name for name in sorted(expected) if expected[name] != found[name])
    return f"tensor {name} has shape {found[name]}, expected {expected[name]}"
