"""One row of the recipe in its own process: pictures in, restored crops out, each step timed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from stream import geometry
from stream.bench import naive
from stream.bench.networks import PUBLISHED, network
from stream.compose import ComposeStage
from stream.config import Compose, Detect
from stream.crop import CropStage, WholeFrameStage, cut
from stream.detect import FaceFinder
from stream.face import Face, FrameWork, Patch
from stream.images import Still, read_image

STEPS = ("detect", "read", "prepare", "network", "finish")
PYRAMID = (0.5, 1.0, 1.5)
"""The recipe's baseline looks for faces at these scales of every picture."""


@dataclass(frozen=True, slots=True)
class Setup:
    """How a row works; the defaults are the recipe's baseline."""

    detector: str = "retinaface"
    """"retinaface" at PYRAMID, "haar", or "aligned": the pictures are crops already."""
    engine: str = PUBLISHED
    precision: str = "fp32"
    product: bool = False
    """Whether pictures are prepared and finished as the product does it, or as a naive script."""
    batch: int = 1
    inference_mode: bool = False
    fidelity: float = 1.0

    def changed(self) -> dict[str, Any]:
        """What differs from the baseline."""
        return {f.name: v for f in fields(self) if (v := getattr(self, f.name)) != f.default}


class RecipeJob:
    """The first run restores all pictures and keeps the crops, later ones time the first few.

    `pictures` name their files, whole and aligned, and the landmarks; `out` is the folder for the
    crops, PNG of the model's size, as they would be in the place that the landmarks say.
    """

    def __init__(
        self, setup: dict, model: str, pictures: list[dict], out: str, timed: int, threads: int,
        retinaface: str,
    ) -> None:  # fmt: skip
        self._setup, self._pictures, self._timed, self._first = Setup(**setup), pictures, timed, True
        cv2.setNumThreads(1 if self._setup.product else threads)
        s = self._setup
        self._network = network(
            s.engine, Path(model), threads=threads, precision=s.precision, batch_size=s.batch,
            inference_mode=s.inference_mode, fidelity=s.fidelity,
        )  # fmt: skip
        self._model = self._network.model
        self._template = geometry.template(self._model.template, self._model.size)
        self._find = _finder(s.detector, retinaface, threads)
        self._read, self._prepare, self._finish = (
            (read_image, self._product_prepare, self._product_finish)
            if s.product
            else (naive.read, self._naive_prepare, self._naive_finish)
        )
        self._aligned = s.detector == "aligned"
        self._whole = WholeFrameStage(self._model.size)
        self._crop = CropStage(self._model.template, self._model.size, lambda faces, _: faces)
        self._compose = ComposeStage(Compose().feather)
        self._out = Path(out)
        self._out.mkdir(parents=True, exist_ok=True)

    def run(self) -> dict[str, Any]:
        """Milliseconds of each step for one picture; `missed` pictures in which no face was found."""
        chosen = self._pictures if self._first else self._pictures[: self._timed]
        self._spent, missed = dict.fromkeys(STEPS, 0.0), 0
        for at in range(0, len(chosen), self._setup.batch):
            group = chosen[at : at + self._setup.batch]
            placed = [(i, picture, self._detect(picture)) for i, picture in enumerate(group, at)]
            found = [item for item in placed if item[2] is not None]
            missed += len(placed) - len(found)
            for i, picture, marks in placed:
                if marks is None and self._first:
                    self._keep(i, picture, self._untouched(picture), None)
            if found:
                self._restore(found)
        self._first = False
        return {
            "ms": {step: s / len(chosen) * 1e3 for step, s in self._spent.items()},
            "missed": missed,
            "pictures": len(chosen),
            "description": self._network.description,
        }

    def _restore(self, found: list[tuple[int, dict, np.ndarray]]) -> None:
        key = "aligned" if self._aligned else "path"
        with self._timing("read"):
            read = [self._read(Path(picture[key])) for _, picture, _ in found]
        with self._timing("prepare"):
            prepared = [self._prepare(one, marks) for one, (_, _, marks) in zip(read, found, strict=True)]
        with self._timing("network"):
            restored = self._restored([given for given, _ in prepared])
        with self._timing("finish"):
            crops = [self._finish(state, one) for (_, state), one in zip(prepared, restored, strict=True)]
        if self._first:
            for (i, picture, marks), rgb in zip(found, crops, strict=True):
                self._keep(i, picture, rgb, marks)

    @contextmanager
    def _timing(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._spent[step] += time.perf_counter() - start

    def _detect(self, picture: dict) -> np.ndarray | None:
        """Landmarks; RetinaFace's weights are random, so the true ones take the place of its own."""
        true = np.array(picture["landmarks"])
        random = self._setup.detector == "retinaface"
        if self._find is None or (random and self._first and picture is not self._pictures[0]):
            return true  # while it warms up, one look is enough
        frame = read_image(Path(picture["path"])).frame(0)
        with self._timing("detect"):
            hits = self._find(frame)
        if random:
            return true
        return hits[0].landmarks.astype(np.float64) if hits else None

    def _restored(self, given: list) -> list:
        """Each picture's output, of the kind that was given."""
        naive_side = not self._setup.product
        if self._network.takes_tensors:
            batch = torch.cat(given) if naive_side else _tensor(np.stack(given))
            output = self._network(batch)
            return list(output[:, None]) if naive_side else list(_array(output))
        batch = _array(torch.cat(given)) if naive_side else np.stack(given)
        output = self._network(batch)
        return list(_tensor(output)[:, None]) if naive_side else list(output)

    # --- the naive script --------------------------------------------------------------------

    def _naive_prepare(self, bgr: np.ndarray, marks: np.ndarray) -> tuple[torch.Tensor, tuple]:
        to_picture = None if self._aligned else geometry.similarity(self._template, marks)
        return naive.prepare(bgr, to_picture, self._model.in_size), (bgr, to_picture)

    def _naive_finish(self, state: tuple, output: torch.Tensor) -> np.ndarray:
        face = naive.finish(output)
        bgr, to_picture = state
        if to_picture is not None:
            naive.paste(bgr, face, to_picture)
        return face[..., ::-1]

    # --- the product -------------------------------------------------------------------------

    def _product_prepare(self, still: Still, marks: np.ndarray) -> tuple[np.ndarray, FrameWork]:
        frame = still.frame(0)
        face = Face(0, np.zeros(4, np.float32), marks.astype(np.float32), 1.0, False, 1.0)
        stage = self._whole if self._aligned else self._crop
        (work,) = stage.process(FrameWork(frame, () if self._aligned else (face,)))
        return work.crops[0].image, work

    def _product_finish(self, work: FrameWork, output: np.ndarray) -> np.ndarray:
        restored = np.clip(output, 0, 1)
        patch = Patch(work.crops[0], restored - work.crops[0].image)
        list(self._compose.process(FrameWork(work.frame, work.faces, work.crops, (patch,))))
        return np.rint(restored * 255).astype(np.uint8)

    # --- what is kept for comparison -----------------------------------------------------------

    def _untouched(self, picture: dict) -> np.ndarray:
        """What stands where the face is, RGB u8, if nothing was restored."""
        frame = read_image(Path(picture["path"])).frame(0)
        to_picture = geometry.similarity(self._template, np.array(picture["landmarks"]))
        return np.rint(cut(frame, to_picture, self._model.size) * 255).astype(np.uint8)

    def _keep(self, index: int, picture: dict, rgb: np.ndarray, marks: np.ndarray | None) -> None:
        """Write the crop RGB u8 in the true crop's place, so that every row shows the same pixels."""
        if self._setup.detector == "haar" and marks is not None:
            to_own = geometry.invert(geometry.similarity(self._template, marks))
            true = geometry.similarity(self._template, np.array(picture["landmarks"]))
            size = rgb.shape[1::-1]
            warped = geometry.warp(
                rgb.astype(np.float32), geometry.chain(to_own, true), size, cv2.BORDER_REPLICATE
            )
            rgb = np.clip(np.rint(warped), 0, 255).astype(np.uint8)
        cv2.imwrite(str(self._out / f"{index:03}.png"), np.ascontiguousarray(rgb[..., ::-1]))


def _finder(detector: str, retinaface: str, threads: int) -> FaceFinder | None:
    if detector == "aligned":
        return None
    if detector == "haar":
        return FaceFinder(Detect(detector="haar"), threads)
    return retinaface_finder(retinaface, threads)


def retinaface_finder(weights: str, threads: int) -> FaceFinder:
    """The recipe's detection: RetinaFace-ResNet50 at every scale of PYRAMID."""
    settings = Detect(detector="retinaface", weights=weights, pyramid=PYRAMID, max_side=8192)
    return FaceFinder(settings, threads)


def _tensor(crops: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(crops).permute(0, 3, 1, 2).contiguous() * 2 - 1


def _array(output: torch.Tensor) -> np.ndarray:
    return (output.permute(0, 2, 3, 1) * 0.5 + 0.5).contiguous().numpy()
