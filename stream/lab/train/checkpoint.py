"""Checkpoints, which a crash cannot corrupt, and weights files, which the pipeline loads."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from stream.errors import TrainError
from stream.lab.train.step import StepState
from stream.models.info import ModelInfo, metadata_of

CHECKPOINT = "checkpoint.pt"


def save(state: StepState, folder: Path) -> None:
    """Write the checkpoint completely or not at all: to a draft file that is synced and then renamed.

    Raises TrainError if it cannot be written; the previous checkpoint then stays.
    """
    path, draft = folder / CHECKPOINT, folder / f".{CHECKPOINT}"
    try:
        with draft.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError when the disk is full
        draft.unlink(missing_ok=True)
        detail = " ".join(str(getattr(error, "strerror", None) or error).split())[:80]
        raise TrainError(
            f"{path}: cannot be written ({detail}); mend that, and the same command goes on from the last one"
        ) from None


def load(folder: Path) -> StepState | None:
    """The checkpoint in a folder, or None if there is none. Raises TrainError if it is damaged."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        state: StepState = torch.load(path, map_location="cpu", weights_only=True)
        return state
    except Exception as error:  # unpickling another kind of file can raise anything
        detail = " ".join(str(error).split())[:120]
        raise TrainError(f"{path}: no whole checkpoint ({detail}); move it away to start anew") from None


def export(tensors: dict[str, Tensor], info: ModelInfo, path: Path, note: dict[str, str]) -> None:
    """Write weights as FP16 safetensors whose metadata hold the model's facts and `note`."""
    half = {name: tensor.detach().to("cpu", torch.float16).contiguous() for name, tensor in tensors.items()}
    draft = path.with_name(f".{path.name}")
    save_file(half, draft, metadata_of(info) | note)
    draft.replace(path)
