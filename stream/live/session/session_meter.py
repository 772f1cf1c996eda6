"""Measures the rates, the load and the cost of a running session."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stream.pipeline.meter import Meter, peak_rss_mb

_AVERAGED_S = 4
"""Length of time over which rates are averaged."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """Totals since the session began, at one time."""

    at_s: float
    cpu_s: float
    frames_in: int
    frames_out: int


class SessionMeter:
    """Takes a reading about once a second, by `update`; the rest may be read from any thread."""

    def __init__(self) -> None:
        self.load = 0.0
        """Share of the last second in which the busiest stage was busy, 0..1."""
        self.stage_s: dict[str, float] = {}
        """Seconds that each stage needed for a frame lately."""
        self.cpu_cores = 0.0
        """Cores' worth of CPU time that this process uses."""
        self._began_at_s = time.monotonic()
        self._readings: deque[_Reading] = deque(maxlen=_AVERAGED_S + 1)
        self._busy_s: dict[str, float] = {}
        self._meters: Mapping[str, Meter] = {}

    def begin(self) -> None:
        """Count the uptime from now on."""
        self._began_at_s = time.monotonic()

    @property
    def uptime_s(self) -> float:
        """Seconds since `begin`."""
        return round(time.monotonic() - self._began_at_s, 1)

    @property
    def fps_in(self) -> float:
        """Frames a second from the source."""
        return self._rate([(reading.at_s, reading.frames_in) for reading in list(self._readings)])

    @property
    def fps_out(self) -> float:
        """Frames a second to the sinks."""
        return self._rate([(reading.at_s, reading.frames_out) for reading in list(self._readings)])

    def update(self, meters: Mapping[str, Meter], frames_in: int, frames_out: int) -> None:
        """Take a reading of the stages' meters, by their names, and of the frames so far.

        Each pipeline has meters of its own: other ones than the last time begin at 0.
        """
        now = _Reading(time.monotonic(), time.process_time(), frames_in, frames_out)
        if meters is not self._meters:
            self._meters, self._busy_s, self.stage_s = meters, {}, {}
        busy_s = {name: meter.busy_s for name, meter in meters.items()}
        if self._readings:
            last = self._readings[-1]
            passed_s, frames = max(now.at_s - last.at_s, 1e-3), now.frames_out - last.frames_out
            spent_s = {name: total_s - self._busy_s.get(name, 0.0) for name, total_s in busy_s.items()}
            self.load = round(min(1.0, max(spent_s.values(), default=0.0) / passed_s), 3)
            if frames > 0:
                self.stage_s = {name: stage_s / frames for name, stage_s in spent_s.items()}
        self._busy_s = busy_s
        self._readings.append(now)
        first = self._readings[0]
        if now.at_s > first.at_s:
            self.cpu_cores = round((now.cpu_s - first.cpu_s) / (now.at_s - first.at_s), 3)

    @staticmethod
    def _rate(totals: list[tuple[float, int]]) -> float:
        """Frames a second between the first and the last of (time in s, frames so far)."""
        if len(totals) < 2:
            return 0.0
        (first_s, first), (last_s, last) = totals[0], totals[-1]
        return round((last - first) / max(last_s - first_s, 1e-3), 2)


def memory_mb() -> float:
    """Resident memory of this process, MiB: now, or its peak where the system does not give it."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return round(pages * os.sysconf("SC_PAGE_SIZE") / 1024**2, 1)
    except (OSError, ValueError, IndexError):
        return peak_rss_mb()
