"""Running averages of a restored face, carried along dense flow in crop space.

How far the past may be believed is judged on the *input* crops: where the flow does not explain one
by the other (a blink, a hand, another face), the new picture stands alone. Pictures are kept as luma
at the crop's size and colour at half of it: colour flickers in areas, not in detail.
docs/stabiliser.md holds the reasons and the figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from stream.faces.restore.propagate import EXPLAINED, NOISIEST, QUIETEST, Match, Propagator, coarse

_CHANGED = (7.0 / 255) ** 2
"""Energy beyond the noise's at which a px has a new state: a blink leaves 7 to 16 levels unexplained."""
_ANOTHER = (11.0 / 255) ** 2
"""Median energy in the face from which it is not the same face: a cut that nobody saw."""
_SMOOTH = 13 / 256
"""Standard deviation of the blur of the flow, in parts of the side: motion finer than a face's is noise
that the flow went after, and to average along that would keep it."""
_BLACK = np.float32(0.03)
"""Luma that is added before light is taken as a factor: in the dark a ratio is noise."""
_FINE = 1.5
"""Detail is what a blur of this standard deviation takes away, px of a crop of 256."""
_SETTLES = 0.25
"""Part of the way to the newest frame's energies that the running ones go."""
_AT_FIRST = 6
"""Frames of a face in each of which detail is measured."""
_MOST_RAISED = 0.6
"""Most of the detail that is added to it."""
_EDGE = 0.16
"""Detail is measured this far from the crop's border, in parts of its side."""


class Tones(NamedTuple):
    """A picture, or the difference of two."""

    luma: np.ndarray
    """f32[S,S], BT.601"""
    colour: np.ndarray
    """f32[h,h,2]: red and blue less luma, at the side at which crops are compared."""


@dataclass(frozen=True, slots=True, eq=False)
class SmoothedFace:
    """A face as it is remembered from one frame to the next."""

    small: np.ndarray
    """f32[h,h,3]: the input crop."""
    own: Tones
    """The network's picture of this frame alone."""
    mean: Tones
    """That picture averaged with the past."""
    count: np.ndarray
    """f32[h,h], 1 and more: how many restorations each px is averaged of."""
    match: Match | None = None
    """How this crop follows from the one before; None: it does not."""


class Averager:
    """Averages crops of one size; for one thread.

    `landmarks` f64[5,2] are the template's, px of a crop of `size` px.
    """

    def __init__(self, landmarks: np.ndarray, size: int) -> None:
        self._carrier = Propagator(landmarks, size)
        self._sigma = _FINE * size / 256
        edge, reach = round(_EDGE * size), int(np.ceil(4 * self._sigma))
        self._inner = np.s_[edge:-edge, edge:-edge]
        # What the blur reads beyond it.
        self._round = np.s_[edge - reach : reach - edge, edge - reach : reach - edge]
        self._buffers = np.empty((2, size, size, 3), np.float32)  # fresh memory costs more than the sums
        self._planes = np.empty((5, size, size), np.float32)

    def begin(self, image: np.ndarray, change: np.ndarray, weight: float) -> SmoothedFace:
        """A face of which nothing is known yet.

        `image` f32[S,S,3] is the input crop, `change` f32[S,S,3] over `weight` what the network made of
        it, less the crop.
        """
        small, own = self._seen(image, change, weight)
        return SmoothedFace(small, own, own, np.ones(small.shape[:2], np.float32))

    def follow(
        self, past: SmoothedFace, image: np.ndarray, change: np.ndarray, weight: float, longest: float
    ) -> SmoothedFace:
        """The next frame of a face, averaged over `longest` (1 and more) restorations at most; see `begin`.

        A running mean: the new picture weighs 1 / n, n being 1 + trust times the past's n. That is
        the filter of Kalman (1960) for a face that stays as it is where the trust is 1, begun anew
        where it is 0.
        """
        carrier = self._carrier
        small, own = self._seen(image, change, weight)
        match = carrier.compare(small, past.small, _SMOOTH)
        if match.noise > _ANOTHER:
            return SmoothedFace(small, own, own, np.ones(small.shape[:2], np.float32))
        count = np.minimum(1 + _trust(match) * carrier.along(past.count, match.flow), np.float32(longest))
        mean = self._mixed(own, past.mean, match.flow, _light(small, match), 1 - 1 / count)
        return SmoothedFace(small, own, mean, count, match)

    def joined(self, state: SmoothedFace, following: SmoothedFace, most: float) -> Tones:
        """The state's mean with the luma of the next frame's own picture, which counts as `most`, 0..1.

        The flow back from the next frame is known; its inverse g(x) = -f(x + g(x)) is one step of the
        fixed-point iteration of Chen et al. (2008) from g = -f. It is judged anew: what is there now and
        gone in the next frame, no flow from there leads to.
        """
        if following.match is None:
            return state.mean
        carrier, flow = self._carrier, following.match.flow
        here, there = (cv2.cvtColor(one.small, cv2.COLOR_RGB2GRAY) for one in (state, following))
        match = carrier.judge(here, there, -carrier.along(flow, -flow))
        share = most * _trust(match)
        share = share / (state.count + share)
        gain = _gain(coarse(here), coarse(match.difference))
        luma = self._mixed_luma(state.mean.luma, following.own.luma, match.flow, gain, share)
        return Tones(luma, state.mean.colour)  # what the next would add to the colour is not seen

    def changed(self, change: np.ndarray, weight: float, own: Tones, wanted: Tones) -> np.ndarray:
        """`change` f32[S,S,3] for a picture that is to be `wanted` in place of its `own`; see `begin`."""
        colour = self._carrier.large(_grey(wanted.colour - own.colour), self._buffers[0])
        luma = cv2.subtract(wanted.luma, own.luma, dst=self._planes[0])
        luma = cv2.cvtColor(luma, cv2.COLOR_GRAY2RGB, dst=self._buffers[1])
        return cv2.scaleAdd(cv2.add(colour, luma, dst=colour), weight, change)

    def sharpened(self, tones: Tones, own: Tones, detail: Detail) -> Tones:
        """`tones` with as much energy of detail as the network's `own` picture has; `detail` is brought on.

        What two restorations do not share averages out, and with it some of what they should. With f
        the detail of the mean's luma and g the detail of f, adding a f changes its energy from <f f>
        to <f f> + 2 a <f g> + a^2 <g g>: the a that restores it, 0.6 at most, from running sums.
        """
        near, inner, (blurred, alone, fine, finer, _) = self._round, self._inner, self._planes
        self._fine(tones.luma, blurred, fine)
        if detail.is_due:
            self._fine(own.luma[near], blurred[near], alone[near])
            self._fine(fine[near], blurred[near], finer[near])
            detail.take(alone[inner], fine[inner], finer[inner])
        if detail.raised < 1e-3:
            return tones
        return Tones(cv2.scaleAdd(fine, detail.raised, tones.luma), tones.colour)

    def _seen(self, image: np.ndarray, change: np.ndarray, weight: float) -> tuple[np.ndarray, Tones]:
        """The crop shrunk, and the network's picture."""
        carrier = self._carrier
        small = carrier.shrunk(image)
        colour = _colour(cv2.scaleAdd(carrier.shrunk(change), 1 / weight, small))
        luma = cv2.cvtColor(change, cv2.COLOR_RGB2GRAY, dst=self._planes[0])
        return small, Tones(cv2.scaleAdd(luma, 1 / weight, cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)), colour)

    def _mixed(
        self,
        tones: Tones,
        other: Tones,
        flow: np.ndarray,
        light: tuple[np.ndarray, np.ndarray],
        share: np.ndarray,
    ) -> Tones:
        """Tones with a `share` f32[h,h] of another frame's, brought along a flow and into a new `_light`."""
        carrier = self._carrier
        colour = carrier.along(other.colour, flow, cv2.INTER_CUBIC)
        colour += cv2.resize(light[1], share.shape[::-1])
        return Tones(
            self._mixed_luma(tones.luma, other.luma, flow, light[0], share),
            cv2.blendLinear(tones.colour, colour, 1 - share, share),
        )

    def _mixed_luma(
        self, luma: np.ndarray, other: np.ndarray, flow: np.ndarray, gain: np.ndarray, share: np.ndarray
    ) -> np.ndarray:
        carrier, (plane, lit, large, rest, _) = self._carrier, self._planes
        other = carrier.moved(other, carrier.places(flow), plane)
        carrier.large(gain, lit)
        other += _BLACK
        other *= lit
        other -= _BLACK
        carrier.large(share, large)
        np.subtract(1, large, out=rest)
        return cv2.blendLinear(luma, other, rest, large)

    def _fine(self, luma: np.ndarray, blurred: np.ndarray, result: np.ndarray) -> None:
        cv2.GaussianBlur(luma, (0, 0), self._sigma, dst=blurred)
        cv2.subtract(luma, blurred, dst=result)


class Detail:
    """Energies of detail of one face, running means; see `Averager.sharpened`."""

    def __init__(self) -> None:
        self.raised = 0.0
        """The part of the detail to add, 0..0.6."""
        self._energies: np.ndarray | None = None
        self._frames = 0

    @property
    def is_due(self) -> bool:
        """Whether this frame is to be measured; asked once for each. Later frames are every third time."""
        self._frames += 1
        return self._frames <= _AT_FIRST or self._frames % 3 == 0

    def take(self, alone: np.ndarray, fine: np.ndarray, finer: np.ndarray) -> None:
        """One more frame's detail f32[n,n] in the face."""
        own, mean, twice = (cv2.norm(part, cv2.NORM_L2SQR) for part in (alone, fine, finer))
        common = float(np.vdot(fine, finer))
        energies = np.array([own, mean, common, twice])
        if self._energies is None:
            self._energies = energies
        self._energies += _SETTLES * (energies - self._energies)
        own, mean, common, twice = self._energies
        lost = max(own - mean, 0.0)
        raised = (np.sqrt(common * common + twice * lost) - common) / max(twice, 1e-12)
        self.raised = float(min(raised, _MOST_RAISED))


def _colour(rgb: np.ndarray) -> np.ndarray:
    """Red and blue less luma, f32[n,n,2]; by planes, in a third of the time of `cv2.transform`."""
    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return cv2.merge([cv2.subtract(cv2.extractChannel(rgb, at), luma) for at in (0, 2)])


def _grey(colour: np.ndarray) -> np.ndarray:
    """RGB f32[n,n,3] without luma (BT.601) of that `_colour`."""
    red, blue = (cv2.extractChannel(colour, at) for at in (0, 1))
    return cv2.merge([red, cv2.addWeighted(red, -0.299 / 0.587, blue, -0.114 / 0.587, 0), blue])


def _light(small: np.ndarray, match: Match) -> tuple[np.ndarray, np.ndarray]:
    """How light changed from a match's source to its crop f32[h,h,3].

    The `_gain` of luma, and an offset of the colour f32[16,16,2].
    """
    change = coarse(match.difference)
    gain = _gain(*(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in (coarse(small), change)))
    return gain, _colour(change)


def _gain(now: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The factor of (luma + black) f32[16,16] by which light changed, from coarse luma and its change.

    A factor, since what is lit more has more contrast too.
    """
    now = now + _BLACK
    gain: np.ndarray = now / np.maximum(now - change, _BLACK)
    return gain


def _trust(match: Match) -> np.ndarray:
    """How far a match's source explains its crop, f32[h,h] 0..1: wholly up to thrice the noise's energy."""
    noise = float(np.clip(match.noise, QUIETEST, NOISIEST))
    t = np.clip(1 - (match.energy - EXPLAINED * noise) / _CHANGED, 0, 1)
    trust: np.ndarray = t * t * (3 - 2 * t)
    return trust
