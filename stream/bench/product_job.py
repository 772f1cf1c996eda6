"""A run of the product as one side of a comparison; torch stays out, as it does for a user."""

from __future__ import annotations

from typing import Any

import cv2

from stream.api import Options, restore_file
from stream.bench.worker import Unavailable
from stream.config import load_config
from stream.errors import ConfigError


class ProductJob:
    """`gpen-stream restore` in this process; the facts are its report."""

    def __init__(self, preset: str, overrides: list[str], clip: str, out: str, threads: int) -> None:
        cv2.setNumThreads(1)
        shared = [f"restore.threads={threads}", f"encode.threads={threads}"]
        try:
            self._config = load_config(preset, None, [*overrides, *shared])
        except ConfigError as reason:
            raise Unavailable(str(reason)) from reason
        self._clip, self._out = clip, out

    def run(self) -> dict[str, Any]:
        """Restore the clip."""
        report = restore_file(self._clip, self._out, self._config, options=Options(overwrite=True)).report
        kept = ("wall_s", "cpu_s", "cores", "stage_ms", "faces_restored", "detections_run", "engine")
        return {"frames": report["frames_out"]} | {key: report[key] for key in kept}
