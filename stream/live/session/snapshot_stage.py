"""Records what a live picture looked like just before faces are composed into it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import cv2
import numpy as np

from stream.live.packets import FaceFacts, Snapshot
from stream.live.session.previews import PreviewScaler
from stream.picture.face import Face, FrameWork, Patch
from stream.picture.frame import Frame
from stream.pipeline.stage import Stage

_TRACKED_S = 0.4
"""Time for which a face must be tracked before its first snapshot."""
_REPEAT_S = 30.0
"""Time between two snapshots of the same track."""
_INTERVAL_S = 0.5
"""Least time between two snapshots of any faces, so that a crowd does not delay the picture."""
_FORGET_S = 60.0
_PNG_LEVEL = 1
"""Compression level: two pictures of 256 px take 3 ms. Level 6 takes 12 ms and saves a tenth of the size."""


@dataclass(slots=True)
class _TrackTimes:
    """When a track was last seen, and when its next snapshot is due, as the pictures' times of arrival."""

    seen_at_s: float
    due_at_s: float


class SnapshotStage(Stage[FrameWork, FrameWork]):
    """Stage between masks and compose: fills `FrameWork.before` and makes snapshots of faces, if wanted.

    `wants_pair` and `wants_snapshots` are called for every frame; a frame costs nothing while both return
    False. `on_snapshot` must not block.
    """

    def __init__(
        self,
        *,
        wants_pair: Callable[[], bool] = lambda: False,
        wants_snapshots: Callable[[], bool] = lambda: False,
        on_snapshot: Callable[[Snapshot], None] = lambda snapshot: None,
    ) -> None:
        self._wants_pair, self._wants_snapshots = wants_pair, wants_snapshots
        self._on_snapshot = on_snapshot
        self._scaler = PreviewScaler()
        self._tracks: dict[int, _TrackTimes] = {}
        self._last_s = float("-inf")

    def process(self, work: FrameWork) -> Iterable[FrameWork]:
        """Look at one frame, whose picture is not changed."""
        if self._wants_snapshots():
            self._make_snapshot(work)
        if self._wants_pair():
            work = replace(work, before=self._scaler.scale(work.frame))
        yield work

    def _make_snapshot(self, work: FrameWork) -> None:
        """Make a snapshot of the sharpest of the faces that are due, if any."""
        now_s = work.frame.arrived_at_s
        due = [
            (patch, face)
            for patch in work.patches
            if (face := patch.crop.face) is not None and self._is_due(patch, face, now_s)
        ]
        self._tracks = {
            track: times for track, times in self._tracks.items() if now_s - times.seen_at_s < _FORGET_S
        }
        if not due or now_s - self._last_s < _INTERVAL_S:
            return
        patch, face = max(due, key=lambda pair: pair[0].crop.sharpness)
        self._tracks[face.track_id].due_at_s = now_s + _REPEAT_S
        self._last_s = now_s
        self._on_snapshot(snapshot(patch, face, work.frame))

    def _is_due(self, patch: Patch, face: Face, now_s: float) -> bool:
        """Whether the face was detected or tracked in this frame, is changed by its patch, and has waited."""
        times = self._tracks.setdefault(face.track_id, _TrackTimes(now_s, now_s + _TRACKED_S))
        times.seen_at_s = now_s
        return now_s >= times.due_at_s and not face.coasted and bool(patch.residual.any())


def snapshot(patch: Patch, face: Face, frame: Frame) -> Snapshot:
    """The face's crop as it was and as it is composed, with the facts about it."""
    crop = patch.crop
    opacity = patch.opacity if patch.opacity is not None else patch.mask
    change = patch.residual if opacity is None else patch.residual * opacity[..., None]
    at = datetime.fromtimestamp(time.time() - (time.monotonic() - frame.arrived_at_s), UTC)
    x0, y0, x1, y1 = (round(float(value)) for value in face.box_xyxy)
    facts: FaceFacts = {
        "at": at.isoformat(timespec="milliseconds"),
        "track": face.track_id,
        "x": x0,
        "y": y0,
        "width": x1 - x0,
        "height": y1 - y0,
        "score": round(float(face.score), 3),
        "sharpness": round(float(crop.sharpness), 3),
    }
    name = f"{at:%Y-%m-%dT%H-%M-%S}-{at.microsecond // 1000:03d}Z-{face.track_id}"
    return Snapshot(name, _png(crop.image), _png(crop.image + change), facts)


def _png(rgb: np.ndarray) -> bytes:
    """A PNG file of RGB f32[S,S,3]; values beyond 0..1 are clipped."""
    bgr = cv2.cvtColor(np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8), cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL])[1].tobytes()
