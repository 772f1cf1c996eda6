"""What a running session measures of itself, second by second."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from stream.pipeline.meter import Meter, peak_rss_mb

_SMOOTHED_S = 4
"""Rates are told over so many seconds."""


class SessionMeter:
    """Rates, load and cost; `second` is called about once a second, the rest from any thread."""

    def __init__(self) -> None:
        self.load = 0.0
        """Part of the time for which the busiest stage is busy: at 1 nothing is left."""
        self.stage_s: dict[str, float] = {}
        """What each stage takes for a frame lately."""
        self.cpu_cores = 0.0
        """Cores' worth of CPU time that this process uses."""
        self._counts: deque[tuple[float, float, int, int]] = deque(maxlen=_SMOOTHED_S + 1)
        self._busy: dict[str, float] = {}
        self._meters: Mapping[str, Meter] = {}

    @property
    def fps_in(self) -> float:
        """Frames a second from the source."""
        return self._rate(2)

    @property
    def fps_out(self) -> float:
        """Frames a second to the sinks."""
        return self._rate(3)

    def second(self, meters: Mapping[str, Meter], frames_in: int, frames_out: int) -> None:
        """Take a reading. `meters` may be those of another pipeline than before."""
        now_s, cpu_s = time.monotonic(), time.process_time()
        if meters is not self._meters:
            self._meters, self._busy, self.stage_s = meters, {}, {}
        busy = {name: meter.busy_s for name, meter in meters.items()}
        if self._counts:
            last_s, _, _, last_out = self._counts[-1]
            passed_s, frames = max(now_s - last_s, 1e-3), frames_out - last_out
            spent = {name: spent_s - self._busy.get(name, 0.0) for name, spent_s in busy.items()}
            self.load = round(min(1.0, max(spent.values(), default=0.0) / passed_s), 3)
            if frames > 0:
                self.stage_s = {name: spent_s / frames for name, spent_s in spent.items()}
        self._busy = busy
        self._counts.append((now_s, cpu_s, frames_in, frames_out))
        first_s, first_cpu_s, _, _ = self._counts[0]
        if now_s > first_s:
            self.cpu_cores = round((cpu_s - first_cpu_s) / (now_s - first_s), 3)

    def _rate(self, column: int) -> float:
        counts = list(self._counts)
        if len(counts) < 2:
            return 0.0
        (first, *_), (last, *_) = counts[0], counts[-1]
        return round((counts[-1][column] - counts[0][column]) / max(last - first, 1e-3), 2)


def memory_mb() -> float:
    """Resident memory of this process now, MiB; where the system does not tell, the most it ever was."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return round(pages * os.sysconf("SC_PAGE_SIZE") / 1024**2, 1)
    except (OSError, ValueError, IndexError):
        return peak_rss_mb()
