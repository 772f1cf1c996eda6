"""Patches -> steadier patches: what the network makes anew of each frame no longer flickers.

A restorer knows one frame at a time and invents each frame's detail by itself. Here each restored
picture is averaged with those before it, and with the next where frames may wait
(`stream.faces.restore.average`).
docs/stabiliser.md holds the reasons and the figures; `tests/bench/bench_stabilise.py` makes them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from stream.faces.restore.average import Averager, Detail, SmoothedFace
from stream.picture.face import Crop, FrameWork, Patch

_LONGEST = 6.0
"""Restorations that a picture is averaged of at full strength."""
_PATIENCE = 5
"""Frames without a face after which what was known of it is forgotten."""


@dataclass(slots=True, eq=False)
class _Track:
    """What is kept of a face between frames."""

    state: SmoothedFace
    seen_at: int
    """The stage's count of frames."""
    detail: Detail = field(default_factory=Detail)


@dataclass(slots=True, eq=False)
class _Held:
    """A frame that waits for the next."""

    work: FrameWork
    known: list[tuple[SmoothedFace, _Track] | None]
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
        self._opened: Averager | None = None
        self._tracks: dict[int | None, _Track] = {}
        self._held: deque[_Held] = deque()
        self._frames = 0

    def open(self) -> None:
        """Make ready."""
        self._opened = Averager(self._landmarks, self._size)

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
        known = [self._follow(patch, longest) for patch in work.patches]
        limit = self._frames - _PATIENCE
        self._tracks = {key: track for key, track in self._tracks.items() if track.seen_at > limit}
        self._held.append(_Held(work, known))
        if len(self._held) > self._lookahead:
            yield self._finish(self._held.popleft(), min(1.0, longest - 1))

    def flush(self) -> Iterable[FrameWork]:
        """Hand on what is held."""
        while self._held:
            yield self._finish(self._held.popleft(), 0.0)

    def close(self) -> None:
        """Forget everything."""
        self._tracks.clear()
        self._held.clear()
        self._opened = None

    @property
    def _averager(self) -> Averager:
        assert self._opened is not None, "a frame came before open() or after close()"
        return self._opened

    def _follow(self, patch: Patch, longest: float) -> tuple[SmoothedFace, _Track] | None:
        if not patch.weight or patch.opacity is not None:
            return None
        seen = patch.crop.image, patch.residual, patch.weight
        key = _key(patch.crop)
        track = self._tracks.get(key)
        if track is None:
            state = self._averager.begin(*seen)
        else:
            state = self._averager.follow(track.state, *seen, longest)
        if track is None or state.match is None:
            track = self._tracks[key] = _Track(state, self._frames)
        track.state, track.seen_at = state, self._frames
        return state, track

    def _finish(self, held: _Held, most: float) -> FrameWork:
        patches = zip(held.work.patches, held.known, strict=True)
        return replace(held.work, patches=tuple(self._steady(patch, known, most) for patch, known in patches))

    def _steady(self, patch: Patch, known: tuple[SmoothedFace, _Track] | None, most: float) -> Patch:
        """The patch as it shall be; the next frame counts as `most` restorations where it is there."""
        if known is None:
            return patch
        state, track = known
        tones = state.mean
        if most and track.state is not state:
            tones = self._averager.joined(state, track.state, most)
        if tones is state.own:
            return patch
        self.faces_stabilised += 1
        tones = self._averager.sharpened(tones, state.own, track.detail)
        return replace(patch, residual=self._averager.changed(patch.residual, patch.weight, state.own, tones))


def _key(crop: Crop) -> int | None:
    """Whose crop it is; None for an input that already is a crop."""
    return crop.face.track_id if crop.face is not None else None
