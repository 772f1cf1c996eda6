"""What is known of a face: found, followed, cut out, restored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stream.picture.frame import Frame, View


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """One detector hit, in upright px."""

    box_xyxy: np.ndarray
    """f32[4]"""
    landmarks: np.ndarray
    """f32[5,2]: eye on the picture's left, eye on the right, nose tip, mouth corners left, right."""
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """A tracked face in one frame, in upright px."""

    track_id: int
    box_xyxy: np.ndarray
    landmarks: np.ndarray
    score: float
    coasted: bool
    """True where no detector ran on this frame: the landmarks rode on optical flow."""
    confidence: float
    """0..1: how well the flow held since the last detection."""


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """An aligned face as the network sees it."""

    face: Face | None
    """None for an input that already is a crop."""
    image: np.ndarray
    """f32[S,S,3] RGB 0..1, its own memory."""
    to_stored: np.ndarray
    """f64[2,3]: crop px to stored px of the frame."""
    view: View
    """How the frame's stored px lie in the upright picture."""
    sharpness: float = 0.0
    """0..1, see `stream.faces.restore.sharpness`; 0 where it was not measured."""

    @property
    def track_id(self) -> int | None:
        """The track of its face; None for an input that already is a crop."""
        return self.face.track_id if self.face is not None else None


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """What restoration changes: a signed residual under a soft mask, in crop space."""

    crop: Crop
    residual: np.ndarray
    """f32[S,S,3]: restored minus crop, RGB, strength included."""
    opacity: np.ndarray | None = None
    """f32[S,S] in 0..1: how far the picture gives way to crop + residual; None: the residual is added."""
    mask: np.ndarray | None = None
    """f32[S,S] in 0..1: how much of the residual may be written; None: all. The feathered box still
    bounds it."""
    weight: float = 1.0
    """0..1: how much of the restoration the residual holds: strength, less where the face is sharp. 0
    where there is none."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameWork:
    """The value that travels every edge of the pipeline; rebuilt with `dataclasses.replace`."""

    frame: Frame
    faces: tuple[Face, ...] = ()
    crops: tuple[Crop, ...] = ()
    patches: tuple[Patch, ...] = ()
    before: np.ndarray | None = None
    """RGB u8[h,w,3]: the upright picture before restoration, small, where a preview asks for it."""
