"""Pairs of damaged and clean faces, each a function of the seed and its number alone.

So a run that stopped goes on with the very pair it would have had, and the ranks of a distributed
run share the numbers out.
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
"""What lies round an aligned face on each side, as a part of the face: `gpen-stream align` writes it."""
ENDINGS = (".jpg", ".jpeg", ".png", ".webp")


def face_files(folder: str | Path) -> list[Path]:
    """Pictures directly inside a folder, by name; TrainError where there are none."""
    folder = Path(folder)
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in ENDINGS)
    if not files:
        raise TrainError(
            f"{folder}: holds no pictures ({', '.join(ENDINGS)}); make some with: gpen-stream align"
        )
    return files


def read_face(path: Path, size: int) -> np.ndarray:
    """RGB u8[M,M,3]: an aligned face of `size` px and its margin, M = 9/8 size; larger files are shrunk.

    Raises TrainError where the file is no square picture of at least that size.
    """
    _check(path, size)
    try:
        with Image.open(path) as image:  # OpenCV would fill with grey what is missing
            whole = np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError):
        raise TrainError(
            f"{path}: no whole picture; remove it, or make it again with: gpen-stream align"
        ) from None
    side = _side(size)
    return whole if len(whole) == side else cv2.resize(whole, (side, side), interpolation=cv2.INTER_AREA)


def _check(path: Path, size: int) -> None:
    """By the file's header alone."""
    try:
        with Image.open(path) as image:
            width, height = image.size
    except (OSError, ValueError, SyntaxError):
        raise TrainError(f"{path}: no picture; remove it from the folder") from None
    side = _side(size)
    if width != height or width < side:
        raise TrainError(
            f"{path}: {width}x{height} px, expected {side}x{side} px; make it with: gpen-stream align"
        )


def _side(size: int) -> int:
    return size + 2 * round(size * MARGIN)


def inner(whole: np.ndarray) -> np.ndarray:
    """The face without its margin."""
    margin = round(len(whole) * MARGIN / (1 + 2 * MARGIN))
    return np.ascontiguousarray(whole[margin:-margin, margin:-margin])


class TrainingPairs(Dataset[tuple[np.ndarray, np.ndarray]]):
    """(damaged, clean), both u8[3,size,size] RGB; `shares` are those of `damage.LEVELS`."""

    def __init__(self, folder: str | Path, size: int, shares: Mapping[str, float], seed: int) -> None:
        self._files, self._size = face_files(folder), size
        for path in self._files:
            _check(path, size)
        whole = sum(shares.values())
        self._shares = [shares.get(level, 0.0) / whole for level in LEVELS]
        self._seed = seed

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Pair `number` of an endless row; every face comes once before any comes again."""
        cv2.setNumThreads(1)
        turn, place = divmod(number, len(self._files))
        order = np.random.default_rng([self._seed, turn]).permutation(len(self._files))
        rng = np.random.default_rng([self._seed, number, 1])
        clean = augmented(read_face(self._files[order[place]], self._size), rng)
        level = LEVELS[rng.choice(len(LEVELS), p=self._shares)]
        return _planes(damage(clean, level, rng)), _planes(clean)


def _planes(picture: np.ndarray) -> np.ndarray:
    """[h,w,3] -> [3,h,w]"""
    return np.ascontiguousarray(picture.transpose(2, 0, 1))


def augmented(whole: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A face mirrored, turned, scaled and moved as alignment errs, in another light, without its margin."""
    side, size = len(whole), len(inner(whole))
    if rng.random() < 0.5:
        whole = whole[:, ::-1]
    turn, growth = rng.normal(0, 4), np.exp(rng.normal(0, 0.035))
    affine = np.asarray(cv2.getRotationMatrix2D((side / 2, side / 2), turn, growth), np.float64)
    affine[:, 2] += rng.normal(0, 0.012 * size, 2) - (side - size) / 2
    flags = cv2.INTER_CUBIC if growth >= 1 else cv2.INTER_LINEAR
    face = cv2.warpAffine(whole, affine, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    face = face.astype(np.float32) / 255
    face **= np.float32(np.exp(rng.normal(0, 0.15)))
    face = (face - 0.5) * np.float32(np.exp(rng.normal(0, 0.1))) + 0.5
    face *= np.exp(rng.normal(0, 0.04, 3)).astype(np.float32)
    grey = face @ np.array([0.299, 0.587, 0.114], np.float32)
    saturation = 0.0 if rng.random() < 0.05 else np.exp(rng.normal(0, 0.15))
    face = grey[..., None] + (face - grey[..., None]) * np.float32(saturation)
    return np.clip(np.rint(face * 255), 0, 255).astype(np.uint8)


class Numbers(Sampler[list[int]]):
    """Batches of pair numbers, from `start` on; a rank takes its own part of each step's."""

    def __init__(self, start: int, stop: int, batch: int, rank: int = 0, ranks: int = 1) -> None:
        self._range = range(start + rank * batch, stop, batch * ranks)
        self._batch = batch

    def __len__(self) -> int:
        return len(self._range)

    def __iter__(self) -> Iterator[list[int]]:
        for first in self._range:
            yield list(range(first, first + self._batch))


def batches(pairs: TrainingPairs, numbers: Numbers, processes: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs made ahead in `processes` of their own (0: in this one), in the order of `numbers`."""
    before = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    ahead = DataLoader(
        pairs,
        batch_sampler=numbers,
        num_workers=processes,
        multiprocessing_context="spawn" if processes else None,
        prefetch_factor=6 if processes else None,
    )
    try:
        yield from ahead
    finally:
        # torch leaves a handler of its own behind, in whatever program called this.
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before)
