"""Running averages of a restored face, warped from frame to frame along dense flow in crop space.

How much of the past is used is judged on the *input* crops: where the flow does not explain one by the
other (a blink, a hand, another face), the new picture stands alone. Pictures are kept as luma at the
crop's size and chroma at half of it: colour flickers in areas, not in detail.
docs/stabiliser.md holds the reasons and the figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from stream.faces.restore.propagate import (
    MAX_NOISE,
    MIN_NOISE,
    NOISE_FACTOR,
    Match,
    Propagator,
    light_change,
)

_CHANGED = (7.0 / 255) ** 2
"""Energy beyond the noise's at which a pixel has changed: a blink leaves 7 to 16 levels unexplained."""
_OTHER_FACE = (11.0 / 255) ** 2
"""Median energy in the face above which it is another face, as after a cut that was not detected."""
_FLOW_BLUR = 13 / 256
"""Standard deviation of the blur of the flow, as a part of the side. Motion finer than a face's is noise
that the flow followed; to average along it would preserve that noise."""
_BLACK = np.float32(0.03)
"""Added to luma before two frames' light is compared as a ratio: in the dark a ratio is noise."""
_DETAIL_SIGMA = 1.5
"""Detail is what a blur of this standard deviation removes, px of a crop of 256."""
_ENERGY_GAIN = 0.25
"""Weight of the newest frame in the running averages of energies."""
_FIRST_FRAMES = 6
"""A face's detail is measured in each of its first `_FIRST_FRAMES` frames, then in every third."""
_MAX_DETAIL_GAIN = 0.6
_DETAIL_MARGIN = 0.16
"""Detail is measured this far from the crop's border, as a part of its side."""


class LumaChroma(NamedTuple):
    """A picture, or the difference of two."""

    luma: np.ndarray
    """f32[S,S]: luma by BT.601."""
    chroma: np.ndarray
    """f32[h,h,2]: red and blue minus luma, at the side at which crops are compared."""


@dataclass(frozen=True, slots=True, eq=False)
class SmoothedFace:
    """The state of one face that the next frame needs."""

    crop: np.ndarray
    """f32[h,h,3]: the input crop."""
    restored: LumaChroma
    """The network's picture of this frame alone."""
    average: LumaChroma
    """The average of `restored` and earlier frames."""
    count: np.ndarray
    """f32[h,h], 1 and more: of how many restorations each pixel is the average."""
    match: Match | None = None
    """How this crop follows from the previous one; None if it does not."""


class Averager:
    """Averages crops of one size; for one thread.

    `landmarks` f64[5,2] are the template's, px of a crop of `size` px.
    """

    def __init__(self, landmarks: np.ndarray, size: int) -> None:
        self._propagator = Propagator(landmarks, size)
        self._sigma = _DETAIL_SIGMA * size / 256
        margin, reach = round(_DETAIL_MARGIN * size), int(np.ceil(4 * self._sigma))
        self._inner = np.s_[margin:-margin, margin:-margin]
        # The blur also reads this far round it.
        self._padded = np.s_[margin - reach : reach - margin, margin - reach : reach - margin]
        self._buffers = np.empty((2, size, size, 3), np.float32)  # fresh memory costs more than the sums
        self._planes = np.empty((5, size, size), np.float32)

    def begin(self, image: np.ndarray, residual: np.ndarray, weight: float) -> SmoothedFace:
        """The first frame of a face.

        `image` f32[S,S,3] is the input crop. `residual` f32[S,S,3] is `weight` times (restored - crop).
        """
        crop, restored = self._restored(image, residual, weight)
        return SmoothedFace(crop, restored, restored, np.ones(crop.shape[:2], np.float32))

    def follow(
        self,
        past: SmoothedFace,
        image: np.ndarray,
        residual: np.ndarray,
        weight: float,
        max_count: float,
    ) -> SmoothedFace:
        """The next frame of a face, averaged over at most `max_count` (1 and more) restorations.

        The other arguments are as for `begin`. The average is a running one: the new picture weighs
        1 / n, n being 1 + r times the past's n, for the reliability r of the match. Where r is 1 that is
        the filter of Kalman (1960) for a constant state; where r is 0 the average starts again.
        """
        propagator = self._propagator
        crop, restored = self._restored(image, residual, weight)
        match = propagator.match_small(crop, past.crop, _FLOW_BLUR)
        if match.noise > _OTHER_FACE:
            return SmoothedFace(crop, restored, restored, np.ones(crop.shape[:2], np.float32))
        past_count = propagator.warp_small(past.count, match.flow)
        count = np.minimum(1 + _reliability(match) * past_count, np.float32(max_count))
        light = _light_of(crop, match)
        average = self._mixed(restored, past.average, match.flow, light, 1 - 1 / count)
        return SmoothedFace(crop, restored, average, count, match)

    def with_next(self, state: SmoothedFace, following: SmoothedFace, count: float) -> LumaChroma:
        """The state's average, with the luma of the next frame's picture counted as `count` (0..1) more.

        The flow f from the next frame back to this one is known. Its inverse g(x) = -f(x + g(x)) is
        approximated by one step of the fixed-point iteration of Chen et al. (2008) from g = -f. Its
        reliability is judged anew: no flow leads to what is here now and gone in the next frame.
        """
        if following.match is None:
            return state.average
        propagator, flow = self._propagator, following.match.flow
        luma, next_luma = (cv2.cvtColor(one.crop, cv2.COLOR_RGB2GRAY) for one in (state, following))
        match = propagator.match_along(luma, next_luma, -propagator.warp_small(flow, -flow))
        share = count * _reliability(match)
        share = share / (state.count + share)
        gain = _light_gain(light_change(luma), light_change(match.difference))
        mixed = self._mixed_luma(state.average.luma, following.restored.luma, match.flow, gain, share)
        return LumaChroma(mixed, state.average.chroma)  # what the next frame adds to chroma is not seen

    def residual_for(
        self, wanted: LumaChroma, restored: LumaChroma, residual: np.ndarray, weight: float
    ) -> np.ndarray:
        """The residual f32[S,S,3] that gives `wanted` where `residual` gave `restored`; see `begin`."""
        rgb = self._propagator.upscale(_to_rgb(wanted.chroma - restored.chroma), self._buffers[0])
        luma = cv2.subtract(wanted.luma, restored.luma, dst=self._planes[0])
        luma = cv2.cvtColor(luma, cv2.COLOR_GRAY2RGB, dst=self._buffers[1])
        return cv2.scaleAdd(cv2.add(rgb, luma, dst=rgb), weight, residual)

    def sharpened(self, average: LumaChroma, restored: LumaChroma, detail: DetailGain) -> LumaChroma:
        """`average` with as much energy of detail as the network's `restored` picture; updates `detail`.

        What two restorations do not share averages out, and with it some of the detail that they should
        keep. With f the detail of the average's luma and g the detail of f, adding a f changes its energy
        from <f f> to <f f> + 2 a <f g> + a^2 <g g>. Running averages of these energies give the a that
        restores the energy, 0.6 at most.
        """
        padded, inner = self._padded, self._inner
        blurred, single, fine, finer, _ = self._planes
        self._fine(average.luma, blurred, fine)
        if detail.begin_frame():
            self._fine(restored.luma[padded], blurred[padded], single[padded])
            self._fine(fine[padded], blurred[padded], finer[padded])
            detail.update(single[inner], fine[inner], finer[inner])
        if detail.gain < 1e-3:
            return average
        return LumaChroma(cv2.scaleAdd(fine, detail.gain, average.luma), average.chroma)

    def _restored(
        self, image: np.ndarray, residual: np.ndarray, weight: float
    ) -> tuple[np.ndarray, LumaChroma]:
        """The downscaled crop, and the network's picture."""
        propagator = self._propagator
        crop = propagator.downscale(image)
        chroma = _chroma(cv2.scaleAdd(propagator.downscale(residual), 1 / weight, crop))
        luma = cv2.cvtColor(residual, cv2.COLOR_RGB2GRAY, dst=self._planes[0])
        return crop, LumaChroma(
            cv2.scaleAdd(luma, 1 / weight, cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)), chroma
        )

    def _mixed(
        self,
        picture: LumaChroma,
        past: LumaChroma,
        flow: np.ndarray,
        light: tuple[np.ndarray, np.ndarray],
        share: np.ndarray,
    ) -> LumaChroma:
        """A picture mixed with a `share` f32[h,h] of the past, warped along a flow and relit by `light`."""
        chroma = self._propagator.warp_small(past.chroma, flow, cv2.INTER_CUBIC)
        chroma += cv2.resize(light[1], share.shape[::-1])
        return LumaChroma(
            self._mixed_luma(picture.luma, past.luma, flow, light[0], share),
            cv2.blendLinear(picture.chroma, chroma, 1 - share, share),
        )

    def _mixed_luma(
        self, luma: np.ndarray, other: np.ndarray, flow: np.ndarray, gain: np.ndarray, share: np.ndarray
    ) -> np.ndarray:
        """Luma f32[S,S] mixed with a `share` f32[h,h] of another, warped and multiplied by `_light_gain`."""
        propagator, (plane, factor, large_share, rest, _) = self._propagator, self._planes
        other = propagator.warp(other, propagator.sample_map(flow), plane)
        propagator.upscale(gain, factor)
        other += _BLACK
        other *= factor
        other -= _BLACK
        propagator.upscale(share, large_share)
        np.subtract(1, large_share, out=rest)
        return cv2.blendLinear(luma, other, rest, large_share)

    def _fine(self, luma: np.ndarray, blurred: np.ndarray, result: np.ndarray) -> None:
        """Write the detail of luma to `result`, its blur to `blurred`; all f32 of one shape."""
        cv2.GaussianBlur(luma, (0, 0), self._sigma, dst=blurred)
        cv2.subtract(luma, blurred, dst=result)


class DetailGain:
    """How much detail one face's average has lost, by running averages; see `Averager.sharpened`."""

    def __init__(self) -> None:
        self.gain = 0.0
        """The part of the average's detail to add to it, 0..0.6."""
        self._energies: np.ndarray | None = None
        self._frames = 0

    def begin_frame(self) -> bool:
        """Count one more frame; returns whether its detail is to be measured."""
        self._frames += 1
        return self._frames <= _FIRST_FRAMES or self._frames % 3 == 0

    def update(self, single: np.ndarray, fine: np.ndarray, finer: np.ndarray) -> None:
        """Add a frame's detail f32[n,n] in the face: of its restoration, its average, and of that detail."""
        own, mean, twice = (cv2.norm(part, cv2.NORM_L2SQR) for part in (single, fine, finer))
        common = float(np.vdot(fine, finer))
        energies = np.array([own, mean, common, twice])
        if self._energies is None:
            self._energies = energies
        self._energies += _ENERGY_GAIN * (energies - self._energies)
        own, mean, common, twice = self._energies
        lost = max(own - mean, 0.0)
        gain = (np.sqrt(common * common + twice * lost) - common) / max(twice, 1e-12)
        self.gain = float(min(gain, _MAX_DETAIL_GAIN))


def _chroma(rgb: np.ndarray) -> np.ndarray:
    """Red and blue minus luma, f32[n,n,2]; by planes, in a third of the time of `cv2.transform`."""
    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return cv2.merge([cv2.subtract(cv2.extractChannel(rgb, at), luma) for at in (0, 2)])


def _to_rgb(chroma: np.ndarray) -> np.ndarray:
    """RGB f32[n,n,3] of that chroma f32[n,n,2] and luma 0 (BT.601)."""
    red, blue = (cv2.extractChannel(chroma, at) for at in (0, 1))
    return cv2.merge([red, cv2.addWeighted(red, -0.299 / 0.587, blue, -0.114 / 0.587, 0), blue])


def _light_of(crop: np.ndarray, match: Match) -> tuple[np.ndarray, np.ndarray]:
    """How light changed from a match's source to its crop f32[h,h,3].

    Returns the `_light_gain` of luma f32[16,16] and an offset of chroma f32[16,16,2].
    """
    change = light_change(match.difference)
    gain = _light_gain(*(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in (light_change(crop), change)))
    return gain, _chroma(change)


def _light_gain(luma: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The factor f32[16,16] by which (luma + black) changed, from coarse luma and its change f32[16,16].

    A factor, since brighter light also raises contrast.
    """
    luma = luma + _BLACK
    gain: np.ndarray = luma / np.maximum(luma - change, _BLACK)
    return gain


def _reliability(match: Match) -> np.ndarray:
    """How well a match's source explains its crop, f32[h,h] in 0..1; 1 up to thrice the noise's energy."""
    noise = float(np.clip(match.noise, MIN_NOISE, MAX_NOISE))
    t = np.clip(1 - (match.energy - NOISE_FACTOR * noise) / _CHANGED, 0, 1)
    reliability: np.ndarray = t * t * (3 - 2 * t)
    return reliability
