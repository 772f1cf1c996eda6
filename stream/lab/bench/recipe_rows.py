"""`bench recipe`: the acceleration recipe row by row, with each step added to the earlier ones and alone.

The baseline is an unmodified script: RetinaFace-ResNet50 at scales 0.5, 1.0 and 1.5 of every picture, and
the published network in eager FP32, one picture at a time under `no_grad`. Pictures are prepared and
pasted as in `naive.py`. RetinaFace's weights are random, which takes the same time, so the true landmarks
are used. Pictures are 640x480 with one face, in the recipe's three kinds: old scan, night shot and
compressed. Every row has its own process. In each round, every row restores the first few pictures in
turn. Times are those of one picture from the file's bytes to the finished picture in memory; starting a
program and loading its weights does not count on either side.

Quality compares the restored crops with the baseline's over all pictures of a kind, and with the
undamaged portrait. Rows that start from an aligned file see a crop that was resampled once more.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from stream.lab.bench import machine, naive
from stream.lab.bench.bench_models import random_retinaface, shown_name, weights_file
from stream.lab.bench.material import DAMAGE, faces, placed
from stream.lab.bench.measured_network import half_name
from stream.lab.bench.recipe_job import STEPS, RecipeFacts, RecipeJob, RecipePicture, RecipeSetup
from stream.lab.bench.report import BenchReport, Option, Row, Table
from stream.lab.bench.worker import BenchError, JobRun, Workers
from stream.lab.quality.fidelity import psnr, ssim
from stream.models.engines import cuda_usable
from stream.models.info import ModelInfo, read_model_info
from stream.picture import geometry

ALIGNED = 512
"""Side of the aligned files in px, as in the recipe."""
TIMED = 4
"""Number of pictures in a round: one batch."""
PREPARE_TARGET = 3.8

Timed: TypeAlias = dict[str, list[JobRun[RecipeFacts]]]
"""The runs of each row, one for each round."""

BASELINE = RecipeSetup()
_ALIGNED = replace(BASELINE, detector="aligned")
_COMPILED = replace(_ALIGNED, engine="torch-compile")


def rows(cuda: bool) -> tuple[dict[str, RecipeSetup], dict[str, RecipeSetup]]:
    """Setups by the name of their row: the steps on top of each other, and each switch alone.

    Later rows build on the network compiled by OpenVINO on a CPU, and by torch with CUDA.
    """
    best = _COMPILED if cuda else replace(_ALIGNED, engine="openvino")
    ours = replace(best, product=True)
    half = replace(ours, precision="half")
    steps = {"0 baseline": BASELINE, "1 aligned": _ALIGNED, "2 compile: torch.compile": _COMPILED}
    if not cuda:
        steps["2 compile: OpenVINO"] = best
    steps |= {
        "3 preprocessing": ours,
        f"4 half precision ({half_name()})": half,
        "batch of 4": replace(ours, batch=4),
        "fidelity 0.7": replace(ours, fidelity=0.7),
    }
    alone = {
        "aligned": _ALIGNED,
        "rough crop by Haar": replace(BASELINE, detector="haar"),
        "torch.compile": replace(BASELINE, engine="torch-compile"),
        "OpenVINO": replace(BASELINE, engine="openvino"),
        "preprocessing": replace(BASELINE, product=True),
        f"half precision ({half_name()})": replace(BASELINE, precision="half"),
        "batch of 4": replace(BASELINE, batch=4),
        "inference_mode": replace(BASELINE, inference_mode=True),
    }
    return steps, alone


def run(
    model: str, portraits: int, height: int, only: list[str], rounds: int, threads: int, folder: Path
) -> BenchReport:
    """Measure all rows, or those whose names begin with a text in `only`. The baseline always runs."""
    path = weights_file(model, folder)
    info = read_model_info(path)
    pictures, clean = make_pictures(folder, portraits, height, info)
    steps, alone = (_chosen(part, only) for part in rows(cuda_usable()))
    steps = {"0 baseline": BASELINE} | steps
    setups = steps | {f"alone: {name}": setup for name, setup in alone.items()}
    if len(setups) == 1 and only:
        raise BenchError(f"--only {' '.join(only)}: no such row; see the table's first column")
    job = partial(
        RecipeJob, model=path, pictures=pictures, timed=min(TIMED, len(pictures)), threads=threads,
        retinaface=random_retinaface(folder),
    )  # fmt: skip
    out = {name: folder / f"row-{i:02}" for i, name in enumerate(setups)}
    jobs = {name: partial(job, setup=setup, out=out[name]) for name, setup in setups.items()}
    with Workers(jobs) as workers:
        timed = workers.interleaved(rounds)
    kinds = [picture.kind for picture in pictures]
    crops = {name: _crops(out[name], len(pictures)) for name in timed}
    tables = [
        _times("steps", f"Each row on top of the last: {shown_name(model)}", list(steps), timed, workers),
        _times("alone", "Each switch alone, against the baseline", list(alone), timed, workers, "alone: "),
        _quality(crops, kinds, clean),
    ]
    tables[0].notes.extend(_remarks(timed))
    options: dict[str, Option] = {
        "model": model, "portraits": portraits, "height": height, "rounds": rounds, "only": only
    }  # fmt: skip
    return BenchReport("recipe", machine.machine(threads), options, workers.others, tables)


def _chosen(setups: dict[str, RecipeSetup], only: list[str]) -> dict[str, RecipeSetup]:
    return {n: s for n, s in setups.items() if not only or any(n.startswith(o) for o in only)}


def make_pictures(
    folder: Path, portraits: int, height: int, info: ModelInfo
) -> tuple[list[RecipePicture], list[np.ndarray]]:
    """Write damaged pictures and their aligned crops as PNG; returns them with the clean crops, RGB u8.

    The kinds of damage alternate, so that the first few pictures contain all of them.
    """
    pictures: list[RecipePicture] = []
    clean: list[np.ndarray] = []
    for i, face in enumerate(faces()[:portraits]):
        portrait = placed(face, (round(height * 4 / 3), height))
        to_crop = geometry.similarity(geometry.template(info.template, info.size), portrait.landmarks)
        original = _warped(portrait.rgb, to_crop, info.size)
        to_file = geometry.similarity(geometry.template(info.template, ALIGNED), portrait.landmarks)
        for j, (kind, damage) in enumerate(DAMAGE.items()):
            rgb = damage(portrait.rgb, np.random.default_rng(100 * i + j))
            path = folder / f"{len(pictures):03}.png"
            aligned = path.with_name(f"aligned-{path.name}")
            cv2.imwrite(str(path), np.ascontiguousarray(rgb[..., ::-1]))
            cv2.imwrite(str(aligned), np.ascontiguousarray(_warped(rgb, to_file, ALIGNED)[..., ::-1]))
            pictures.append(RecipePicture(kind, path, aligned, portrait.landmarks))
            clean.append(original)
    return pictures, clean


def _warped(rgb: np.ndarray, to_picture: np.ndarray, size: int) -> npt.NDArray[np.uint8]:
    values, side = rgb.astype(np.float32), (size, size)
    image: npt.NDArray[np.float32] = geometry.warp(values, to_picture, side, cv2.BORDER_REFLECT_101)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _crops(folder: Path, count: int) -> list[np.ndarray]:
    """The saved crops of all pictures, RGB u8[S,S,3]."""
    return [naive.read(folder / f"{i:03}.png")[..., ::-1] for i in range(count)]


# --- tables -----------------------------------------------------------------------------------

_COLUMNS = {
    "row": "row",
    "ms": "one picture, ms",
    "before": "times faster than the row before",
    "base": "times faster than the baseline",
    "detect": "detection, ms",
    "read": "reading, ms",
    "prepare": "preparing, ms",
    "network": "network, ms",
    "finish": "finishing, ms",
    "peak_mb": "peak memory, MiB",
    "note": "note",
}


def _times(
    name: str, title: str, names: list[str], timed: Timed, workers: Workers[RecipeFacts], prefix: str = ""
) -> Table:
    base = _seconds(timed["0 baseline"])
    before: list[float] | None = None
    result: list[Row] = []
    for shown in names:
        key = prefix + shown
        if key in workers.missing:
            result.append({"row": shown, "note": f"not available here: {workers.missing[key]}"})
            continue
        runs = timed[key]
        seconds = _seconds(runs)
        row: Row = {"row": shown, "ms": float(np.median(seconds)) * 1e3, "base": machine.ratio(base, seconds)}
        if before is not None:
            row["before"] = machine.ratio(before, seconds)
        row |= {step: float(np.median(_step_ms(runs, step))) for step in STEPS}
        row |= {"peak_mb": max(run.peak_mb for run in runs), "note": ""}
        first = workers.first[key].facts
        if first.missed:
            row["note"] = f"found no face in {first.missed} of {first.pictures} pictures"
        result.append(row)
        before = seconds
    columns = {key: heading for key, heading in _COLUMNS.items() if key != "before" or not prefix}
    return Table(name, title, columns, result, chart="ms")


def _seconds(runs: list[JobRun[RecipeFacts]]) -> list[float]:
    """Time of one picture in each round, s."""
    return [sum(run.facts.ms.values()) / 1e3 for run in runs]


def _step_ms(runs: list[JobRun[RecipeFacts]], step: str) -> list[float]:
    """Time of a step for one picture in each round, ms."""
    return [run.facts.ms[step] for run in runs]


def _quality(crops: dict[str, list[np.ndarray]], kinds: list[str], clean: list[np.ndarray]) -> Table:
    base = crops["0 baseline"]
    columns = {"row": "row"}
    for kind in DAMAGE:
        columns |= {
            f"psnr {kind}": f"{kind}: PSNR, dB",
            f"ssim {kind}": "SSIM",
            f"clean {kind}": "to clean, dB",
        }
    result = []
    for name, own in crops.items():
        row: Row = {"row": name}
        for kind in DAMAGE:
            places = [i for i, k in enumerate(kinds) if k == kind]
            row[f"psnr {kind}"] = float(np.mean([psnr(own[i], base[i]) for i in places]))
            row[f"ssim {kind}"] = float(np.mean([ssim(own[i], base[i]) for i in places]))
            row[f"clean {kind}"] = float(np.mean([psnr(own[i], clean[i]) for i in places]))
        result.append(row)
    return Table(
        "quality", "Restored crops against the baseline's, and against the clean portrait", columns, result
    )


def _remarks(timed: Timed) -> list[str]:
    """Notes that explain the table."""
    notes = []
    ours, before = timed.get("3 preprocessing"), timed.get("2 compile: OpenVINO", timed.get("1 aligned"))
    if ours and before:
        gain = machine.ratio(_step_ms(before, "prepare"), _step_ms(ours, "prepare"))
        notes.append(
            f"Preparing an aligned picture is {gain:.2g} times faster than the naive script's (aim "
            f"{PREPARE_TARGET}), reading its file left out. Finishing costs the product more there: it keeps "
            f"the file's own {ALIGNED} px, the script the network's size."
        )
    batch, single = timed.get("batch of 4"), timed.get("3 preprocessing")
    if batch and single:
        gain = machine.ratio(_step_ms(single, "network"), _step_ms(batch, "network"))
        notes.append(f"A batch of 4 runs the network {gain:.2f} times as fast as single pictures.")
        if not cuda_usable():
            notes.append(
                "On a CPU one crop keeps all cores busy already (`bench engines` tells how busy): there is "
                "no idle arithmetic for a batch to fill, as there is on a GPU."
            )
    if "alone: inference_mode" in timed:
        notes.append(
            "inference_mode concerns torch alone; neither it nor no_grad keeps a graph, so on a CPU it saves "
            "bookkeeping only."
        )
    if "fidelity 0.7" in timed:
        notes.append("The rows batch and fidelity stand on row 3.")
    return notes
