"""The time that the shared restorer adds: it and an engine in this process restore the same crops in turn.

python tests/bench/bench_shared.py [--rounds 200] [--model gpen-lite-256] [--threads N]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from stream.config import Restore
from stream.models import registry
from stream.models.engines import create_engine
from stream.models.info import read_model_info
from stream.pipeline.processes import ChildProcess
from stream.server.restorer_service.protocol import RestorerAddress
from stream.server.restorer_service.remote_engine import RemoteEngine
from stream.server.restorer_service.service import run_restorer


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="gpen-lite-256")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    path = registry.resolve(options.model)
    model, settings = read_model_info(path), Restore(engine="openvino", precision="fp32")
    own = create_engine("openvino", path, threads=options.threads, precision="fp32", info=model)
    with tempfile.TemporaryDirectory() as folder:
        address = RestorerAddress(Path(folder))
        process = ChildProcess("restorer", run_restorer, address, options.threads)
        while not os.path.exists(address.socket):
            time.sleep(0.01)
        shared = RemoteEngine(address, "bench", model, path, settings, timeout_s=60.0)
        for count in (1, 4):
            measure(count, options.rounds // count, own, shared)
        shared.close()
        process.link.close()
        process.join(60)


def measure(count: int, rounds: int, own, shared) -> None:
    """Time calls with `count` crops. The order of the sides alternates from round to round."""
    crops = np.random.default_rng(0).random((count, *(own.model.in_size,) * 2, 3), np.float32)
    times: dict[str, list[float]] = {"own": [], "shared": []}
    for i in range(rounds + 2):
        pair = [("own", own), ("shared", shared)]
        for name, engine in pair[:: 1 if i % 2 else -1]:
            began = time.perf_counter()
            restored = engine.restore(crops)
            duration_ms = 1e3 * (time.perf_counter() - began)
            assert np.isfinite(restored).all()
            if i >= 2:
                times[name].append(duration_ms)
    for figure in (np.median, np.min):
        a, b = figure(times["own"]), figure(times["shared"])
        print(f"{count} crops, {figure.__name__}: own {a:.2f} ms, shared {b:.2f} ms, ratio {b / a:.3f}")


if __name__ == "__main__":
    main()
