"""What is tapped off just before faces are put back: the picture as it was, and snapshots of faces."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from stream.live.packets import FaceFacts, Snapshot
from stream.live.sinks.live_encoder import upright_rgb
from stream.picture.face import Face, FrameWork, Patch
from stream.picture.frame import Frame
from stream.picture.jpeg import encode_jpeg

SIDE = 640
"""Longer side of a preview, px."""
_SURE_S = 0.4
"""A face is snapped once it has been followed for so long ..."""
_EVERY_S = 30.0
"""... and again every so often, where it is found by a detector and not coasted along."""
_APART_S = 0.5
"""From snapshot to snapshot whatever the face: a crowd does not stop the picture."""
_FORGET_S = 60.0
_JPEG_QUALITY = 80
_PNG_LEVEL = 1
"""PNG compression: 3 ms for two pictures of 256 px, where level 6 takes 12 for a tenth less."""


@dataclass(slots=True)
class _SnappedTrack:
    """When a track was seen and snapped, on the pictures' arrival clock."""

    first_s: float
    seen_s: float
    next_s: float


class SnapshotStage:
    """Stage between masks and compose: fills `FrameWork.before` and hands out snapshots, when wanted.

    `wants_pair` and `wants_snapshots` are asked for every frame; `on_snapshot` must not block. While
    nobody wants anything a frame costs nothing.
    """

    def __init__(
        self,
        *,
        wants_pair: Callable[[], bool] = lambda: False,
        wants_snapshots: Callable[[], bool] = lambda: False,
        on_snapshot: Callable[[Snapshot], None] = lambda snapshot: None,
    ) -> None:
        self.snapshots = 0
        self._wants_pair, self._wants_snapshots = wants_pair, wants_snapshots
        self._on_snapshot = on_snapshot
        self._small = SmallPicture()
        self._tracks: dict[int, _SnappedTrack] = {}
        self._last_s = float("-inf")

    def open(self) -> None:
        """Nothing to acquire."""

    def process(self, work: FrameWork) -> Iterable[FrameWork]:
        """Tap one frame; its picture stays untouched."""
        if self._wants_snapshots():
            self._snap(work)
        if self._wants_pair():
            work = replace(work, before=self._small(work.frame))
        yield work

    def flush(self) -> Iterable[FrameWork]:
        """Nothing is held back."""
        return ()

    def close(self) -> None:
        """Nothing to release."""

    def _snap(self, work: FrameWork) -> None:
        now = work.frame.arrived_at_s
        due = [
            (patch, face)
            for patch in work.patches
            if (face := patch.crop.face) is not None and self._is_due(patch, face, now)
        ]
        self._tracks = {k: t for k, t in self._tracks.items() if now - t.seen_s < _FORGET_S}
        if not due or now - self._last_s < _APART_S:
            return
        patch, face = max(due, key=lambda pair: pair[0].crop.sharpness)
        self._tracks[face.track_id].next_s = now + _EVERY_S
        self._last_s = now
        self.snapshots += 1
        self._on_snapshot(snapshot(patch, face, work.frame))

    def _is_due(self, patch: Patch, face: Face, now: float) -> bool:
        known = self._tracks.setdefault(face.track_id, _SnappedTrack(now, now, now + _SURE_S))
        known.seen_s = now
        return now >= known.next_s and not face.coasted and bool(patch.residual.any())


def snapshot(patch: Patch, face: Face, frame: Frame) -> Snapshot:
    """The crop beside what is put back of it, and what is known of the face."""
    crop = patch.crop
    share = patch.opacity if patch.opacity is not None else patch.mask
    change = patch.residual if share is None else patch.residual * share[..., None]
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


class SmallPicture:
    """Makes small upright pictures; for one thread."""

    def __init__(self, side: int = SIDE) -> None:
        self._side = side
        self._scaler, self._converter = VideoReformatter(), VideoReformatter()

    def __call__(self, frame: Frame) -> np.ndarray:
        """RGB u8[h,w,3], its longer side at most `side` px: 0.3 ms where a thumbnail of floats takes 7."""
        if frame.colour.is_hdr:
            small: np.ndarray = np.rint(frame.to_network(frame.thumbnail(self._side)[0]) * 255)
            return small.astype(np.uint8)
        view = frame.view
        scale = min(1.0, self._side / max(view.upright_size))
        if scale < 1:
            size = max(2, round(view.width * scale)), max(2, round(view.height * scale))
            picture = self._scaler.reformat(frame.picture, *size, interpolation="AREA", threads=1)
            colour = frame.colour
            if colour.matrix == 2:  # players take it by the size, which changes here
                colour = replace(colour, matrix=1 if colour.weights(view.width, view.height)[0] < 0.25 else 6)
            frame = replace(
                frame, picture=picture, view=replace(view, width=size[0], height=size[1]), colour=colour
            )
        return upright_rgb(frame, self._converter)


def pair_jpeg(before: np.ndarray, after: np.ndarray) -> bytes:
    """One JPEG of two RGB u8[h,w,3] of the same size: the original above the restored picture."""
    if before.shape != after.shape:
        after = cv2.resize(after, before.shape[1::-1], interpolation=cv2.INTER_AREA)
    return encode_jpeg(np.concatenate([before, after]), _JPEG_QUALITY)


def _png(rgb: np.ndarray) -> bytes:
    """Of RGB f32[S,S,3]; what lies beyond 0..1 is clipped."""
    bgr = cv2.cvtColor(np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8), cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL])[1].tobytes()
