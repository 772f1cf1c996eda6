"""Official training files (``.pth``) -> safetensors with metadata.

Only tensors are unpickled. A file that contains anything else is refused before its code can run.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from stream.errors import ModelError
from stream.models.info import GeneratorSpec, ModelInfo, metadata_of
from stream.models.nets.loader import build_generator, difference

_KEY = "g_ema"
"""Key of the averaged weights in a training checkpoint. They are the ones that restore."""
_LEVEL_PX = 64
"""The smallest scale whose number of channels depends on the channel multiplier."""


def import_checkpoint(source: Path, target: Path, spec: GeneratorSpec, source_sha256: str) -> ModelInfo:
    """Convert `source` (``.pth``, ``.safetensors``) to `target`, whole or not at all.

    Sizes, widths and the SR variant's input size follow from the tensors' shapes. All names and shapes must
    then be those of the network. Raises ModelError for other weights, and OSError if `target` cannot be
    written. `sha256` is empty in the result, because the file is not read again.
    """
    state = read_tensors(source)
    info = infer_info(source, {name: tuple(tensor.shape) for name, tensor in state.items()}, spec)
    expected = {name: tuple(t.shape) for name, t in build_generator(info).state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if expected != found:
        raise ModelError(f"{source}: {difference(expected, found)}; these are other weights than GPEN's")
    for name, tensor in state.items():
        if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
            raise ModelError(f"{source}: tensor {name} holds other values than finite numbers")
    metadata = metadata_of(info) | {"source_sha256": source_sha256}
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, draft, metadata)
        draft.replace(target)
    except SafetensorError as error:
        raise OSError(None, " ".join(str(error).split())[:160]) from None
    finally:
        draft.unlink(missing_ok=True)
    return info


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, or under its key ``g_ema``; names without ``module.``. Raises ModelError."""
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    except Exception as error:  # an unpickler can raise anything for a broken file
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code:
            raise ModelError(
                f"{path}: refused: it asks to run {code[1]}, which weights never need; fetch it elsewhere"
            ) from None
        raise ModelError(f"{path}: not a whole file of torch weights; fetch it again") from None
    state = content.get(_KEY, content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        content_names = (
            ", ".join(map(str, list(content)[:4])) if isinstance(content, Mapping) else type(content).__name__
        )
        raise ModelError(
            f"{path}: holds neither {_KEY!r} nor plain tensors, but: {content_names[:120] or 'nothing'}"
        )
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def infer_info(path: Path, shapes: Mapping[str, tuple[int, ...]], spec: GeneratorSpec) -> ModelInfo:
    """The facts about the network whose tensors have these shapes.

    It inverts `nets.layers.channels_at`. Raises ModelError, which names a tensor, if no network fits.
    """
    outputs = _count(shapes, r"generator\.to_rgbs\.(\d+)\.bias")
    inputs = _count(shapes, r"ecd(\d+)\.0\.\d+\.bias")
    if not (1 <= outputs <= 9 and 2 <= inputs <= outputs + 1):
        raise ModelError(
            f"{path}: {inputs} encoder and {outputs} RGB levels fit no GPEN; these are other weights"
        )
    size, in_size = 4 << outputs, 2 << inputs
    narrow = _side(path, shapes, "generator.input.input", 1, 4) / 512
    multiplier = 2.0
    if size >= _LEVEL_PX:
        at = 2 * (int(math.log2(_LEVEL_PX)) - 3)
        width = _side(path, shapes, f"generator.convs.{at}.conv.weight", 1, 5)
        multiplier = width * _LEVEL_PX / (16384 * narrow)
    if spec.size is not None and size != spec.size:
        raise ModelError(f"{path}: a network for {size} px, expected {spec.size} px; it is another model")
    return ModelInfo(
        name=spec.name,
        size=size,
        in_size=in_size,
        channel_multiplier=multiplier,
        narrow=narrow,
        style_dim=_side(path, shapes, "final_linear.0.weight", 0, 2),
        n_mlp=max(_count(shapes, r"generator\.style\.(\d+)\.weight"), 1),
        residual=False,
        template=spec.template,
        sha256="",
        input_range=spec.input_range,
        task=spec.task,
        licence=spec.licence,
    )


def _count(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> int:
    return len({match[1] for name in shapes if (match := re.fullmatch(pattern, name))})


def _side(path: Path, shapes: Mapping[str, tuple[int, ...]], name: str, axis: int, axes: int) -> int:
    shape = shapes.get(name)
    if shape is None:
        raise ModelError(f"{path}: tensor {name} is missing; these are other weights than GPEN's")
    if len(shape) != axes or not shape[axis]:
        raise ModelError(
            f"{path}: tensor {name} has shape {tuple(shape)}; these are other weights than GPEN's"
        )
    return shape[axis]
