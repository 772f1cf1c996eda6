"""What cameras cost their node: CPU time of their processes, and their share of the restorer's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from stream.server.fleet.fleet_messages import CameraCost
from stream.server.supervisor.camera_status import CameraStatus, RestorerStatus
from stream.server.supervisor.niceness import process_tree

PERIOD_S = 5.0
"""Time over which the cost is averaged."""
_SETTLED_S = 10.0
"""A younger session is not measured: its start takes far more than its work."""


@dataclass(frozen=True, slots=True)
class _CpuSample:
    at_s: float
    cpu_s: dict[int, float] = field(default_factory=dict)
    """By process of a camera or of the restorer: CPU time of it and its descendants, s."""
    crops: dict[str, int] = field(default_factory=dict)
    """Crops restored so far, by camera."""


class CpuUsage:
    """Measures all cameras of a node."""

    def __init__(self) -> None:
        self._last: _CpuSample | None = None

    def measure(
        self, cameras: Iterable[CameraStatus], restorer: RestorerStatus | None, now_s: float
    ) -> dict[str, CameraCost]:
        """By camera, its cost since the last measurement; empty until `PERIOD_S` are over since then.

        `now_s`: `time.monotonic()`.
        """
        last = self._last
        if last is not None and now_s - last.at_s < PERIOD_S:
            return {}
        running = [one for one in cameras if one.pid and one.report is not None]
        pids = {one.pid for one in running} | ({restorer.pid} if restorer is not None else set()) - {0}
        report = restorer.report if restorer is not None else None
        sample = _CpuSample(
            now_s, {pid: _cpu_s(pid) for pid in pids}, dict(report.crops) if report is not None else {}
        )
        self._last = sample
        if last is None:
            return {}
        elapsed_s = now_s - last.at_s
        restorer_s = _spent_s(sample, last, restorer.pid if restorer is not None else 0)
        crops = {name: max(0, count - last.crops.get(name, 0)) for name, count in sample.crops.items()}
        all_crops = sum(crops.values()) or 1
        costs = {}
        for one in running:
            if one.report is not None and one.report.uptime_s > _SETTLED_S and one.pid in last.cpu_s:
                own_s = _spent_s(sample, last, one.pid)
                cores = (own_s + restorer_s * crops.get(one.name, 0) / all_crops) / elapsed_s
                costs[one.name] = CameraCost(round(cores, 3), degraded=one.report.level > 0)
        return costs


def _spent_s(now: _CpuSample, before: _CpuSample, pid: int) -> float:
    """CPU time between two samples; one of its children may have ended, and another begun."""
    return max(0.0, now.cpu_s.get(pid, 0.0) - before.cpu_s.get(pid, 0.0))


def _cpu_s(pid: int) -> float:
    """CPU time of a process and its descendants, s."""
    total = 0
    for one in process_tree(pid):
        with contextlib.suppress(OSError):  # it has just ended
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")
