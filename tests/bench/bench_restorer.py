"""How much faster the OpenVINO engine restores one crop than the published formulation.

    python tests/bench/bench_restorer.py [--threads 2] [--rounds 15] [--model NAME ...] [--json]

Both sides run in this process, in turn, with the same number of threads; each round also times an
FP32 matrix product, which tells what the machine had to give at that moment. Medians are taken
over the rounds, the ratio's over the rounds' own ratios. The published side runs with both of its
filters (see published_gpen.py); the strict ratio is that of the depthwise one. GPEN-BFR weights
are random, in the official shapes.

"Other load" is the share of the machine that other processes took meanwhile. Trust no ratio where
it is above a few hundredths: torch's threads spin for one another, and with a third busy process
on two cores the published side was seen to take 15 times as long, the OpenVINO side twice.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np
import torch
from published_gpen import PublishedGPEN
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from stream.engines import create_engine
from stream.engines.openvino_engine import CACHE_VARIABLE
from stream.model import BUNDLED_MODEL, bundled_model_path
from stream.nets import GPEN, build_generator, load_generator

OFFICIAL = {
    "GPEN-BFR-256": {"size": 256, "channel_multiplier": 1, "narrow": 0.5},
    "GPEN-BFR-512": {"size": 512, "channel_multiplier": 2, "narrow": 1},
}
TARGETS = {BUNDLED_MODEL: 3.0, "GPEN-BFR-256": 2.5, "GPEN-BFR-512": 4.0}
MATMUL_SIDE = 1024
PAUSE_S = 0.05
"""Between measurements: one library's threads spin for a while after their work."""

QUIET_SHARE = 0.05
"""Of the machine's CPU time, what others may take before the figures are doubted."""


def random_weights(name: str, folder: Path, template: str = "random") -> Path:
    """A file with random weights of an official model's shapes."""
    facts = OFFICIAL[name]
    torch.manual_seed(0)
    net = GPEN(**facts)
    for layer in net.generator.modules():
        if hasattr(layer, "noise"):
            layer.noise.weight.data.uniform_(0.2, 1.0)
    metadata = {key: str(value) for key, value in facts.items()}
    path = folder / f"{name}.safetensors"
    save_file(net.state_dict(), path, metadata | {"arch": "FullGenerator", "template": template})
    return path


def seconds(run: Callable[[], object]) -> float:
    time.sleep(PAUSE_S)
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def busy_s() -> float | None:
    """CPU seconds that all processes of the machine have used, where the system tells (Linux)."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, _idle, _wait, *rest = (int(field) for field in fields)
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


class OtherLoad:
    """The share of the machine's CPU time that others took while the block ran, 0..1."""

    def __enter__(self) -> Self:
        self._start = time.monotonic(), time.process_time(), busy_s()
        return self

    def __exit__(self, *_: object) -> None:
        start, own, busy = self._start
        wall, own = time.monotonic() - start, time.process_time() - own
        now = busy_s()
        self.share = None
        if busy is not None and now is not None:
            self.share = round(max(0.0, now - busy - own) / (wall * (os.cpu_count() or 1)), 3)


def measure(name: str, path: Path, threads: int, rounds: int) -> dict[str, object]:
    """One model's row of the table."""
    engine = create_engine("openvino", path, threads=threads)
    net, info = load_generator(path)
    tensors = net.state_dict()
    published = PublishedGPEN(tensors, residual=info.residual)
    strict = PublishedGPEN(tensors, residual=info.residual, depthwise=True)
    crop = np.random.default_rng(0).random((1, info.size, info.size, 3), np.float32)
    x = torch.from_numpy(crop).permute(0, 3, 1, 2).contiguous() * 2 - 1
    left, right = torch.rand(2, MATMUL_SIDE, MATMUL_SIDE)
    runs: dict[str, Callable[[], object]] = {
        "published": lambda: published(x),
        "strict": lambda: strict(x),
        "openvino": lambda: engine.restore(crop),
        "matmul": lambda: left @ right,
    }
    expected = published(x) * 0.5 + 0.5
    difference = np.abs(expected.permute(0, 2, 3, 1).numpy() - engine.restore(crop)).max()
    times: dict[str, list[float]] = {key: [] for key in runs}
    for run in runs.values():
        run()
    with OtherLoad() as others:
        for i in range(rounds):
            order = list(runs) if i % 2 else list(runs)[::-1]
            for key in order:
                times[key].append(seconds(runs[key]))
    engine.close()
    flop_g = count_flop(info) / 1e9
    matmul_flop_g = 2 * MATMUL_SIDE**3 / 1e9
    array = {key: np.array(values) for key, values in times.items()}
    median = {key: float(np.median(values)) for key, values in array.items()}
    ratios = {key: array[key] / array["openvino"] for key in ("published", "strict")}
    quartiles = np.percentile(ratios["published"], [25, 75])
    return {
        "model": name,
        "threads": threads,
        "rounds": rounds,
        "published_ms": round(median["published"] * 1e3, 1),
        "openvino_ms": round(median["openvino"] * 1e3, 1),
        "ratio": round(float(np.median(ratios["published"])), 2),
        "ratio_quartiles": [round(float(q), 2) for q in quartiles],
        "strict_ms": round(median["strict"] * 1e3, 1),
        "strict_ratio": round(float(np.median(ratios["strict"])), 2),
        "target": TARGETS[name],
        "network_gflop": round(flop_g, 2),
        "matmul_gflop_per_s": round(matmul_flop_g / median["matmul"], 1),
        "published_matmuls": round(median["published"] / median["matmul"], 2),
        "openvino_matmuls": round(median["openvino"] / median["matmul"], 2),
        "network_matmuls": round(flop_g / matmul_flop_g, 2),
        "largest_difference": float(difference),
        "other_load": others.share,
    }


def count_flop(info) -> int:
    """Operations of one crop's convolutions and matrix products, two for each multiply-add."""
    net = build_generator(info)
    with FlopCounterMode(display=False) as counter:
        net(torch.empty(1, 3, info.in_size, info.in_size, device="meta"))
    return counter.get_total_flops()


def table(rows: list[dict[str, object]]) -> str:
    """The rows as Markdown."""
    columns = {
        "model": "model",
        "published_ms": "published, ms",
        "openvino_ms": "OpenVINO, ms",
        "ratio": "ratio",
        "ratio_quartiles": "quartiles",
        "strict_ms": "depthwise, ms",
        "strict_ratio": "strict ratio",
        "target": "target",
        "network_gflop": "GFLOP",
        "matmul_gflop_per_s": "machine, GFLOP/s",
        "published_matmuls": "published, matmuls",
        "openvino_matmuls": "OpenVINO, matmuls",
        "network_matmuls": "floor, matmuls",
        "other_load": "other load",
    }
    lines = ["| " + " | ".join(columns.values()) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(str(row[key]) for key in columns) + " |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    names = [BUNDLED_MODEL, *OFFICIAL]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--model", action="append", choices=names, help="default: all")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ[CACHE_VARIABLE] = folder
        for name in arguments.model or names:
            bundled = name == BUNDLED_MODEL
            path = bundled_model_path() if bundled else random_weights(name, Path(folder))
            rounds = arguments.rounds if OFFICIAL.get(name, {}).get("size", 0) < 512 else 5
            rows.append(measure(name, path, arguments.threads, rounds))
    if any((row["other_load"] or 0) > QUIET_SHARE for row in rows):
        print("The machine was not quiet: these ratios are not to be trusted.", file=sys.stderr)
    if arguments.json:
        machine = {"cpu": platform.processor() or platform.machine(), "load": os.getloadavg()}
        print(json.dumps({"machine": machine, "rows": rows}, indent=2))
    else:
        print(table(rows))
        print(
            f"\nOne matmul is an FP32 product of {MATMUL_SIDE} x {MATMUL_SIDE} matrices; the "
            "floor is the network's own operations at that speed."
        )


if __name__ == "__main__":
    main()
