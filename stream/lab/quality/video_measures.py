"""Figures of a clip: what changes from frame to frame that the motion does not explain.

Frames are RGB u8[H,W,3], all of one size: crops of one face, or whole pictures. Motion is measured on
the *source*, the clip that was restored, so that a result is not favoured for being easy to follow.
Flow is DIS (Kroeger et al., 2016) on luma, as OpenCV has it; what is hidden in the other frame is
left out by the forward-backward check.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

_LUMA = np.array([[0.299, 0.587, 0.114]], np.float32)
_NONE = np.empty(0, np.float32)
"""An empty array is OpenCV's "none": no second map of places, no flow to start from."""
_LEAST = 0.2
"""Share of a frame's px that must match its neighbour's for the pair to count. Less is a cut: two
unrelated portraits match in 1 to 7 %."""


@dataclass(frozen=True, slots=True, eq=False)
class Warp:
    """Brings a neighbour's picture onto a frame."""

    to_neighbour: np.ndarray
    """f32[H,W,2]: x and y in the neighbour for each px of the frame."""
    valid: np.ndarray
    """bool[H,W]: where both frames show the same thing."""

    def __call__(self, neighbour: np.ndarray) -> np.ndarray:
        """The neighbour, any f32[H,W] or f32[H,W,C], as the frame would show it.

        Cubic: bilinear reading would blur the neighbour, and charge that to a sharp result.
        """
        return cv2.remap(
            neighbour, self.to_neighbour, _NONE, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )


class ClipMotion:
    """The motion of a source clip, measured once, for judging several results of it."""

    def __init__(self, source: Sequence[np.ndarray]) -> None:
        """`source`: two frames or more. Keeps 20 bytes a px and frame."""
        self.pairs = tuple(_pairs(source))
        """For each frame but the last: how the next comes onto it, and how it comes onto the next."""


def warping_error(
    frames: Sequence[np.ndarray], source: Sequence[np.ndarray] | ClipMotion | None = None
) -> float:
    """E_warp (Lai et al., 2018): mean squared difference of each frame and its warped next one.

    RGB in 0..1; mean over the px that are not occluded and over channels, then over pairs of frames.
    `source` is where flow and occlusion are measured, the frames themselves where it is left out.
    NaN where no pair has px that match (cuts only). Raises ValueError for fewer than two frames.
    """
    errors = []
    for at, (ahead, _) in enumerate(_motion(frames, source, least=2)):
        if ahead.valid.mean() < _LEAST:
            continue
        here, following = (frames[i].astype(np.float32) / 255 for i in (at, at + 1))
        difference = (here - ahead(following))[ahead.valid]
        errors.append(np.mean(difference.astype(np.float64) ** 2))
    return float(np.mean(errors)) if errors else float("nan")


def flicker(frames: Sequence[np.ndarray], source: Sequence[np.ndarray] | ClipMotion | None = None) -> float:
    """Temporal energy that motion does not explain, squared levels of 0..255.

    Luma minus the mean of its two neighbours in time, both brought onto it along the source's motion
    (the residual of a motion-compensated temporal filter: Dubois and Sabri, 1984); two thirds of its
    mean square, over px that match in both and over frames. That factor makes it the variance of noise
    that is independent from frame to frame; light that swings by +-a every frame gives 8/3 a^2.
    Light that changes steadily gives nothing. Compare with the source's own, `flicker(source, source)`.
    NaN where no frame has px that match. Raises ValueError for fewer than three frames.
    """
    lumas = [cv2.transform(frame.astype(np.float32), _LUMA) for frame in frames]
    energies, before = [], None
    for at, (ahead, back) in enumerate(_motion(frames, source, least=3)):
        if before is not None:
            valid = before.valid & ahead.valid
            if valid.mean() >= _LEAST:
                rest = lumas[at] - (before(lumas[at - 1]) + ahead(lumas[at + 1])) / 2
                energies.append(2 / 3 * np.mean(rest[valid].astype(np.float64) ** 2))
        before = back
    return float(np.mean(energies)) if energies else float("nan")


def landmark_jitter(landmarks: np.ndarray, truth: np.ndarray | None = None) -> float:
    """TLME, temporal landmark mean error: how far landmarks leap between frames, in eye distances.

    `landmarks` is f64[T,N,2], the first two of the N the eyes. With `truth`, alike, it is the mean length
    of the difference between a landmark's step from frame to frame and the true step. Without, motion
    is taken as straight and even over three frames, and the second difference, scaled by the square
    root of a third, stands for that. Either way, jitter of standard deviation s in x and y, independent
    from frame to frame, gives s times the square root of pi, over the eye distance. The name is that of
    the papers on video face restoration; the formula is stated here since they write it differently.
    Raises ValueError for too few frames.
    """
    points = np.asarray(landmarks, np.float64)
    least = 3 if truth is None else 2
    if len(points) < least:
        raise ValueError(f"expected {least} frames or more, got {len(points)}")
    base = points if truth is None else np.asarray(truth, np.float64)
    if base.shape != points.shape:
        raise ValueError(f"expected one shape, got {points.shape = }, {base.shape = }")
    eyes = np.linalg.norm(base[:, 1] - base[:, 0], axis=-1).mean()
    # Second differences of white noise have thrice the variance of first ones.
    leaps = np.diff(points, n=2, axis=0) / np.sqrt(3) if truth is None else np.diff(points - base, axis=0)
    return float(np.linalg.norm(leaps, axis=-1).mean() / eyes)


def _motion(
    frames: Sequence[np.ndarray], source: Sequence[np.ndarray] | ClipMotion | None, least: int
) -> Iterator[tuple[Warp, Warp]]:
    if len(frames) < least:
        raise ValueError(f"expected {least} frames or more, got {len(frames)}")
    if isinstance(source, ClipMotion):
        count, pairs = len(source.pairs) + 1, iter(source.pairs)
    else:
        source = frames if source is None else source
        count, pairs = len(source), _pairs(source)
    if count != len(frames):
        raise ValueError(f"expected as many frames as the source has, got {len(frames)} and {count}")
    return pairs


def _pairs(source: Sequence[np.ndarray]) -> Iterator[tuple[Warp, Warp]]:
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grays = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in source]
    for here, following in pairwise(grays):
        forth, back = dis.calc(here, following, _NONE), dis.calc(following, here, _NONE)
        yield _warp(forth, back), _warp(back, forth)


def _warp(flow: np.ndarray, back: np.ndarray) -> Warp:
    """Validity as Ruder et al. (2016), whom Lai et al. follow: there and back again, no motion boundary."""
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    at = flow + np.stack([x, y], axis=-1)
    returned = cv2.remap(back, at, _NONE, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    squared = np.sum(flow**2, axis=-1)
    occluded = np.sum((flow + returned) ** 2, axis=-1) > 0.01 * (squared + np.sum(returned**2, axis=-1)) + 0.5
    slopes = sum(cv2.Sobel(flow, cv2.CV_32F, *way, scale=1 / 8) ** 2 for way in ((1, 0), (0, 1)))
    boundary = np.sum(slopes, axis=-1) > 0.01 * squared + 0.002
    inside = (at[..., 0] >= 0) & (at[..., 0] <= width - 1) & (at[..., 1] >= 0) & (at[..., 1] <= height - 1)
    return Warp(at, inside & ~occluded & ~boundary)
