"""Propagates a restored face along dense flow onto the same face in nearby frames.

The restored *picture* is propagated, not its difference from its crop: that difference holds the noise of
its frame, negated, and would add it to the noise of the next. Crops are aligned, so little motion is left
to follow. Where the flow cannot explain a crop by its neighbours, the crop itself shows through.
`Propagation.unexplained` says whether that happens in the face.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

_MIN_SIDE, _MAX_SIDE = 64, 256
"""Bounds of the side at which crops are compared, px; between them it is half the crop's side."""
_WINDOW_SIGMA = 3 / 128
"""Standard deviation of the window in which differences are averaged, as a part of the side."""
_LIGHT_SIDE = 16
"""Side, px, to which a difference of crops is reduced; the rest of it counts as a change of light."""
MIN_NOISE, MAX_NOISE = (0.5 / 255) ** 2, (5.0 / 255) ** 2
"""Bounds of the noise's variance. Faces of the samples: 1 to 4 levels; two different faces: 17 or more."""
NOISE_FACTOR = 3.0
"""Energy up to this multiple of the noise's variance counts as noise."""


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """How a crop follows from a source crop. All arrays have the side h at which crops are compared."""

    flow: np.ndarray
    """f32[h,h,2] px: offset from each pixel of the crop to the place in the source that it comes from."""
    difference: np.ndarray
    """f32[h,h,3], or f32[h,h] of luma alone: the crop minus the source warped along the flow."""
    energy: np.ndarray
    """f32[h,h]: local mean of the squared luma difference, without changes of light."""
    noise: float
    """Median of the energy in the face: the noise of both crops, where most of the face is explained."""


@dataclass(frozen=True, slots=True, eq=False)
class Propagation:
    """How the restored picture of a crop is composed of its restored sources, one or two of them."""

    flows: tuple[np.ndarray, ...]
    """The flow of each source, as `Match.flow`."""
    weights: tuple[np.ndarray, ...]
    """The weight of each source, f32[h,h]; they sum to 1."""
    light: np.ndarray
    """f32[16,16,3]: change of light from the sources to the crop, added to the warped pictures."""
    crop_weight: np.ndarray
    """f32[h,h] in 0..1: how much of the unrestored crop shows."""
    unexplained: float
    """0..1: largest local root-mean-square difference in the face, beyond the noise."""


class Propagator:
    """Compares aligned crops and propagates restored pictures between them; for one thread.

    `landmarks` f64[5,2] are the template's, in px of a crop of `size` px. They say where the face is.
    """

    def __init__(self, landmarks: np.ndarray, size: int) -> None:
        self._size = size
        self.side = side = int(np.clip(size // 2, _MIN_SIDE, _MAX_SIDE))
        """Side h at which crops are compared, px."""
        self._face = face_region(landmarks * (side / size), side)
        self._sigma = _WINDOW_SIGMA * side
        self._buffers = np.empty((3, size, size, 3), np.float32)  # fresh memory: 0.3 ms each
        self._sample_map = np.empty((size, size, 2), np.float32)
        self._grids = {n: _grid(n) for n in (side, size)}
        # At half size the quarter-pixel start of the fast preset would step over an eyelid.
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._flow.setFinestScale(1)
        # A flow that is blurred afterwards needs fewer steps: half the time, and it follows less noise.
        self._rough_flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._rough_flow.setFinestScale(1)
        self._rough_flow.setGradientDescentIterations(6)
        self._rough_flow.setPatchStride(6)

    def match(self, crop: np.ndarray, source: np.ndarray) -> Match:
        """Match a crop to a source crop, both f32[S,S,3] RGB in 0..1."""
        return self.match_small(self.downscale(crop), self.downscale(source))

    def match_small(self, crop: np.ndarray, source: np.ndarray, flow_blur: float = 0.0) -> Match:
        """Match crops f32[h,h,3] that `downscale` made.

        `flow_blur` is the standard deviation by which the flow is blurred, as a part of the side.
        """
        now, before = _luma8(crop), _luma8(source)
        if not flow_blur:
            return self.match_along(crop, source, _flow(self._flow, now, before))
        # A rough flow does not survive a change of light, so both get the same mean.
        before = cv2.convertScaleAbs(before, alpha=cv2.mean(now)[0] / max(cv2.mean(before)[0], 1.0))
        flow = _flow(self._rough_flow, now, before)
        # Blurred at a quarter of the side: the same result in a tenth of the time.
        quarter = cv2.resize(flow, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        quarter = cv2.GaussianBlur(quarter, (0, 0), flow_blur * self.side / 4)
        flow = cv2.resize(quarter, flow.shape[1::-1])
        return self.match_along(crop, source, flow)

    def match_along(self, crop: np.ndarray, source: np.ndarray, flow: np.ndarray) -> Match:
        """The match that a given flow f32[h,h,2] makes, of crops f32[h,h,3] or their luma f32[h,h]."""
        difference = crop - self.warp_small(source, flow)
        energy = self._energy(difference)
        return Match(flow, difference, energy, float(np.median(energy[self._face])))

    def downscale(self, image: np.ndarray) -> np.ndarray:
        """An image f32[S,S,C] at the side at which crops are compared, f32[h,h,C]."""
        # At half the size both modes average 2x2 px; bilinear takes a third of the time.
        mode = cv2.INTER_LINEAR if self._size == 2 * self.side else cv2.INTER_AREA
        return cv2.resize(image, (self.side, self.side), interpolation=mode)

    def upscale(self, values: np.ndarray, buffer: np.ndarray | None = None) -> np.ndarray:
        """Values f32[n,n] or f32[n,n,C] at the crop's size S, bilinear; written to `buffer` if given."""
        return cv2.resize(values, (self._size, self._size), dst=buffer)

    def sample_map(self, flow: np.ndarray) -> np.ndarray:
        """The map f32[S,S,2] that `warp` needs for a flow f32[h,h,2]; the next call overwrites it."""
        at = cv2.resize(flow, (self._size, self._size), dst=self._sample_map)
        return cv2.scaleAdd(at, self._size / self.side, self._grids[self._size], dst=at)

    def warp(self, picture: np.ndarray, at: np.ndarray, buffer: np.ndarray | None = None) -> np.ndarray:
        """A picture f32[S,S] or f32[S,S,C] sampled at the places f32[S,S,2], bicubic.

        Each channel is warped by itself: the result of OpenCV's bicubic for three interleaved channels,
        in half the time.
        """
        if picture.ndim == 2:
            return _remapped(picture, at, cv2.INTER_CUBIC, buffer)
        return cv2.merge([self.warp(plane, at) for plane in cv2.split(picture)], buffer)

    def warp_small(self, values: np.ndarray, flow: np.ndarray, mode: int = cv2.INTER_LINEAR) -> np.ndarray:
        """A source's values f32[h,h] or f32[h,h,C] warped along a flow f32[h,h,2]; `mode` as in OpenCV."""
        at = self._grids[self.side] + flow
        if mode == cv2.INTER_CUBIC:
            return self.warp(values, at)
        return _remapped(values, at, mode)

    def plan(self, matches: Sequence[Match], nearness: Sequence[float]) -> Propagation:
        """Decide how a crop is composed of its sources, given a match with each.

        `nearness` weighs the sources by their distance in time. A source's weight is its nearness over
        its energy beyond the noise. The crop's own weight is Wiener's, 1 - k n / e, for the noise n and
        the energy e of the blended difference.
        """
        noise = float(np.clip(min(match.noise for match in matches), MIN_NOISE, MAX_NOISE))
        scores = [
            near / (noise + np.maximum(match.energy - 2 * noise, 0))
            for match, near in zip(matches, nearness, strict=True)
        ]
        total = sum(scores)
        weights = tuple((score / total).astype(np.float32) for score in scores)
        difference = sum(
            weight[..., None] * match.difference for weight, match in zip(weights, matches, strict=True)
        )
        energy = self._energy(difference)
        crop_weight = np.maximum(1 - NOISE_FACTOR * noise / np.maximum(energy, 1e-12), 0).astype(np.float32)
        beyond = float(energy[self._face].max()) - NOISE_FACTOR * noise
        flows = tuple(match.flow for match in matches)
        unexplained = float(np.sqrt(max(beyond, 0.0)))
        return Propagation(flows, weights, light_change(difference), crop_weight, unexplained)

    def propagate(self, crop: np.ndarray, plan: Propagation, restored: Sequence[np.ndarray]) -> np.ndarray:
        """The restored picture f32[S,S,3] of a crop f32[S,S,3], from those of its sources."""
        warped = [
            self.warp(picture, self.sample_map(flow), buffer)
            for picture, flow, buffer in zip(restored, plan.flows, self._buffers, strict=False)
        ]
        result = warped[0]
        if len(warped) > 1:
            weight, other_weight = map(self.upscale, plan.weights)
            result = cv2.blendLinear(result, warped[1], weight, other_weight, dst=result)
        light = self.upscale(plan.light, self._buffers[2])
        cv2.add(result, light, dst=result)
        crop_weight = self.upscale(plan.crop_weight)
        return cv2.blendLinear(result, crop, 1 - crop_weight, crop_weight)

    def _energy(self, difference: np.ndarray) -> np.ndarray:
        """Local mean square f32[h,h] of a difference's luma, without the change of light."""
        luma = difference if difference.ndim == 2 else cv2.cvtColor(difference, cv2.COLOR_RGB2GRAY)
        fine = luma - cv2.resize(light_change(luma), luma.shape[::-1])
        return cv2.GaussianBlur(fine * fine, (0, 0), self._sigma)


def light_change(difference: np.ndarray) -> np.ndarray:
    """The part of a difference f32[n,n] or f32[n,n,C] that is a change of light, f32[16,16] or [16,16,C]."""
    return cv2.resize(difference, (_LIGHT_SIDE, _LIGHT_SIDE), interpolation=cv2.INTER_AREA)


def face_region(landmarks: np.ndarray, size: int) -> np.ndarray:
    """bool[size,size]: an ellipse from brow to chin round landmarks f64[5,2] px of an upright face."""
    left, right = landmarks[:2]
    reach = np.linalg.norm(right - left)
    x, y = (left + right) / 2 + (0.0, 0.5 * reach)
    across, down = np.arange(size) + 0.5 - x, np.arange(size) + 0.5 - y
    inside: np.ndarray = (across[None, :] / (0.95 * reach)) ** 2 + (down[:, None] / (1.3 * reach)) ** 2 < 1
    return inside


def _flow(method: cv2.DISOpticalFlow, now: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Flow f32[h,w,2] px from `now` u8[h,w] to `before` u8[h,w]; see `Match.flow`."""
    flow: np.ndarray = method.calc(now, before, None)  # type: ignore[call-overload]  # stubs forbid None
    return flow


def _remapped(picture: np.ndarray, at: np.ndarray, mode: int, buffer: np.ndarray | None = None) -> np.ndarray:
    """A picture f32[h,w] or f32[h,w,C] sampled at places f32[h,w,2]; mirrored beyond its edges."""
    warped: np.ndarray = cv2.remap(  # type: ignore[call-overload]  # stubs forbid None
        picture, at, None, mode, buffer, borderMode=cv2.BORDER_REFLECT_101
    )
    return warped


def _luma8(image: np.ndarray) -> np.ndarray:
    return cv2.convertScaleAbs(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), alpha=255)


def _grid(size: int) -> np.ndarray:
    axis = np.arange(size, dtype=np.float32)
    return np.dstack(np.meshgrid(axis, axis))
