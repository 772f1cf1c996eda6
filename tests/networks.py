"""The golden 64 px generator as files that engines open: safetensors, and ONNX like the published ones."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from stream.models.info import ModelInfo
from stream.models.nets import load_generator

GOLDEN = Path(__file__).parent / "golden"


def golden_model(folder: Path, name: str = "gpen-64") -> Path:
    """Write the weights of a golden generator."""
    source = GOLDEN / f"{name}.safetensors"
    with safe_open(source, framework="numpy") as file:
        metadata = file.metadata() | {"template": "ffhq_512"}
    state = {key[2:]: value for key, value in load_file(source).items() if key.startswith("w.")}
    path = folder / f"{name}.safetensors"
    save_file(state, path, metadata)
    return path


def golden_crops(name: str = "gpen-64") -> tuple[np.ndarray, np.ndarray]:
    """The golden input and output as crops, f32[2, S, S, 3], RGB in 0..1."""
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    given, expected = (tensors[key].permute(0, 2, 3, 1).numpy() * 0.5 + 0.5 for key in ("input", "output"))
    return np.ascontiguousarray(given), np.ascontiguousarray(expected)


def published_onnx(weights: Path, *, dynamic: bool = False) -> tuple[Path, ModelInfo]:
    """Write an export like the published ones, NCHW in -1..1, with a sidecar; its path and facts."""
    net, info = load_generator(weights)
    net.requires_grad_(False)
    path = weights.with_name(f"{weights.stem}{'-dynamic' if dynamic else ''}.onnx")
    example = torch.zeros(2 if dynamic else 1, 3, info.in_size, info.in_size)
    shapes = {"x": {0: torch.export.Dim("crops")}} if dynamic else None
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    program = torch.onnx.export(
        net,
        (example,),
        dynamo=True,
        dynamic_shapes=shapes,
        input_names=["image"],
        output_names=["restored"],
        verbose=False,
    )
    program.save(path)
    info = replace(info, name=path.stem, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    facts = {"arch": "FullGenerator", "size": str(info.size), "template": info.template}
    sidecar = {"sha256": info.sha256, "metadata": facts | {"input_range": "-1,1", "task": "restore"}}
    path.with_name(path.name + ".json").write_text(json.dumps(sidecar))
    return path, info


CHECKPOINTS = json.loads((GOLDEN / "checkpoint-tensors.json").read_text())


def golden(name):
    """Metadata, state dict, input and expected output of a golden file."""
    path = GOLDEN / f"{name}.safetensors"
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    state = {key[2:]: value for key, value in tensors.items() if key.startswith("w.")}
    return metadata, state, tensors["input"], tensors["output"]
