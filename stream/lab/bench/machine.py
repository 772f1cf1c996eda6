"""The conditions of a measurement: version, machine, its speed, load by other processes, memory."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Self, TypedDict

import numpy as np

from stream import __version__
from stream.models.info import bundled_model_path, read_model_info
from stream.pipeline import meter

QUIET_SHARE = 0.05
"""Share of the machine's CPU time that other processes may take before a report warns."""
MATMUL_SIDE = 1024
"""Side of the matrices in `MatmulJob`."""
_PRODUCTS = 16
MATMUL_FLOP = _PRODUCTS * 2 * MATMUL_SIDE**3
"""Operations of one run of `MatmulJob`: several products, so that waking the threads does not count."""


def busy_s() -> float | None:
    """CPU seconds that all processes of the machine have used; None where the system is not Linux."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, _idle, _wait, *rest = (int(field) for field in fields)
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


class OtherLoad:
    """Context manager that measures the share of CPU time that other processes took, 0..1, in `share`.

    `own_s` returns the CPU seconds of the measurement's other processes. `share` is None if the system
    does not provide it. Ratios are unreliable if it exceeds a few hundredths: torch's threads wait for
    each other in busy loops. With a third busy process on two cores, the published network took 15 times
    as long and OpenVINO's twice as long.
    """

    share: float | None = None

    def __init__(self, own_s: Callable[[], float] = lambda: 0.0) -> None:
        self._own_s = own_s

    def __enter__(self) -> Self:
        self._start = time.monotonic(), time.process_time() + self._own_s(), busy_s()
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is not None:
            return
        wall, own, busy = self._start
        wall = time.monotonic() - wall
        own = time.process_time() + self._own_s() - own
        now = busy_s()
        if busy is not None and now is not None:
            self.share = round(max(0.0, now - busy - own) / (wall * (os.cpu_count() or 1)), 3)


def reset_peak() -> None:
    """Reset the peak of this process's memory on Linux; elsewhere it stays the peak since the start."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_mb() -> float:
    """Largest resident set of this process in MiB since its start or since `reset_peak`.

    `getrusage` would give the parent's value if that is larger, because it survives fork and exec.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return meter.peak_rss_mb()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024, 1)


class Machine(TypedDict):
    """The machine and the software of a report."""

    cpu: str
    cores: int | None
    threads: int
    """Number of threads of each side."""
    gpu: str | None
    system: str
    python: str
    torch: str
    openvino: str
    gpen_stream: str
    date: str


def machine(threads: int) -> Machine:
    """The machine and the software of this process; `threads` is the number for each side."""
    import torch

    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": version("torch"),
        "openvino": version("openvino"),
        "gpen_stream": __version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def measured_commit() -> str | None:
    """Full hash of the measured commit; None if the package does not run from a clone.

    "+changes" is appended if files that the figures depend on differ from that commit.
    """
    clone = Path(__file__).parents[3]
    if not (clone / ".git").exists():
        return None
    try:
        head = _git(clone, "rev-parse", "HEAD")
        changes = _git(clone, "status", "--porcelain", "--", "stream", "config", "samples")
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}+changes" if changes else head


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def bundled_weights_sha256() -> str:
    """SHA-256 of the bundled model's weights file, hexadecimal."""
    return read_model_info(bundled_model_path()).sha256


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """How many times longer `slow` took than `fast`: the median of the ratios of each round.

    If one side ran fewer rounds, it is the ratio of the medians.
    """
    if len(slow) == len(fast):
        return float(np.median(np.divide(slow, fast)))
    return float(np.median(slow) / np.median(fast))


class MatmulJob:
    """FP32 products of two matrices, which show the machine's speed at that moment."""

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._left, self._right, self._result = torch.rand(3, MATMUL_SIDE, MATMUL_SIDE)
        self._multiply = torch.mm

    def run(self) -> None:
        """Multiply matrices of MATMUL_SIDE x MATMUL_SIDE."""
        for _ in range(_PRODUCTS):
            self._multiply(self._left, self._right, out=self._result)
