"""The contract of a restoration engine, and the check that every engine makes on its input."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from stream.model import ModelInfo


class Engine(Protocol):
    """Runs one generator. One thread at a time may call it."""

    name: str
    """Library and device, such as ``openvino-cpu``."""
    description: str
    """One line for people: where it runs, and at which precision it computes and stores."""
    model: ModelInfo

    def restore(self, crops: np.ndarray) -> np.ndarray:
        """Restore aligned face crops, in order; each crop depends on itself alone.

        `crops` is f32[N, in_size, in_size, 3], RGB in 0..1, C-contiguous, N >= 0. The result is
        f32[N, size, size, 3], RGB, 0..1 but not clipped, owned by the caller.
        """

    def close(self) -> None:
        """Release the network; calling twice is harmless, restoring afterwards is an error."""


def check_crops(crops: np.ndarray, model: ModelInfo) -> None:
    """Raise ValueError unless `crops` is what `Engine.restore` takes."""
    side = model.in_size
    shape = getattr(crops, "shape", None)
    dtype = getattr(crops, "dtype", None)
    if dtype != np.float32 or len(shape) != 4 or shape[1:] != (side, side, 3):
        raise ValueError(f"expected f32[N, {side}, {side}, 3] crops, got {shape = }, {dtype = }")
    if not crops.flags.c_contiguous:
        raise ValueError("expected C-contiguous crops, got a strided view; copy it first")
