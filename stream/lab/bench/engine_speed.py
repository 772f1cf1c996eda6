"""`bench engines`: how fast each engine restores one crop, and how well it uses the machine.

The baseline is the published formulation in eager PyTorch (`published.py`), in FP32, on one crop. Its
filters run plane by plane on a CPU; a second, stricter baseline uses a depthwise convolution instead. All
sides have the same number of threads and run in turn, each in its own process. An FP32 matrix product
also runs in turn and shows the machine's speed at that moment. "Use of the machine" is the published
network's arithmetic divided by the engine's time, relative to the speed of that product. It exceeds 1 if
an engine computes in less than FP32 or needs fewer operations. GPEN-BFR has random weights in the
published shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from stream.lab.bench import machine
from stream.lab.bench.bench_models import KNOWN, network_flop, shown_name, weights_file
from stream.lab.bench.measured_network import DEPTHWISE, PUBLISHED, PublishedSide, network
from stream.lab.bench.report import BenchReport, Option, Row, Table
from stream.lab.bench.worker import SideJob, Workers
from stream.lab.quality.fidelity import psnr
from stream.models.engines import ENGINE_KINDS, PRECISIONS
from stream.models.info import BUNDLED_MODEL, read_model_info

TARGETS = {BUNDLED_MODEL: 4.0, "GPEN-BFR-256": 2.8, "GPEN-BFR-512": 4.4}
"""Speed that an FP32 engine should reach, in multiples of the published formulation's."""
USE_TARGET = 0.8
_SLOW_GFLOP = 100
_SLOW_ROUNDS = 5
"""A network with more arithmetic than _SLOW_GFLOP runs at most this number of rounds."""


class EngineJob:
    """One engine on one crop. The first run saves its output to `out`."""

    def __init__(self, kind: str, precision: str, model: Path, threads: int, out: Path) -> None:
        side = network(kind, model, threads=threads, precision=precision)
        self._description = side.description
        px = side.model.in_size
        crop = np.random.default_rng(0).random((1, px, px, 3), np.float32)
        self._restored: Callable[[], torch.Tensor | np.ndarray] = (
            partial(side, torch.from_numpy(crop).permute(0, 3, 1, 2).contiguous() * 2 - 1)
            if isinstance(side, PublishedSide)
            else partial(side, crop)
        )
        self._out: Path | None = out

    def run(self) -> str:
        """Restore the crop; returns a description of the engine."""
        result = self._restored()
        if self._out is not None:
            if isinstance(result, torch.Tensor):
                result = (result.permute(0, 2, 3, 1) * 0.5 + 0.5).numpy()
            np.save(self._out, result)
            self._out = None
        return self._description


def run(
    models: list[str], kinds: list[str], precisions: list[str], rounds: int, threads: int, folder: Path
) -> BenchReport:
    """Measure all engines in all precisions, model by model; one table with a row for each."""
    rows, loads = [], []
    for name in models or KNOWN:
        path = weights_file(name, folder)
        found, load = _model_rows(
            name, path, kinds or [kind for kind in ENGINE_KINDS if kind != "auto"],
            precisions or [name for name in PRECISIONS if name != "auto"], rounds, threads, folder,
        )  # fmt: skip
        rows += found
        loads += [load] if load is not None else []
    columns = {
        "model": "model", "engine": "engine", "precision": "precision", "ms": "one crop, ms",
        "ratio": "times faster than published", "target": "aim", "strict": "than depthwise",
        "use": "use of the machine", "gflop": "GFLOP", "machine": "machine, GFLOP/s",
        "psnr": "to published, dB", "peak_mb": "peak memory, MiB", "note": "note",
    }  # fmt: skip
    notes = [
        f"Use of the machine: the network's arithmetic over the time, against FP32 products of "
        f"{machine.MATMUL_SIDE} x {machine.MATMUL_SIDE} matrices in the same rounds; aim {USE_TARGET}."
    ]
    table = Table("restorer", "One crop, against the published formulation", columns, rows, "ratio", notes)
    options: dict[str, Option] = {"models": models, "rounds": rounds}
    return BenchReport("engines", machine.machine(threads), options, max(loads, default=None), [table])


def _model_rows(
    name: str, path: Path, kinds: list[str], precisions: list[str], rounds: int, threads: int, folder: Path
) -> tuple[list[Row], float | None]:
    info = read_model_info(path)
    gflop = network_flop(info) / 1e9
    sides = [(PUBLISHED, "fp32"), (DEPTHWISE, "fp32")]
    sides += [(kind, precision) for kind in kinds for precision in precisions]
    keys = ["-".join(side) for side in sides]
    published, depthwise, *_ = keys
    out = {key: folder / f"{name.replace('/', '_')}-{key}.npy" for key in keys}
    jobs: dict[str, Callable[[], SideJob[str | None]]] = {
        key: partial(EngineJob, kind, precision, path, threads, out[key])
        for key, (kind, precision) in zip(keys, sides, strict=True)
    }
    jobs["matmul"] = partial(machine.MatmulJob, threads)
    with Workers(jobs) as workers:
        timed = workers.interleaved(min(rounds, _SLOW_ROUNDS) if gflop > _SLOW_GFLOP else rounds)
    seconds = {side: [run.seconds for run in runs] for side, runs in timed.items()}
    speeds = [machine.MATMUL_FLOP / 1e9 / s for s in seconds["matmul"]]
    expected = np.load(out[published])
    rows = []
    for side, (engine, precision) in zip(keys, sides, strict=True):
        row: Row = {"model": shown_name(name), "engine": engine, "precision": precision}
        rows.append(row)
        if side in workers.missing:
            row["note"] = f"not available here: {workers.missing[side]}"
            continue
        own = seconds[side]
        aimed = engine not in (PUBLISHED, DEPTHWISE) and precision == "fp32"
        row |= {
            "ms": float(np.median(own)) * 1e3,
            "ratio": machine.ratio(seconds[published], own),
            "target": TARGETS.get(name) if aimed else None,
            "strict": machine.ratio(seconds[depthwise], own),
            "use": float(np.median([gflop / s / speed for s, speed in zip(own, speeds, strict=True)])),
            "gflop": gflop,
            "machine": float(np.median(speeds)),
            "psnr": psnr(np.load(out[side]), expected, peak=1.0),
            "peak_mb": max(run.peak_mb for run in timed[side]),
            "note": workers.first[side].facts,
        }
    return rows, workers.others
