"""The protocol of a restoration engine, and functions that several engines share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from stream.errors import ConfigError
from stream.models.info import ModelInfo

PRECISIONS = ("auto", "fp32", "fp16", "bf16")


class Engine(Protocol):
    """Runs one generator. One thread at a time may call it."""

    name: str
    """Library and device, such as ``openvino-cpu``."""
    description: str
    """One line for the user: where it runs, and at which precision it computes and stores."""
    model: ModelInfo

    def restore(self, crops: np.ndarray) -> np.ndarray:
        """Restore aligned face crops, in order. No crop has an influence on another.

        `crops` is f32[N, in_size, in_size, 3], RGB in 0..1, C-contiguous, N >= 0. The result is a new
        array f32[N, size, size, 3], RGB, nominally 0..1 but not clipped. The result is NaN for a crop that
        could not be computed, for example because the device's memory is full.
        """

    def close(self) -> None:
        """Release the network. It may be called twice; `restore` raises RuntimeError afterwards."""


def check_crops(crops: np.ndarray, model: ModelInfo) -> None:
    """Raise ValueError unless `crops` has the shape and type that `Engine.restore` expects."""
    side, shape, dtype = model.in_size, crops.shape, crops.dtype
    if dtype != np.float32 or len(shape) != 4 or shape[1:] != (side, side, 3):
        raise ValueError(f"expected f32[N, {side}, {side}, 3] crops, got {shape = }, {dtype = }")
    if not crops.flags.c_contiguous:
        raise ValueError("expected C-contiguous crops, got a strided view; copy it first")


def check_precision(engine: str, precision: str, offered: Sequence[str]) -> None:
    """Raise ConfigError unless `engine` offers `precision`."""
    if precision not in offered:
        raise ConfigError(
            f"restore.precision: engine {engine!r} has no {precision!r} here; use {' or '.join(offered)}"
        )


def graph_sizes(largest: int) -> tuple[int, ...]:
    """The batch sizes for which static graphs are prepared, ascending: powers of two, and `largest`."""
    return tuple(sorted({2**i for i in range(int(math.log2(largest)) + 1)} | {largest}))


def batches(crops: int, sizes: Sequence[int]) -> Iterator[tuple[slice, int]]:
    """Divide a number of crops into as few batches as possible: the crops of each, and its size.

    sizes: the possible sizes, ascending. The last batch has the smallest size that holds its crops; the
    caller pads it.
    """
    for start in range(0, crops, sizes[-1]):
        stop = min(start + sizes[-1], crops)
        yield slice(start, stop), next(size for size in sizes if size >= stop - start)
