"""Patches -> steadier patches: what the network makes anew of each frame no longer flickers.

A restorer knows one frame at a time and invents each frame's detail by itself. Here each restored
picture is averaged with those before it, and with the next where frames may wait, carried along
dense flow in crop space. How far the past may be believed is judged on the *input* crops: where the
flow does not explain one by the other (a blink, a hand, another face), the new picture stands
alone. docs/stabiliser.md holds the reasons and the figures; `tests/bench/bench_stabilise.py` makes
them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from stream import geometry
from stream.carry import EXPLAINED, NOISIEST, QUIETEST, Carrier, Match, coarse
from stream.face import Crop, FrameWork, Patch

_LONGEST = 6.0
"""Restorations that make up a picture at full strength, as many as the past may count for."""
_CHANGED = (7.0 / 255) ** 2
"""Energy beyond the noise's at which a px has a new state: a blink leaves 7 to 16 levels unexplained."""
_ANOTHER = (11.0 / 255) ** 2
"""Median energy in the face from which it is not the same face: a cut that nobody saw."""
_PATIENCE = 5
"""Frames without a face after which what was known of it is forgotten."""
_FINE = 1.5
"""Detail is what a blur of this standard deviation takes away, px of a crop of 256."""
_SETTLES = 0.15
"""Part of the way to the newest frame's loss of detail that each frame goes."""
_MOST_GAIN = 1.2
"""Most by which detail is raised again."""
_EDGE = 0.16
"""Detail is measured under this feathered box, as a part of the crop."""


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A face as it is remembered from one frame to the next."""

    image: np.ndarray
    """f32[S,S,3]: the input crop."""
    restored: np.ndarray
    """f32[S,S,3]: the network's picture of this frame alone."""
    picture: np.ndarray
    """f32[S,S,3]: averaged with the past."""
    count: np.ndarray
    """f32[h,h], 1 and more: how many restorations each px is averaged of."""
    match: Match | None = None
    """How this crop follows from the one before; None: it does not."""
    trust: np.ndarray | None = None
    """f32[h,h] 0..1: how far the one before explains this one."""


class Stabiliser:
    """The averages of one size of crops; for one thread.

    `landmarks` f64[5,2] are the template's, px of a crop of `size` px.
    """

    def __init__(self, landmarks: np.ndarray, size: int) -> None:
        self._carrier = Carrier(landmarks, size)
        self._size, self._sigma = size, _FINE * size / 256
        self._mask = geometry.feather_mask(size, _EDGE)

    def begin(self, image: np.ndarray, restored: np.ndarray) -> State:
        """A face of which nothing is known yet, from its crop and the network's picture f32[S,S,3]."""
        side = self._carrier.side
        return State(image, restored, restored, np.ones((side, side), np.float32))

    def follow(self, past: State, image: np.ndarray, restored: np.ndarray, longest: float) -> State:
        """The next frame of a face, averaged over `longest` (1 and more) restorations at most.

        A running mean, weight 1 / n for the new picture, n being 1 + trust times the past's n: the
        steady-state filter of Kalman (1960) for a face that stays as it is where the trust is 1,
        begun anew where it is 0.
        """
        carrier = self._carrier
        match = carrier.match(image, past.image)
        if match.noise > _ANOTHER:
            return self.begin(image, restored)
        trust = _trust(match)
        count = np.minimum(1 + trust * carrier.along(past.count, match.flow), np.float32(longest))
        before = self._lit(carrier.moved(past.picture, match.flow), coarse(match.difference))
        picture = _blend(restored, before, carrier.large(1 - 1 / count))
        return State(image, restored, picture, count, match, trust)

    def joined(self, state: State, following: State, most: float) -> np.ndarray:
        """The state's picture f32[S,S,3] with the next frame's restoration in it, counted as `most`, 0..1.

        The flow back from the next frame is known; its inverse g(x) = -f(x + g(x)) is one step of the
        fixed-point iteration of Chen et al. (2008) from g = -f.
        """
        if following.match is None:
            return state.picture
        carrier, flow = self._carrier, following.match.flow
        onward = -carrier.along(flow, -flow)
        share = most * carrier.along(following.trust, onward)
        light = coarse(following.match.difference)
        after = self._lit(carrier.moved(following.restored, onward), -light)
        return _blend(state.picture, after, carrier.large(share / (state.count + share)))

    def detail(self, picture: np.ndarray) -> tuple[np.ndarray, float]:
        """Luma's finest part f32[S,S] of a picture f32[S,S,3], and its mean square in the face."""
        luma = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        fine = cv2.subtract(luma, cv2.GaussianBlur(luma, (0, 0), self._sigma))
        return fine, float(cv2.multiply(fine, fine).ravel() @ self._mask.ravel()) / float(self._mask.sum())

    def _lit(self, picture: np.ndarray, light: np.ndarray) -> np.ndarray:
        """The picture with a change of light f32[16,16,3] added in place."""
        return cv2.add(picture, self._carrier.large(light), dst=picture)


@dataclass(slots=True, eq=False)
class _Track:
    """What is kept of a face between frames."""

    state: State
    seen_at: int
    """The stage's count of frames."""
    sharp: float = 0.0
    """Energy of detail in the network's pictures, a running mean."""
    left: float = 0.0
    """And in the averaged ones."""


@dataclass(slots=True, eq=False)
class _Held:
    """A frame that waits for the next."""

    work: FrameWork
    states: list[State | None]
    """One for each patch; None: it passes as it is."""


class StabiliseStage:
    """Stage: FrameWork -> FrameWork whose patches are steady in time, order kept.

    With `lookahead` one frame is held, to be joined with the next; without, the result for a frame
    depends on no later one. Patches with an opacity, and those that hold nothing of the network's
    (`Patch.weight` 0), pass as they are; so does everything at strength 0, to the bit.
    """

    def __init__(self, landmarks: np.ndarray, size: int, strength: float, lookahead: bool) -> None:
        """`landmarks` f64[5,2] are the template's, px of a crop of `size` px."""
        self.strength = strength
        """0..1; any thread may set another, the next frame follows it."""
        self.faces_stabilised = 0
        """Crops that were averaged with others."""
        self._landmarks, self._size, self._lookahead = landmarks, size, lookahead
        self._stabiliser: Stabiliser | None = None
        self._tracks: dict[int | None, _Track] = {}
        self._held: deque[_Held] = deque()
        self._frames = 0

    def open(self) -> None:
        """Make ready."""
        self._stabiliser = Stabiliser(self._landmarks, self._size)

    def process(self, work: FrameWork) -> Iterable[FrameWork]:
        """Steady one frame, or with look-ahead the one before it."""
        strength = self.strength
        self._frames += 1
        if not strength:
            yield from self.flush()
            self._tracks.clear()
            yield work
            return
        longest = 1 + (_LONGEST - 1) * strength
        states = [self._follow(patch, longest) for patch in work.patches]
        limit = self._frames - _PATIENCE
        self._tracks = {key: track for key, track in self._tracks.items() if track.seen_at > limit}
        self._held.append(_Held(work, states))
        if self._lookahead and len(self._held) == 1:
            return
        yield self._finish(self._held.popleft(), min(1.0, longest - 1))

    def flush(self) -> Iterable[FrameWork]:
        """Hand on what is held."""
        while self._held:
            yield self._finish(self._held.popleft(), 0.0)

    def close(self) -> None:
        """Forget everything."""
        self._tracks.clear()
        self._held.clear()
        self._stabiliser = None

    def _follow(self, patch: Patch, longest: float) -> State | None:
        if not patch.weight or patch.opacity is not None:
            return None
        image = patch.crop.image
        restored = image + patch.residual / np.float32(patch.weight)
        key = _key(patch.crop)
        track = self._tracks.get(key)
        if track is None:
            track = self._tracks[key] = _Track(self._stabiliser.begin(image, restored), self._frames)
        else:
            track.state = self._stabiliser.follow(track.state, image, restored, longest)
            track.seen_at = self._frames
        return track.state

    def _finish(self, held: _Held, most: float) -> FrameWork:
        patches = (
            patch if state is None else self._steady(patch, state, most)
            for patch, state in zip(held.work.patches, held.states, strict=True)
        )
        return replace(held.work, patches=tuple(patches))

    def _steady(self, patch: Patch, state: State, most: float) -> Patch:
        track = self._tracks.get(_key(patch.crop))
        picture = state.picture
        if most and track is not None and track.state is not state:
            picture = self._stabiliser.joined(state, track.state, most)
        if picture is state.restored:
            return patch
        self.faces_stabilised += 1
        picture = self._sharpened(picture, state.restored, track)
        return replace(patch, residual=(picture - patch.crop.image) * np.float32(patch.weight))

    def _sharpened(self, picture: np.ndarray, restored: np.ndarray, track: _Track | None) -> np.ndarray:
        """The picture with as much energy of detail as the network's pictures have, f32[S,S,3].

        What two restorations do not share averages out, and with it some of what they should; the
        one factor for the face changes slowly.
        """
        _, sharp = self._stabiliser.detail(restored)
        fine, left = self._stabiliser.detail(picture)
        if track is not None:
            pace = _SETTLES if track.sharp else 1.0
            track.sharp += pace * (sharp - track.sharp)
            track.left += pace * (left - track.left)
            sharp, left = track.sharp, track.left
        gain = float(np.clip(np.sqrt(sharp / max(left, 1e-12)), 1, _MOST_GAIN)) - 1
        if gain < 1e-3:
            return picture
        return cv2.scaleAdd(cv2.merge([fine] * 3), gain, picture)


def _trust(match: Match) -> np.ndarray:
    """How far a match's source explains its crop, f32[h,h] 0..1: all up to thrice the noise's energy."""
    noise = float(np.clip(match.noise, QUIETEST, NOISIEST))
    t = np.clip(1 - (match.energy - EXPLAINED * noise) / _CHANGED, 0, 1)
    return t * t * (3 - 2 * t)


def _blend(picture: np.ndarray, other: np.ndarray, share: np.ndarray) -> np.ndarray:
    return cv2.blendLinear(picture, other, 1 - share, share)


def _key(crop: Crop) -> int | None:
    """Whose crop it is; None for an input that already is a crop."""
    return crop.face.track_id if crop.face is not None else None
