"""Counts of a run: frames, faces and detections, of one segment or of a whole video."""

from __future__ import annotations

from pydantic import BaseModel

from stream.faces.assembly import FaceStages
from stream.faces.track.tracker import Tracker


class RunCounts(BaseModel, frozen=True):
    """Counts of a run or of a segment; `RunReport` says what each of them means."""

    frames_in: int = 0
    frames_out: int = 0
    faces_restored: int = 0
    faces_left_alone: int = 0
    faces_carried: int = 0
    restorations_forced: int = 0
    faces_not_finite: int = 0
    faces_stabilised: int = 0
    faces_guarded: int = 0
    faces_parsed: int = 0
    detections_run: int = 0
    frames_tracked: int = 0
    tracks: int = 0
    scene_cuts: int = 0
    corrupt_packets: int = 0

    @property
    def faces(self) -> int:
        """Faces that were restored by the network, or propagated from restored ones."""
        return self.faces_restored + self.faces_carried

    def plus(self, other: RunCounts) -> RunCounts:
        """The sums of these counts and other ones."""
        mine, others = self.model_dump(), other.model_dump()
        return RunCounts(**{name: mine[name] + others[name] for name in mine})


def counts_of(stages: FaceStages, *, frames_in: int = 0, frames_out: int = 0, corrupt: int = 0) -> RunCounts:
    """The counts of stages so far. `corrupt`: damaged packets of the source."""
    counts, detect = stages.restore.counts, stages.detect
    tracker = detect if isinstance(detect, Tracker) else None
    return RunCounts(
        frames_in=frames_in,
        frames_out=frames_out,
        faces_restored=counts.restored,
        faces_left_alone=counts.left_alone,
        faces_carried=counts.propagated,
        restorations_forced=counts.forced,
        faces_not_finite=counts.not_finite,
        faces_stabilised=stages.stabilise.faces_stabilised if stages.stabilise is not None else 0,
        faces_guarded=stages.mask.faces_guarded,
        faces_parsed=stages.mask.faces_parsed,
        detections_run=detect.detections_run if detect is not None else 0,
        frames_tracked=tracker.frames_tracked if tracker is not None else 0,
        tracks=tracker.tracks if tracker is not None else 0,
        scene_cuts=tracker.scene_cuts if tracker is not None else 0,
        corrupt_packets=corrupt,
    )
