"""Counts, times and settings of a run -> its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from stream.faces.assembly import Setup
from stream.job.counts import RunCounts
from stream.job.interface import RunReport
from stream.pipeline.cpu_budget import available_cores
from stream.pipeline.meter import Meter, peak_rss_mb


@dataclass(slots=True)
class RunTimes:
    """The times of a run on this machine."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    first_frame_s: float | None = None
    """Time from the process's start to the first encoded frame."""
    frames: int = 0
    """Frames written in `wall_s`."""
    meters: Mapping[str, Meter] = field(default_factory=dict)
    """Meters of the stages, by their names."""
    engine: str = ""
    """Name of the engine that restored the crops."""


def make_report(setup: Setup, counts: RunCounts, times: RunTimes, notes: Sequence[str]) -> RunReport:
    """The report of a run, but for its paths and its status."""
    return {
        "frames_in": counts.frames_in,
        "frames_out": counts.frames_out,
        "faces_restored": counts.faces_restored,
        "faces_left_alone": counts.faces_left_alone,
        "faces_carried": counts.faces_carried,
        "restorations_forced": counts.restorations_forced,
        "faces_not_finite": counts.faces_not_finite,
        "faces_stabilised": counts.faces_stabilised,
        "faces_guarded": counts.faces_guarded,
        "faces_parsed": counts.faces_parsed,
        "detections_run": counts.detections_run,
        "frames_tracked": counts.frames_tracked,
        "tracks": counts.tracks,
        "scene_cuts": counts.scene_cuts,
        "corrupt_packets": counts.corrupt_packets,
        "wall_s": round(times.wall_s, 3),
        "cpu_s": round(times.cpu_s, 3),
        "first_frame_s": None if times.first_frame_s is None else round(times.first_frame_s, 3),
        "fps": round(times.frames / times.wall_s, 2) if times.wall_s else 0.0,
        "stage_ms": {name: meter.summary() for name, meter in times.meters.items()},
        "peak_rss_mb": peak_rss_mb(),
        "cores": available_cores(),
        "threads": asdict(setup.threads),
        "engine": times.engine,
        "model": setup.model.name,
        "model_sha256": setup.model.sha256,
        "notes": list(notes),
        "config": setup.config.model_dump(mode="json"),
    }
