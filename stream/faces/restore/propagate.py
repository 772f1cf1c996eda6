"""What the network made of one crop, carried along dense flow onto the crops round it.

The restored *picture* is carried, not its difference to its own crop: that difference holds the
noise of its frame, negated, and would add it to the noise of the next. Crops are aligned, so what
is left to follow is small; where the flow cannot explain a crop by its neighbours, the crop itself
shows through, and where that lies in the face, `Propagation.unexplained` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

_LEAST_SIDE, _MOST_SIDE = 64, 256
"""Crops are compared at half their size, within these bounds, px."""
_SPREAD = 3 / 128
"""Standard deviation of the window in which differences are judged, in parts of the side."""
_COARSE = 16
"""Changes of light are what is left of a difference at this many px a side."""
QUIETEST, NOISIEST = (0.5 / 255) ** 2, (5.0 / 255) ** 2
"""Bounds of the noise's variance. Faces of the samples: 1 to 4 levels; two different faces: 17 or more."""
EXPLAINED = 3.0
"""Energy up to so many times the noise's needs no explanation."""


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """How a crop follows from a source crop, at the side h at which they are compared."""

    flow: np.ndarray
    """f32[h,h,2] px: where in the source each px of the crop comes from, as an offset."""
    difference: np.ndarray
    """f32[h,h,3], or of luma alone f32[h,h]: crop minus the source along the flow."""
    energy: np.ndarray
    """f32[h,h]: local mean of the squared luma difference, changes of light left out."""
    noise: float
    """Median energy in the face: the two crops' noise, where most of the face is explained."""


@dataclass(frozen=True, slots=True, eq=False)
class Propagation:
    """How a crop is made up of restored sources."""

    flows: tuple[np.ndarray, ...]
    shares: tuple[np.ndarray, ...]
    """f32[h,h] each: weights of the sources, 1 in sum."""
    light: np.ndarray
    """f32[16,16,3]: change of light from the sources to the crop."""
    own: np.ndarray
    """f32[h,h] 0..1: how much of the crop itself shows."""
    unexplained: float
    """0..1: largest local root-mean-square difference in the face beyond the noise."""


class Propagator:
    """Compares aligned crops and carries restored pictures between them; for one thread.

    `landmarks` f64[5,2] are the template's, px of a crop of `size` px; they say where the face is.
    """

    def __init__(self, landmarks: np.ndarray, size: int) -> None:
        self._size = size
        self.side = side = int(np.clip(size // 2, _LEAST_SIDE, _MOST_SIDE))
        """Side h at which crops are compared, px."""
        self._face = face_region(landmarks * (side / size), side)
        self._sigma = _SPREAD * side
        self._buffers = np.empty((3, size, size, 3), np.float32)  # fresh memory: 0.3 ms each
        self._places = np.empty((size, size, 2), np.float32)
        self._grids = {n: _grid(n) for n in (side, size)}
        # At half size the quarter-pixel start of the fast preset would step over an eyelid.
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._flow.setFinestScale(1)
        # What is blurred afterwards needs no more; it takes half the time, and follows less noise.
        self._rough = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._rough.setFinestScale(1)
        self._rough.setGradientDescentIterations(6)
        self._rough.setPatchStride(6)

    def match(self, image: np.ndarray, source: np.ndarray) -> Match:
        """Follow crop `image` back to crop `source`, both f32[S,S,3] RGB 0..1."""
        return self.compare(self.shrunk(image), self.shrunk(source))

    def compare(self, here: np.ndarray, there: np.ndarray, smooth: float = 0.0) -> Match:
        """As `match`, of crops that are `shrunk` already; the flow blurred by `smooth` parts of the side."""
        now, before = _luma8(here), _luma8(there)
        if not smooth:
            return self.judge(here, there, _flow(self._flow, now, before))
        # Few steps do not get over a change of light; the mean of both is made one.
        before = cv2.convertScaleAbs(before, alpha=cv2.mean(now)[0] / max(cv2.mean(before)[0], 1.0))
        flow = _flow(self._rough, now, before)
        # Blurred at a quarter of the side: the same, in a tenth of the time.
        quarter = cv2.resize(flow, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        quarter = cv2.GaussianBlur(quarter, (0, 0), smooth * self.side / 4)
        flow = cv2.resize(quarter, flow.shape[1::-1])
        return self.judge(here, there, flow)

    def judge(self, here: np.ndarray, there: np.ndarray, flow: np.ndarray) -> Match:
        """How well a flow f32[h,h,2] explains a crop by another, both `shrunk`, or the luma of both."""
        difference = here - self.along(there, flow)
        energy = self._energy(difference)
        return Match(flow, difference, energy, float(np.median(energy[self._face])))

    def shrunk(self, image: np.ndarray) -> np.ndarray:
        """An image f32[S,S,C] at the side at which crops are compared, f32[h,h,C]."""
        # Means of 2x2 px either way at half the size; bilinear has them in a third of the time.
        mode = cv2.INTER_LINEAR if self._size == 2 * self.side else cv2.INTER_AREA
        return cv2.resize(image, (self.side, self.side), interpolation=mode)

    def places(self, flow: np.ndarray) -> np.ndarray:
        """Where in the source each px of the crop comes from, f32[S,S,2]; the next call overwrites it."""
        at = cv2.resize(flow, (self._size, self._size), dst=self._places)
        return cv2.scaleAdd(at, self._size / self.side, self._grids[self._size], dst=at)

    def moved(self, picture: np.ndarray, at: np.ndarray, buffer: np.ndarray | None = None) -> np.ndarray:
        """A source's picture f32[S,S] or f32[S,S,C] as seen at `places`, bicubic.

        Channel by channel: half the time of OpenCV's bicubic for three side by side, same result.
        """
        if picture.ndim == 2:
            return _remapped(picture, at, cv2.INTER_CUBIC, buffer)
        return cv2.merge([self.moved(plane, at) for plane in cv2.split(picture)], buffer)

    def along(self, values: np.ndarray, flow: np.ndarray, mode: int = cv2.INTER_LINEAR) -> np.ndarray:
        """A source's values f32[h,h] or f32[h,h,C] along a match's flow f32[h,h,2]."""
        at = self._grids[self.side] + flow
        if mode == cv2.INTER_CUBIC:
            return self.moved(values, at)
        return _remapped(values, at, mode)

    def large(self, values: np.ndarray, buffer: np.ndarray | None = None) -> np.ndarray:
        """Values f32[n,n] or f32[n,n,C] at the crop's size, bilinear."""
        return cv2.resize(values, (self._size, self._size), dst=buffer)

    def weigh(self, matches: Sequence[Match], parts: Sequence[float]) -> Propagation:
        """Make up a crop from its matches, `parts` being the sources' weights by nearness in time.

        A source counts in proportion to its part over its energy beyond the noise; the crop's own
        share is Wiener's, 1 - k n / e, for noise n and energy e of the blended difference.
        """
        noise = float(np.clip(min(match.noise for match in matches), QUIETEST, NOISIEST))
        weights = [
            part / (noise + np.maximum(match.energy - 2 * noise, 0))
            for match, part in zip(matches, parts, strict=True)
        ]
        total = sum(weights)
        shares = tuple((weight / total).astype(np.float32) for weight in weights)
        difference = sum(
            share[..., None] * match.difference for share, match in zip(shares, matches, strict=True)
        )
        energy = self._energy(difference)
        own = np.maximum(1 - EXPLAINED * noise / np.maximum(energy, 1e-12), 0).astype(np.float32)
        beyond = float(energy[self._face].max()) - EXPLAINED * noise
        light = coarse(difference)
        flows = tuple(match.flow for match in matches)
        return Propagation(flows, shares, light, own, float(np.sqrt(max(beyond, 0.0))))

    def carry(self, image: np.ndarray, carry: Propagation, restored: Sequence[np.ndarray]) -> np.ndarray:
        """The picture f32[S,S,3] that stands for crop `image` restored, from its restored sources."""
        moved = [
            self.moved(picture, self.places(flow), buffer)
            for picture, flow, buffer in zip(restored, carry.flows, self._buffers, strict=False)
        ]
        result = moved[0]
        if len(moved) > 1:
            share, other_share = map(self.large, carry.shares)
            result = cv2.blendLinear(result, moved[1], share, other_share, dst=result)
        light = self.large(carry.light, self._buffers[2])
        cv2.add(result, light, dst=result)
        own = self.large(carry.own)
        return cv2.blendLinear(result, image, 1 - own, own)

    def _energy(self, difference: np.ndarray) -> np.ndarray:
        """Local mean square f32[h,h] of a difference's luma without its coarse part."""
        luma = difference if difference.ndim == 2 else cv2.cvtColor(difference, cv2.COLOR_RGB2GRAY)
        fine = luma - cv2.resize(coarse(luma), luma.shape[::-1])
        return cv2.GaussianBlur(fine * fine, (0, 0), self._sigma)


def coarse(difference: np.ndarray) -> np.ndarray:
    """The part of a difference f32[n,n] or f32[n,n,C] that is a change of light, at 16 px a side."""
    return cv2.resize(difference, (_COARSE, _COARSE), interpolation=cv2.INTER_AREA)


def face_region(landmarks: np.ndarray, size: int) -> np.ndarray:
    """bool[size,size]: the ellipse from brow to chin round landmarks f64[5,2] px of upright eyes."""
    left, right = landmarks[:2]
    reach = np.linalg.norm(right - left)
    x, y = (left + right) / 2 + (0.0, 0.5 * reach)
    across, down = np.arange(size) + 0.5 - x, np.arange(size) + 0.5 - y
    inside: np.ndarray = (across[None, :] / (0.95 * reach)) ** 2 + (down[:, None] / (1.3 * reach)) ** 2 < 1
    return inside


def _flow(method: cv2.DISOpticalFlow, now: np.ndarray, before: np.ndarray) -> np.ndarray:
    """f32[h,w,2] px: where in `before` u8[h,w] each px of `now` u8[h,w] comes from, as an offset."""
    flow: np.ndarray = method.calc(now, before, None)  # type: ignore[call-overload]  # stubs forbid None
    return flow


def _remapped(picture: np.ndarray, at: np.ndarray, mode: int, buffer: np.ndarray | None = None) -> np.ndarray:
    """f32[h,w] or f32[h,w,C]: the picture at the places f32[h,w,2], mirrored beyond its edges."""
    moved: np.ndarray = cv2.remap(  # type: ignore[call-overload]  # stubs forbid None
        picture, at, None, mode, buffer, borderMode=cv2.BORDER_REFLECT_101
    )
    return moved


def _luma8(image: np.ndarray) -> np.ndarray:
    return cv2.convertScaleAbs(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), alpha=255)


def _grid(size: int) -> np.ndarray:
    axis = np.arange(size, dtype=np.float32)
    return np.dstack(np.meshgrid(axis, axis))
