"""One row of `bench recipe`: restores pictures in its own process and times each step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from stream.config import Compose, Detect
from stream.faces.compose.compose_stage import ComposeStage
from stream.faces.detect.finder import FaceFinder
from stream.faces.restore.crop import CropStage, WholeFrameStage, cut
from stream.lab.bench import naive
from stream.lab.bench.measured_network import PUBLISHED, PublishedSide, network
from stream.media.images import Still, read_image
from stream.picture import geometry
from stream.picture.face import Face, FrameWork, Patch

STEPS = ("detect", "read", "prepare", "network", "finish")
PYRAMID = (0.5, 1.0, 1.5)
"""Scales of every picture at which the recipe's baseline detects faces."""


@dataclass(frozen=True, slots=True)
class RecipeSetup:
    """The configuration of a row. The defaults are the recipe's baseline."""

    detector: str = "retinaface"
    """retinaface at the scales of PYRAMID, haar, or aligned if the pictures are crops already."""
    engine: str = PUBLISHED
    precision: str = "fp32"
    product: bool = False
    """Whether pictures are prepared and finished by the product; else by a naive script."""
    batch: int = 1
    inference_mode: bool = False
    fidelity: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class RecipePicture:
    """A damaged picture with one face."""

    kind: str
    """Kind of its damage, see `material.DAMAGE`."""
    path: Path
    aligned: Path
    """File of the aligned face alone."""
    landmarks: np.ndarray
    """True landmarks in the whole picture, f64[5,2], px."""


@dataclass(frozen=True, slots=True)
class RecipeFacts:
    """The result of one run."""

    ms: dict[str, float]
    """Mean time of each step for one picture, ms."""
    missed: int
    """Number of pictures in which no face was found."""
    pictures: int
    """Number of pictures in the run."""


class RecipeJob:
    """Restores pictures. The first run restores all and saves the crops; later runs time the first few.

    `out` is the folder of the crops, PNG files of the model's size, all cut at the true landmarks.
    """

    def __init__(
        self,
        setup: RecipeSetup,
        model: Path,
        pictures: list[RecipePicture],
        out: Path,
        timed: int,
        threads: int,
        retinaface: Path,
    ) -> None:
        self._setup, self._pictures, self._timed, self._first = setup, pictures, timed, True
        cv2.setNumThreads(1 if setup.product else threads)
        self._network = network(
            setup.engine, model, threads=threads, precision=setup.precision, batch_size=setup.batch,
            inference_mode=setup.inference_mode, fidelity=setup.fidelity,
        )  # fmt: skip
        self._model = self._network.model
        self._template = geometry.template(self._model.template, self._model.size)
        self._find = _finder(setup.detector, str(retinaface), threads)
        self._aligned = setup.detector == "aligned"
        self._whole = WholeFrameStage(self._model.size)
        self._crop = CropStage(self._model.template, self._model.size, lambda faces, _: faces)
        self._compose = ComposeStage(Compose().feather)
        self._spent: dict[str, float] = {}
        self._out = out
        self._out.mkdir(parents=True, exist_ok=True)

    def run(self) -> RecipeFacts:
        """Restore the pictures."""
        chosen = self._pictures if self._first else self._pictures[: self._timed]
        self._spent, missed = dict.fromkeys(STEPS, 0.0), 0
        for at in range(0, len(chosen), self._setup.batch):
            group = chosen[at : at + self._setup.batch]
            detected = [(i, picture, self._detect(picture)) for i, picture in enumerate(group, at)]
            found = [(i, picture, landmarks) for i, picture, landmarks in detected if landmarks is not None]
            missed += len(detected) - len(found)
            for i, picture, landmarks in detected:
                if landmarks is None and self._first:
                    self._save_crop(i, picture, self._unrestored(picture), None)
            if found:
                self._restore(found)
        self._first = False
        ms = {step: s / len(chosen) * 1e3 for step, s in self._spent.items()}
        return RecipeFacts(ms, missed, len(chosen))

    def _restore(self, found: list[tuple[int, RecipePicture, np.ndarray]]) -> None:
        """Restore pictures (number, picture, landmarks) as one batch; the first run saves the crops."""
        paths = [picture.aligned if self._aligned else picture.path for _, picture, _ in found]
        landmarks = [each for _, _, each in found]
        restore = self._restored_by_product if self._setup.product else self._restored_naively
        crops = restore(paths, landmarks)
        if self._first:
            for (i, picture, own), rgb in zip(found, crops, strict=True):
                self._save_crop(i, picture, rgb, own)

    @contextmanager
    def _timing(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._spent[step] += time.perf_counter() - start

    def _detect(self, picture: RecipePicture) -> np.ndarray | None:
        """The landmarks, or None if no face is found.

        For RetinaFace, whose weights are random, they are the true ones.
        """
        true = picture.landmarks
        random = self._setup.detector == "retinaface"
        if self._find is None or (random and self._first and picture is not self._pictures[0]):
            return true  # one detection is enough to warm up
        frame = read_image(picture.path).frame(0)
        with self._timing("detect"):
            hits = self._find(frame)
        if random:
            return true
        return hits[0].landmarks.astype(np.float64) if hits else None

    # --- the naive script --------------------------------------------------------------------

    def _restored_naively(self, paths: list[Path], landmarks: list[np.ndarray]) -> list[np.ndarray]:
        """The restored crops, RGB u8[S,S,3]; each step is timed."""
        with self._timing("read"):
            pictures = [naive.read(path) for path in paths]
        with self._timing("prepare"):
            places = [
                None if self._aligned else geometry.similarity(self._template, own) for own in landmarks
            ]
            given = [
                naive.prepare(bgr, place, self._model.in_size)
                for bgr, place in zip(pictures, places, strict=True)
            ]
        with self._timing("network"):
            outputs = list(self._on_tensors(torch.cat(given))[:, None])
        with self._timing("finish"):
            return [
                self._pasted(bgr, place, output)
                for bgr, place, output in zip(pictures, places, outputs, strict=True)
            ]

    def _pasted(self, bgr: np.ndarray, to_picture: np.ndarray | None, output: torch.Tensor) -> np.ndarray:
        face = naive.finish(output)
        if to_picture is not None:
            naive.paste(bgr, face, to_picture)
        return face[..., ::-1]

    def _on_tensors(self, x: torch.Tensor) -> torch.Tensor:
        """Restore f32[N,3,S,S] in -1..1."""
        if isinstance(self._network, PublishedSide):
            return self._network(x)
        return _tensor(self._network(_array(x)))

    # --- the product -------------------------------------------------------------------------

    def _restored_by_product(self, paths: list[Path], landmarks: list[np.ndarray]) -> list[np.ndarray]:
        """The restored crops, RGB u8[S,S,3]; each step is timed."""
        with self._timing("read"):
            stills = [read_image(path) for path in paths]
        with self._timing("prepare"):
            works = [self._cropped(still, own) for still, own in zip(stills, landmarks, strict=True)]
        with self._timing("network"):
            outputs = list(self._on_arrays(np.stack([work.crops[0].image for work in works])))
        with self._timing("finish"):
            return [self._composed(work, output) for work, output in zip(works, outputs, strict=True)]

    def _cropped(self, still: Still, landmarks: np.ndarray) -> FrameWork:
        frame = still.frame(0)
        face = Face(0, np.zeros(4, np.float32), landmarks.astype(np.float32), 1.0, False, 1.0)
        stage = self._whole if self._aligned else self._crop
        (work,) = stage.process(FrameWork(frame, () if self._aligned else (face,)))
        return work

    def _composed(self, work: FrameWork, output: np.ndarray) -> npt.NDArray[np.uint8]:
        restored: npt.NDArray[np.float32] = np.clip(output, 0, 1)
        patch = Patch(work.crops[0], restored - work.crops[0].image)
        list(self._compose.process(FrameWork(work.frame, work.faces, work.crops, (patch,))))
        return np.rint(restored * 255).astype(np.uint8)

    def _on_arrays(self, crops: np.ndarray) -> np.ndarray:
        """Restore f32[N,S,S,3] in 0..1."""
        if isinstance(self._network, PublishedSide):
            return _array(self._network(_tensor(crops)))
        return self._network(crops)

    # --- crops for comparison ----------------------------------------------------------------

    def _unrestored(self, picture: RecipePicture) -> npt.NDArray[np.uint8]:
        """The crop of the damaged picture itself, RGB u8[S,S,3]."""
        to_picture = geometry.similarity(self._template, picture.landmarks)
        crop = cut(read_image(picture.path).frame(0), to_picture, self._model.size)
        assert crop is not None  # the face lies in the picture
        levels: npt.NDArray[np.float32] = crop * 255
        return np.rint(levels).astype(np.uint8)

    def _save_crop(
        self, index: int, picture: RecipePicture, rgb: np.ndarray, landmarks: np.ndarray | None
    ) -> None:
        """Write the crop RGB u8[S,S,3], warped to the true crop, so that all rows show the same pixels."""
        if self._setup.detector == "haar" and landmarks is not None:
            to_own = geometry.invert(geometry.similarity(self._template, landmarks))
            true = geometry.similarity(self._template, picture.landmarks)
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
    """The recipe's detector: RetinaFace-ResNet50 at every scale of PYRAMID."""
    settings = Detect(detector="retinaface", weights=weights, pyramid=PYRAMID, max_side=8192)
    return FaceFinder(settings, threads)


def _tensor(crops: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(crops).permute(0, 3, 1, 2).contiguous() * 2 - 1


def _array(output: torch.Tensor) -> np.ndarray:
    return (output.permute(0, 2, 3, 1) * 0.5 + 0.5).contiguous().numpy()
