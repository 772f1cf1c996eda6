"""Measures of a clip: changes from frame to frame that motion does not explain.

Frames are RGB u8[H,W,3] of one size: crops of one face, or whole pictures. Motion is measured on the
*source*, the clip that was restored, so that a result gains nothing from being easy to track. The
optical flow is OpenCV's DIS (Kroeger et al., 2016) on luma. The forward-backward check leaves out pixels
that are occluded in the other frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

_LUMA = np.array([[0.299, 0.587, 0.114]], np.float32)
_NONE = np.empty(0, np.float32)
"""OpenCV reads an empty array as "none": no second coordinate map, no initial flow."""
_LEAST_MATCH = 0.2
"""Least share of a frame's px that must match its neighbour's for the pair to count. A smaller share is a
cut: two unrelated portraits match in 1 to 7 % of their px."""


@dataclass(frozen=True, slots=True, eq=False)
class Warp:
    """Warps a neighbouring frame onto a frame."""

    to_neighbour: np.ndarray
    """f32[H,W,2]: x and y in the neighbouring frame for each px of the frame."""
    valid: np.ndarray
    """bool[H,W]: px that both frames show."""

    def __call__(self, neighbour: np.ndarray) -> np.ndarray:
        """The neighbouring frame, f32[H,W] or f32[H,W,C], warped onto the frame.

        Interpolation is cubic: bilinear interpolation would blur the neighbour and so penalise sharp
        results.
        """
        return cv2.remap(
            neighbour, self.to_neighbour, _NONE, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )


class ClipMotion:
    """The motion of a source clip, measured once for several results."""

    def __init__(self, source: Sequence[np.ndarray]) -> None:
        """Measure the motion of two frames or more. It takes 20 bytes of memory for each px and frame."""
        self.pairs = tuple(_pairs(source))
        """Two warps for each frame but the last: the next frame onto it, and it onto the next frame."""


def warping_error(
    frames: Sequence[np.ndarray], source: Sequence[np.ndarray] | ClipMotion | None = None
) -> float:
    """E_warp (Lai et al., 2018): mean squared difference of each frame and the next one warped onto it.

    Pictures count as RGB in 0..1. The mean is taken over channels and px that are not occluded, then over
    pairs of frames. Flow and occlusion are measured on `source`, or on the frames if it is None. The
    result is NaN if no pair of frames matches, as in a clip of cuts. Raises ValueError for fewer than two
    frames.
    """
    errors = []
    for at, (ahead, _) in enumerate(_motion(frames, source, least=2)):
        if ahead.valid.mean() < _LEAST_MATCH:
            continue
        frame, following = (frames[i].astype(np.float32) / 255 for i in (at, at + 1))
        difference = (frame - ahead(following))[ahead.valid]
        errors.append(np.mean(difference.astype(np.float64) ** 2))
    return float(np.mean(errors)) if errors else float("nan")


def flicker(frames: Sequence[np.ndarray], source: Sequence[np.ndarray] | ClipMotion | None = None) -> float:
    """Temporal energy that motion does not explain, in squared levels of 0..255.

    The residual of a motion-compensated temporal filter (Dubois and Sabri, 1984): luma minus the mean of
    its two neighbours in time, which are warped onto it along the source's motion. The figure is two
    thirds of the mean square over frames and over px that match in both neighbours. With this factor it
    equals the variance of noise that is independent from frame to frame. Light that alternates by +-a
    gives 8/3 a^2; light that changes steadily gives 0. Compare the figure with the source's own,
    `flicker(source, source)`. It is NaN if no frame has px that match. Raises ValueError for fewer than
    three frames.
    """
    lumas = [cv2.transform(frame.astype(np.float32), _LUMA) for frame in frames]
    energies, before = [], None
    for at, (ahead, back) in enumerate(_motion(frames, source, least=3)):
        if before is not None:
            valid = before.valid & ahead.valid
            if valid.mean() >= _LEAST_MATCH:
                residual = lumas[at] - (before(lumas[at - 1]) + ahead(lumas[at + 1])) / 2
                energies.append(2 / 3 * np.mean(residual[valid].astype(np.float64) ** 2))
        before = back
    return float(np.mean(energies)) if energies else float("nan")


def landmark_jitter(landmarks: np.ndarray, truth: np.ndarray | None = None) -> float:
    """Temporal landmark mean error (TLME): jumps of landmarks between frames, in eye distances.

    `landmarks` is f64[T,N,2]; the first two of the N landmarks are the eyes. With `truth`, of the same
    shape, the figure is the mean length of the difference between a landmark's step from frame to frame
    and the true step. Without it, motion is assumed to be uniform over three frames, and the second
    difference, divided by the square root of 3, takes the place of that difference. In both cases, jitter
    with standard deviation s in x and y that is independent from frame to frame gives s sqrt(pi) over the
    eye distance. Papers on video face restoration use the name with different formulas. Raises ValueError
    for too few frames.
    """
    points = np.asarray(landmarks, np.float64)
    least = 3 if truth is None else 2
    if len(points) < least:
        raise ValueError(f"expected {least} frames or more, got {len(points)}")
    base = points if truth is None else np.asarray(truth, np.float64)
    if base.shape != points.shape:
        raise ValueError(f"expected one shape, got {points.shape = }, {base.shape = }")
    eyes = np.linalg.norm(base[:, 1] - base[:, 0], axis=-1).mean()
    # Second differences of white noise have three times the variance of first differences.
    jumps = np.diff(points, n=2, axis=0) / np.sqrt(3) if truth is None else np.diff(points - base, axis=0)
    return float(np.linalg.norm(jumps, axis=-1).mean() / eyes)


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
    for frame, following in pairwise(grays):
        forward, backward = dis.calc(frame, following, _NONE), dis.calc(following, frame, _NONE)
        yield _warp(forward, backward), _warp(backward, forward)


def _warp(flow: np.ndarray, reverse_flow: np.ndarray) -> Warp:
    """The warp along a flow. Its validity follows Ruder et al. (2016), as in Lai et al.

    A px is invalid if forward and reverse flow disagree, or if it lies on a motion boundary.
    """
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    at = flow + np.stack([x, y], axis=-1)
    returned = cv2.remap(reverse_flow, at, _NONE, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    squared = np.sum(flow**2, axis=-1)
    occluded = np.sum((flow + returned) ** 2, axis=-1) > 0.01 * (squared + np.sum(returned**2, axis=-1)) + 0.5
    slopes = sum(cv2.Sobel(flow, cv2.CV_32F, *axis, scale=1 / 8) ** 2 for axis in ((1, 0), (0, 1)))
    boundary = np.sum(slopes, axis=-1) > 0.01 * squared + 0.002
    inside = (at[..., 0] >= 0) & (at[..., 0] <= width - 1) & (at[..., 1] >= 0) & (at[..., 1] <= height - 1)
    return Warp(at, inside & ~occluded & ~boundary)
