"""A run of the product as one side of a comparison; torch stays out, as it does for a user."""

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
    """What one stage took in a whole run, seconds."""

    busy_s: float
    """By the clock."""
    cpu_s: float
    """Of its own thread's CPU."""


@dataclass(frozen=True, slots=True)
class ProductFacts:
    """What a run's report says of it."""

    frames: int
    wall_s: float
    cpu_s: float
    cores: int
    stages: dict[str, StageTime]
    faces_restored: int
    detections_run: int


class ProductJob:
    """`gpen-stream restore` in this process; the facts are of its report."""

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
