"""A run of the product as one side of a comparison. It does not import torch, as in normal use."""

from __future__ import annotations

from dataclasses import dataclass

import cv2

from stream.config import load_config
from stream.errors import ConfigError
from stream.job.api import restore_file
from stream.job.interface import Options
from stream.lab.bench.worker import Unavailable


@dataclass(frozen=True, slots=True)
class StageTime:
    """Time of one stage in a whole run."""

    busy_s: float
    """Wall time, s."""
    cpu_s: float
    """CPU time of the stage's own thread, s."""


@dataclass(frozen=True, slots=True)
class ProductFacts:
    """Figures of a run's report."""

    frames: int
    wall_s: float
    cpu_s: float
    cores: int
    stages: dict[str, StageTime]
    faces_restored: int
    detections_run: int


class ProductJob:
    """`gpen-stream restore` in this process; the facts come from its report."""

    def __init__(self, preset: str, overrides: list[str], clip: str, out: str, threads: int) -> None:
        cv2.setNumThreads(1)
        shared = [f"restore.threads={threads}", f"encode.threads={threads}"]
        try:
            self._config = load_config(preset, None, [*overrides, *shared])
        except ConfigError as reason:
            raise Unavailable(str(reason)) from reason
        self._clip, self._out = clip, out

    def run(self) -> ProductFacts:
        """Restore the clip."""
        report = restore_file(self._clip, self._out, self._config, options=Options(overwrite=True)).report
        return ProductFacts(
            frames=report["frames_out"],
            wall_s=report["wall_s"],
            cpu_s=report["cpu_s"],
            cores=report["cores"],
            stages={
                name: StageTime(stage["busy_s"], stage["cpu_s"]) for name, stage in report["stage_ms"].items()
            },
            faces_restored=report["faces_restored"],
            detections_run=report["detections_run"],
        )
