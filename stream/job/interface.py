"""What a caller gives to a run, and what the run gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from stream.errors import ConfigError, StreamError

if TYPE_CHECKING:
    from pydantic import JsonValue

_LONGEST_S = 1e7  # longer times overflow the timestamps of some containers
SEGMENT_S = 60.0
"""Longest segment where the caller names none; shorter videos are restored without a plan."""
_SHORTEST_SEGMENT_S = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """What concerns one run only, unlike the settings of `Config`. Raises ConfigError for wrong times."""

    aligned: bool = False
    """Whether every frame already is an aligned crop: nothing is detected or masked then."""
    start_s: float | None = None
    """Where the part to restore begins, seconds; None: at the beginning."""
    duration_s: float | None = None
    """How long the part is, seconds; None: up to the end."""
    overwrite: bool = False
    """Whether an existing output may be replaced."""
    allow_loss: bool = False
    """Whether streams that the output's container cannot hold may be left out."""
    segment_s: float | None = None
    """Longest segment of a video that is restored by a plan, seconds. None: 60, for videos longer than
    that; 0: without a plan, so that a killed run begins again."""
    restart: bool = False
    """Whether what an earlier run left is thrown away."""
    keep_segments: bool = False
    """Whether the folder with the segments stays when the video is whole."""
    on: str | None = None
    """The Ray cluster that restores the segments, see `stream.job.cluster.connect`; None: this process."""
    worker_cores: int = 1
    """Cores of each process of the cluster that restores."""
    allow_mixed: bool = False
    """Whether machines may restore whose results differ in some bits."""
    verify_input: bool = False
    """Whether the whole input is compared with that of the earlier run, not only samples of it."""

    def __post_init__(self) -> None:
        for name, value, low in (("start", self.start_s, 0.0), ("duration", self.duration_s, 1e-3)):
            if value is not None and not low <= value <= _LONGEST_S:
                raise ConfigError(f"--{name} {value:g}: write seconds, {low:g} to {_LONGEST_S:g}")
        if self.segment_s and not _SHORTEST_SEGMENT_S <= self.segment_s <= _LONGEST_S:
            raise ConfigError(
                f"--segment {self.segment_s:g}: write 0, or at least {_SHORTEST_SEGMENT_S:g} seconds"
            )


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    frames_in: int
    """Frames that have been decoded."""
    frames_done: int
    """Frames that have been written."""
    frames_total: int
    """Frames to expect; 0 where the container does not say."""
    faces: int
    """Faces that have been restored so far."""
    elapsed_s: float
    frames_before: int = 0
    """Frames among `frames_done` that an earlier run left."""
    segments_done: int = 0
    """Segments finished, those of an earlier run too."""
    segments_total: int = 0
    """Segments of the plan; 0: the video is restored without one."""
    workers: int = 1
    """Processes that restore at the moment."""


ProgressCallback = Callable[[Progress], None]
"""Called about ten times a second, and once at the end."""


class SegmentReport(TypedDict):
    """A segment in a report."""

    index: int
    start_s: float
    """Since the output's first picture."""
    frames: int
    """Frames encoded."""
    faces: int
    """Faces restored, those of the warm-up and the tail too."""
    extra_frames: int
    """Frames of the warm-up and the tail, which are restored and not encoded."""
    begins_at_cut: bool
    worker: str
    """Host and process."""
    seconds: float
    """Wall time."""
    earlier: bool
    """Whether an earlier run restored it."""


class RunReport(TypedDict, total=False):
    """What `--report` writes. For a file that failed it has only `input`, `output` and `failures`."""

    input: str
    output: str
    frames_in: int
    frames_out: int
    faces_restored: int
    """Crops that the network restored."""
    faces_left_alone: int
    """Crops left unchanged because they are sharp already."""
    faces_carried: int
    """Crops whose restoration was moved from other frames of the same track by optical flow."""
    restorations_forced: int
    """How many of `faces_restored` were restored before their turn, because optical flow failed."""
    faces_not_finite: int
    """Crops left unchanged because the network's output held NaN or infinity."""
    faces_stabilised: int
    faces_guarded: int
    """Crops that stayed as they were, at least in part, because the restoration differed too much."""
    faces_parsed: int
    """Crops whose outline the face parser computed."""
    detections_run: int
    """Frames on which the detector looked for faces."""
    frames_tracked: int
    """Frames that went through the tracker."""
    tracks: int
    scene_cuts: int
    corrupt_packets: int
    wall_s: float
    cpu_s: float
    """CPU time of all threads of this process while the pipeline ran."""
    first_frame_s: float | None
    """Time from the process's start to the first encoded frame."""
    fps: float
    """Frames written in a second of `wall_s`."""
    stage_ms: dict[str, dict[str, float]]
    """Times of each stage, by its name: median, p95, calls, busy_s and cpu_s."""
    peak_rss_mb: float
    cores: int
    threads: dict[str, int]
    """Number of threads of each pool, by its name."""
    engine: str
    model: str
    model_sha256: str
    notes: list[str]
    config: dict[str, JsonValue]
    """The settings that were used."""
    decoder: str
    encoder: str
    status: str
    """A value of `Status`."""
    segments: list[SegmentReport]
    """Segments of a video that was restored by a plan."""
    failures: list[str]
    """Files of a folder that could not be restored, one line each."""


class Status(Enum):
    """How a run ended."""

    COMPLETE = "complete"
    INTERRUPTED = "interrupted"
    """It was stopped before the end. The part that was restored is in NAME.partial.EXT."""
    TRUNCATED = "truncated"
    """The input itself ends early. It was restored as far as it goes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a run."""

    path: Path
    """The file that was written, or the folder of pictures."""
    status: Status
    report: RunReport
    """What `--report` writes."""
    notes: tuple[str, ...] = ()
    """What the user should know, one line each."""
    failures: tuple[StreamError, ...] = field(default=())
    """Pictures of a folder that could not be restored."""
