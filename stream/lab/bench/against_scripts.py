"""`bench pipeline`: whole videos, 1280x720 with one face, against the two baselines of `baseline.py`.

Times are those of whole runs, from opening the clip to the finished file. They include loading the
networks and the encoder's trial, but not Python's start and imports. x264 runs with the same settings on
all sides: veryfast, with the crf that the product's trial chooses. "every frame" is the preset `default`
with that encoder in the precision that the product chooses, "interval 3" is the same with
`restore.interval` 3, and "fast" is the preset of that name. The recipe's baseline runs once, on the clip's
first frames and without a warm-up run, because each of its frames takes seconds.

Quality is the PSNR of luma to the clean picture inside the face's mask. It is measured for the bundled
model only, since random weights restore nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from stream.lab.bench import machine, whole_runs
from stream.lab.bench.baseline import BaselineFacts, BaselineJob
from stream.lab.bench.bench_models import OFFICIAL, random_retinaface, shown_name, weights_file
from stream.lab.bench.moving_clip import Clip, face_psnr, make_clip
from stream.lab.bench.product_job import ProductFacts, ProductJob
from stream.lab.bench.report import BenchReport, Option, Row, Table
from stream.lab.bench.worker import SideJob, Workers
from stream.models.info import BUNDLED_MODEL

MODELS = ("GPEN-BFR-256", BUNDLED_MODEL)
PARTS = ("speed", "stages", "overlap", "memory", "start")
SAME_ENCODER = "encode.effort=low"
PRODUCT_SIDES = {
    "every frame, FP32": ("default", [SAME_ENCODER, "restore.precision=fp32"]),
    "every frame": ("default", [SAME_ENCODER]),
    "interval 3": ("default", [SAME_ENCODER, "restore.interval=3"]),
    "fast": ("fast", []),
}
"""Preset and settings of the product by the name of the side."""
AIMS = {
    ("GPEN-BFR-256", "every frame"): "3.3x the fair one",
    ("GPEN-BFR-256", "fast"): "8x the fair one",
    ("GPEN-BFR-256", "interval 3"): "1.8x every frame",
    (BUNDLED_MODEL, "fast"): "25 fps",
}
"""Targets by model and side, as the table shows them."""


def run(
    models: list[str], parts: list[str], seconds: float, recipe_frames: int, rounds: int, threads: int,
    folder: Path,
) -> BenchReport:  # fmt: skip
    """Measure the given parts, or all if none is given."""
    parts = parts or list(PARTS)
    tables, loads = [], []
    if "speed" in parts:
        clip = make_clip(folder, seconds)
        rows = []
        for name in models or MODELS:
            found, load = _speed(name, clip, recipe_frames, rounds, threads, folder)
            rows += found
            loads.append(load)
        tables.append(_speed_table(rows, clip))
    if "stages" in parts:
        table, load = _stages(make_clip(folder, seconds, face=False), rounds, threads, folder)
        tables.append(table)
        loads.append(load)
    whole_run_parts = {"overlap": whole_runs.overlap, "memory": whole_runs.memory, "start": whole_runs.start}
    for part, measured in whole_run_parts.items():
        if part in parts:
            table, load = measured(rounds, threads, folder)
            tables.append(table)
            loads.append(load)
    known = [load for load in loads if load is not None]
    options: dict[str, Option] = {
        "seconds": seconds, "recipe_frames": recipe_frames, "rounds": rounds, "parts": parts
    }  # fmt: skip
    return BenchReport("pipeline", machine.machine(threads), options, max(known, default=None), tables)


def _speed(
    name: str, clip: Clip, recipe_frames: int, rounds: int, threads: int, folder: Path
) -> tuple[list[Row], float | None]:
    path = weights_file(name, folder)
    sides = ["fair baseline", "recipe's baseline", *PRODUCT_SIDES]
    out = {side: folder / f"out-{i}.mp4" for i, side in enumerate(sides)}
    jobs: dict[str, Callable[[], SideJob[ProductFacts | BaselineFacts]]] = {}
    for side in sides:
        if side in PRODUCT_SIDES:
            preset, overrides = PRODUCT_SIDES[side]
            jobs[side] = partial(
                ProductJob, preset=preset, overrides=[*overrides, f"restore.model={path}"],
                clip=str(clip.path), out=str(out[side]), threads=threads,
            )  # fmt: skip
        else:
            recipe = side != "fair baseline"
            jobs[side] = partial(
                BaselineJob, kind="recipe" if recipe else "fair", model=str(path), clip=str(clip.path),
                out=str(out[side]), landmarks=clip.landmarks, threads=threads,
                retinaface=str(random_retinaface(folder)), frames=recipe_frames if recipe else 0,
            )  # fmt: skip
    with Workers(jobs) as workers:
        timed = workers.interleaved(rounds, {"recipe's baseline": 0})
    timed["recipe's baseline"] = [workers.first["recipe's baseline"]]
    spent = {side: [run.seconds / run.facts.frames for run in runs] for side, runs in timed.items()}
    rows = []
    for side in sides:
        row: Row = {"side": side, "model": shown_name(name), "aim": AIMS.get((name, side))}
        rows.append(row)
        if side in workers.missing:
            row["note"] = f"not available here: {workers.missing[side]}"
            continue
        own, facts = spent[side], timed[side][0].facts
        row |= {
            "fps": 1 / float(np.median(own)),
            "fair": machine.ratio(spent["fair baseline"], own),
            "recipe": machine.ratio(spent["recipe's baseline"], own),
            "every": machine.ratio(spent["every frame"], own) if side in PRODUCT_SIDES else None,
            "frames": facts.frames,
            "peak_mb": max(run.peak_mb for run in timed[side]),
            "restored": facts.faces_restored if isinstance(facts, ProductFacts) else None,
        }
        if name not in OFFICIAL and facts.frames == clip.frames:
            row |= {
                "psnr": face_psnr(clip, out[side]),
                "rigid": face_psnr(clip, out[side], clip.rigid),
                "non_rigid": face_psnr(clip, out[side], clip.non_rigid),
            }
    return rows, workers.others


def _speed_table(rows: list[Row], clip: Clip) -> Table:
    columns = {
        "model": "model", "side": "side", "fps": "fps", "fair": "times the fair baseline",
        "recipe": "times the recipe's", "every": "times every frame", "aim": "aim",
        "psnr": "face to clean, dB", "rigid": "rigid part, dB", "non_rigid": "non-rigid part, dB",
        "frames": "frames", "restored": "network's calls", "peak_mb": "peak memory, MiB", "note": "note",
    }  # fmt: skip
    given = [face_psnr(clip, clip.path, part) for part in (None, clip.rigid, clip.non_rigid)]
    notes = ["The clip as given keeps {:.2f} dB ({:.2f} rigid, {:.2f} non-rigid).".format(*given)]
    return Table("speed", "1280x720, one face", columns, rows, "fps", notes)


def _stages(clip: Clip, rounds: int, threads: int, folder: Path) -> tuple[Table, float | None]:
    """Time of a frame without a face in each stage."""
    make = partial(
        ProductJob, preset="default", overrides=[SAME_ENCODER], clip=str(clip.path),
        out=str(folder / "empty-out.mp4"), threads=threads,
    )  # fmt: skip
    with Workers({"product": make}) as workers:
        runs = [run.facts for run in workers.interleaved(rounds)["product"]]
    rows: list[Row] = []
    for stage in runs[0].stages:
        wall = float(np.median([run.stages[stage].busy_s / run.frames * 1e3 for run in runs]))
        cpu = float(np.median([run.stages[stage].cpu_s / run.frames * 1e3 for run in runs]))
        rows.append({"stage": stage, "wall": wall, "cpu": cpu})
    cpu = float(np.median([run.cpu_s / run.frames * 1e3 for run in runs]))
    wall = float(np.median([run.wall_s / run.frames * 1e3 for run in runs]))
    rows.append({"stage": "whole run", "wall": wall, "cpu": cpu})
    columns = {"stage": "stage", "wall": "ms a frame, by the clock", "cpu": "of its own thread's CPU, ms"}
    notes = [
        "Decoder, detector and encoder have threads of their own beside their stage's: the whole run's CPU "
        f"is all of them. The detector looked at {runs[0].detections_run} of {runs[0].frames} frames; "
        f"{runs[0].faces_restored} faces were restored. Nothing but decoding, the thumbnail, detection "
        "and encoding may cost more than 1 ms."
    ]
    return Table("stages", "A frame without a face, 1280x720", columns, rows, "wall", notes), workers.others
