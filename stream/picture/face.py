"""Data of a face in the stages: detection, track, crop and patch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stream.picture.frame import Frame, View


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """A face that the detector found, in upright px."""

    box_xyxy: np.ndarray
    """f32[4]: x0, y0, x1, y1."""
    landmarks: np.ndarray
    """f32[5,2]: eye on the picture's left, eye on the right, nose tip, left and right corner of the mouth."""
    score: float
    """The detector's, in 0..1."""


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """A tracked face in one frame, in upright px."""

    track_id: int
    box_xyxy: np.ndarray
    """f32[4]: x0, y0, x1, y1."""
    landmarks: np.ndarray
    """f32[5,2], in the order of `Detection.landmarks`."""
    score: float
    """Score of the track's last detection, in 0..1."""
    coasted: bool
    """Whether optical flow moved the landmarks here because no detector ran on this frame."""
    confidence: float
    """How reliable the optical flow has been since the last detection, in 0..1."""


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """An aligned face, as the network sees it."""

    face: Face | None
    """None for an input that already is a crop."""
    image: np.ndarray
    """RGB f32[S,S,3] in 0..1; it shares no memory with the frame."""
    to_stored: np.ndarray
    """Affine f64[2,3] from px of the crop to stored px of the frame."""
    view: View
    """The frame's view."""
    sharpness: float = 0.0
    """Sharpness in 0..1, see `stream.faces.restore.sharpness`; 0 where it was not measured."""

    @property
    def track_id(self) -> int | None:
        """The track of its face; None for an input that already is a crop."""
        return self.face.track_id if self.face is not None else None


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """The change that restoration makes: a signed residual under a soft mask, in px of the crop."""

    crop: Crop
    residual: np.ndarray
    """RGB f32[S,S,3]: the restored crop minus the crop, times the strength."""
    opacity: np.ndarray | None = None
    """Opacity f32[S,S] in 0..1 of crop + residual over the picture; None: the residual is added."""
    mask: np.ndarray | None = None
    """Share f32[S,S] in 0..1 of the residual that is written, besides the feathered square; None: all."""
    weight: float = 1.0
    """Share of the restoration in the residual, in 0..1: the strength, reduced where the face is sharp."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameWork:
    """A frame and its faces: what stages pass on to each other. Stages make changed copies."""

    frame: Frame
    faces: tuple[Face, ...] = ()
    crops: tuple[Crop, ...] = ()
    patches: tuple[Patch, ...] = ()
    before: np.ndarray | None = None
    """A small upright RGB u8[h,w,3] of the picture before restoration; None where no preview needs it."""
