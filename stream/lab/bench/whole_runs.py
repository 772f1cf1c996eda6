"""Parts of `bench pipeline` about the program as a whole: overlap, memory, the first frame.

Overlap: the wall time of a run on the portrait sample, divided by the larger of its slowest stage's time
and all CPU seconds over the number of cores, from the same run's report. Memory: the peak resident set on
the sample repeated to 400 and to 2,000 frames. Start: the time from starting Python to the first restored
frame, with the converted network in the cache.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path

import av
import numpy as np

from stream.lab.bench.machine import OtherLoad
from stream.lab.bench.material import samples
from stream.lab.bench.product_job import ProductJob
from stream.lab.bench.report import Row, Table
from stream.lab.bench.worker import BenchError, Workers, own_python

LENGTHS = 400, 2000
"""Lengths of the clips, in frames."""
START_TARGET_S = 2.0
_FIRST_FRAME = """
import os, sys, stream
for work in stream.restored_frames(sys.argv[1], stream.load_config("fast")):
    print("torch" in sys.modules, flush=True)
    os._exit(0)
"""


def overlap(rounds: int, threads: int, folder: Path) -> tuple[Table, float | None]:
    """How well the stages run in parallel."""
    with Workers({"run": _job(samples() / "portrait.mp4", threads, folder)}) as workers:
        runs = [run.facts for run in workers.interleaved(rounds)["run"]]
    rows: list[Row] = []
    ratios = []
    for number, run in enumerate(runs, 1):
        slowest, stage = max(run.stages.items(), key=lambda item: item[1].busy_s)
        busy, cpu = stage.busy_s, run.cpu_s / run.cores
        ratios.append(run.wall_s / max(busy, cpu))
        rows.append(
            {"round": number, "ratio": ratios[-1], "wall": run.wall_s, "slowest": slowest, "busy": busy,
             "cpu": cpu, "fps": run.frames / run.wall_s}
        )  # fmt: skip
    columns = {
        "round": "round", "ratio": "wall over the ideal", "wall": "wall, s", "slowest": "slowest stage",
        "busy": "its busy time, s", "cpu": "CPU over cores, s", "fps": "fps",
    }  # fmt: skip
    notes = [f"Median: {np.median(ratios):.2f} times the ideal."]
    return Table(
        "overlap", "samples/portrait.mp4, default preset", columns, rows, notes=notes
    ), workers.others


def memory(_rounds: int, threads: int, folder: Path) -> tuple[Table, float | None]:
    """Peak memory by the number of frames. The load by other processes does not affect it."""
    peaks = []
    for frames in LENGTHS:
        clip = repeated(frames, folder / f"{frames}.mp4")
        with Workers({"run": _job(clip, threads, folder)}) as workers:
            peaks.append(workers.first["run"].peak_mb)
    rows: list[Row] = [
        {"frames": frames, "peak_mb": peak, "ratio": peak / peaks[0]}
        for frames, peak in zip(LENGTHS, peaks, strict=True)
    ]
    columns = {"frames": "frames of 640x480", "peak_mb": "peak memory, MiB", "ratio": "of the first"}
    return Table("memory", "Memory does not grow with the video", columns, rows), None


def start(rounds: int, _threads: int, _folder: Path) -> tuple[Table, float | None]:
    """Seconds to the first frame with a warm cache. One earlier run fills the cache."""
    clip = samples() / "portrait.mp4"
    _first_frame_s(clip)
    with OtherLoad(_children_s) as others:
        results = [_first_frame_s(clip) for _ in range(rounds)]
    row: Row = {
        "what": "first frame of samples/portrait.mp4, preset fast",
        "s": float(np.median([s for s, _ in results])),
        "target": START_TARGET_S,
        "torch": any(torch for _, torch in results),
    }
    columns = {"what": "", "s": "s", "target": "aim, below", "torch": "torch was imported"}
    return Table("start", "Warm start", columns, [row]), others.share


def _children_s() -> float:
    """CPU seconds of child processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def _first_frame_s(clip: Path) -> tuple[float, bool]:
    command, environment = own_python("-c", _FIRST_FRAME, str(clip))
    began = time.monotonic()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None  # stdout is a pipe
        line = child.stdout.readline().strip()
        spent = time.monotonic() - began
    if not line:
        raise BenchError(f"{clip}: no first frame came; try gpen-stream restore on it")
    return spent, line == "True"


def repeated(frames: int, path: Path) -> Path:
    """Write the portrait sample, repeated until it has `frames` frames, as one H.264 file; its path."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "28"})
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        for index, picture in enumerate(islice(_endless_portrait(), frames)):
            picture.pts, picture.time_base, picture.pict_type = index, Fraction(1, 25), 0
            out.mux(stream.encode(picture))
        out.mux(stream.encode())
    return path


def _endless_portrait() -> Iterator[av.VideoFrame]:
    """The frames of the portrait sample, again and again."""
    while True:
        with av.open(str(samples() / "portrait.mp4")) as source:
            yield from source.decode(video=0)


def _job(clip: Path, threads: int, folder: Path) -> Callable[[], ProductJob]:
    out = str(folder / "whole.mp4")
    return partial(ProductJob, preset="default", overrides=[], clip=str(clip), out=out, threads=threads)
