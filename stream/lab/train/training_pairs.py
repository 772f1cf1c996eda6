"""Pairs of damaged and clean faces. Each pair depends on the seed and on its number alone.

A run that was stopped therefore continues with the same pairs, and the processes of a distributed run
can divide the numbers among themselves.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from stream.errors import TrainError
from stream.lab.damage import LEVELS, damage

MARGIN = 1 / 16
"""Width of the margin around an aligned face, as a share of the face's side; `gpen-stream align` adds it."""
ENDINGS = (".jpg", ".jpeg", ".png", ".webp")


def face_files(folder: str | Path) -> list[Path]:
    """The pictures directly inside a folder, sorted by name. Raises TrainError if there are none."""
    folder = Path(folder)
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in ENDINGS)
    if not files:
        raise TrainError(
            f"{folder}: holds no pictures ({', '.join(ENDINGS)}); make some with: gpen-stream align"
        )
    return files


def read_face(path: Path, size: int) -> np.ndarray:
    """An aligned face of `size` px with its margin, RGB u8[M,M,3] with M = 9/8 `size`.

    Larger files are reduced. Raises TrainError if the file is not a square picture of at least that size.
    """
    _check(path, size)
    try:
        with Image.open(path) as image:  # OpenCV would fill missing parts of a truncated file with grey
            whole = np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError):
        raise TrainError(
            f"{path}: no whole picture; remove it, or make it again with: gpen-stream align"
        ) from None
    side = _side_with_margin(size)
    return whole if len(whole) == side else cv2.resize(whole, (side, side), interpolation=cv2.INTER_AREA)


def _check(path: Path, size: int) -> None:
    """Raise TrainError for a wrong size, from the file's header alone."""
    try:
        with Image.open(path) as image:
            width, height = image.size
    except (OSError, ValueError, SyntaxError):
        raise TrainError(f"{path}: no picture; remove it from the folder") from None
    side = _side_with_margin(size)
    if width != height or width < side:
        raise TrainError(
            f"{path}: {width}x{height} px, expected {side}x{side} px; make it with: gpen-stream align"
        )


def _side_with_margin(size: int) -> int:
    return size + 2 * round(size * MARGIN)


def inner(whole: np.ndarray) -> np.ndarray:
    """The face without its margin."""
    margin = round(len(whole) * MARGIN / (1 + 2 * MARGIN))
    return np.ascontiguousarray(whole[margin:-margin, margin:-margin])


class TrainingPairs(Dataset[tuple[np.ndarray, np.ndarray]]):
    """Pairs (damaged, clean), both RGB u8[3,size,size].

    `shares` says how often each level of `damage.LEVELS` is drawn.
    """

    def __init__(self, folder: str | Path, size: int, shares: Mapping[str, float], seed: int) -> None:
        self._files, self._size = face_files(folder), size
        for path in self._files:
            _check(path, size)
        total = sum(shares.values())
        self._shares = [shares.get(level, 0.0) / total for level in LEVELS]
        self._seed = seed

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Pair `number` of an endless sequence, in which each epoch contains every face once."""
        cv2.setNumThreads(1)
        epoch, position = divmod(number, len(self._files))
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._files))
        rng = np.random.default_rng([self._seed, number, 1])
        clean = augmented(read_face(self._files[order[position]], self._size), rng)
        level = LEVELS[rng.choice(len(LEVELS), p=self._shares)]
        return _planes(damage(clean, level, rng)), _planes(clean)


def _planes(picture: np.ndarray) -> np.ndarray:
    """The picture `[h,w,3]` as `[3,h,w]`."""
    return np.ascontiguousarray(picture.transpose(2, 0, 1))


def augmented(whole: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The face without its margin, after a random mirroring, alignment error and change of light and colour.

    `whole` is RGB u8[M,M,3] with the margin; the result is RGB u8[S,S,3] with S = 8/9 M.
    """
    side, size = len(whole), len(inner(whole))
    if rng.random() < 0.5:
        whole = whole[:, ::-1]
    angle, scale = rng.normal(0, 4), np.exp(rng.normal(0, 0.035))
    affine = np.asarray(cv2.getRotationMatrix2D((side / 2, side / 2), angle, scale), np.float64)
    affine[:, 2] += rng.normal(0, 0.012 * size, 2) - (side - size) / 2
    flags = cv2.INTER_CUBIC if scale >= 1 else cv2.INTER_LINEAR
    face = cv2.warpAffine(whole, affine, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    face = face.astype(np.float32) / 255
    face **= np.float32(np.exp(rng.normal(0, 0.15)))
    face = (face - 0.5) * np.float32(np.exp(rng.normal(0, 0.1))) + 0.5
    face *= np.exp(rng.normal(0, 0.04, 3)).astype(np.float32)
    grey = face @ np.array([0.299, 0.587, 0.114], np.float32)
    saturation = 0.0 if rng.random() < 0.05 else np.exp(rng.normal(0, 0.15))
    face = grey[..., None] + (face - grey[..., None]) * np.float32(saturation)
    return np.clip(np.rint(face * 255), 0, 255).astype(np.uint8)


class PairNumbers(Sampler[list[int]]):
    """Batches of pair numbers from `start` to `stop`. Each rank gets its own part of every step."""

    def __init__(self, start: int, stop: int, batch: int, rank: int = 0, ranks: int = 1) -> None:
        self._range = range(start + rank * batch, stop, batch * ranks)
        self._batch = batch

    def __len__(self) -> int:
        return len(self._range)

    def __iter__(self) -> Iterator[list[int]]:
        for first in self._range:
            yield list(range(first, first + self._batch))


def batches(pairs: TrainingPairs, numbers: PairNumbers, processes: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of pairs (damaged, clean), u8[N,3,size,size], in the order of `numbers`.

    They are made ahead of time in `processes` loader processes, or in this process if that is 0.
    """
    before = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    loader = DataLoader(
        pairs,
        batch_sampler=numbers,
        num_workers=processes,
        multiprocessing_context="spawn" if processes else None,
        prefetch_factor=6 if processes else None,
    )
    try:
        yield from loader
    finally:
        # torch leaves its own handler installed in the program that called this.
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before)
