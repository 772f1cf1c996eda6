"""Measures the time that each stage needs, in bounded memory, and facts about the process."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

_SAMPLE_SIZE = 4096


class Meter:
    """Times of one stage's calls: totals, and a uniform sample of at most 4096 calls."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = 0
        self.busy_s = 0.0
        self.cpu_s = 0.0
        self.first_at: float | None = None
        """`time.monotonic()` at the end of the first call."""
        self._sample_ms: list[float] = []
        self._random = random.Random(0)

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Measure the body: wall time, and CPU time of this thread."""
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - wall
            self.busy_s += elapsed
            self.cpu_s += time.thread_time() - cpu
            self.calls += 1
            if self.first_at is None:
                self.first_at = time.monotonic()
            if len(self._sample_ms) < _SAMPLE_SIZE:
                self._sample_ms.append(elapsed * 1e3)
            elif (index := self._random.randrange(self.calls)) < _SAMPLE_SIZE:  # reservoir sampling
                self._sample_ms[index] = elapsed * 1e3

    def summary(self) -> dict[str, float]:
        """Median and 95th percentile of a call in ms, number of calls, and totals in s."""
        sample = self._sample_ms or [0.0]
        return {
            "median": round(float(np.median(sample)), 3),
            "p95": round(float(np.percentile(sample, 95)), 3),
            "calls": self.calls,
            "busy_s": round(self.busy_s, 3),
            "cpu_s": round(self.cpu_s, 3),
        }


_LOADED_AT = time.monotonic()


def process_age_s() -> float:
    """Seconds since this process began, or since this module was loaded where the system does not tell."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return time.monotonic() - _LOADED_AT


def peak_rss_mb() -> float:
    """Largest resident set of this process so far, MiB; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024**2 if sys.platform == "darwin" else 1024), 1)
