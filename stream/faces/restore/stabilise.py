"""Patches -> steadier patches: the detail that the network invents anew in each frame flickers less.

A restorer sees one frame at a time and invents each frame's detail by itself. Here each restored picture
is averaged with those before it, and with the next where frames may wait
(`stream.faces.restore.average`).
docs/stabiliser.md holds the reasons and the figures; `tests/bench/bench_stabilise.py` makes them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from stream.faces.restore.average import Averager, DetailGain, SmoothedFace
from stream.picture.face import FrameWork, Patch
from stream.pipeline.stage import Stage

_MAX_COUNT = 6.0
"""How many restorations are averaged at full strength."""
_FORGET = 5
"""Frames without a face after which its average is dropped."""


@dataclass(slots=True, eq=False)
class _SmoothedTrack:
    """The average of one track."""

    state: SmoothedFace
    seen_at: int
    """The stage's frame count when the track was last seen."""
    detail: DetailGain = field(default_factory=DetailGain)


@dataclass(slots=True, eq=False)
class _WaitingFrame:
    """A frame that waits for the next one."""

    work: FrameWork
    smoothed: list[tuple[SmoothedFace, _SmoothedTrack] | None]
    """One for each patch; None: the patch passes unchanged."""


class StabiliseStage(Stage[FrameWork, FrameWork]):
    """Stage: makes patches steady in time; frames leave in order.

    With `lookahead` one frame is held, to be averaged with the next; without, the result for a frame
    depends on no later one. Patches with an opacity pass unchanged, and so do those that hold nothing of
    the network's (`Patch.weight` 0). At strength 0 every patch does, to the bit.
    """

    def __init__(self, landmarks: np.ndarray, size: int, strength: float, lookahead: bool) -> None:
        """`landmarks` f64[5,2] are the template's, px of a crop of `size` px; `strength` is in 0..1."""
        self.faces_stabilised = 0
        """Crops that were averaged with others."""
        self._strength = strength
        self._landmarks, self._size, self._lookahead = landmarks, size, lookahead
        self._opened: Averager | None = None
        self._tracks: dict[int | None, _SmoothedTrack] = {}
        self._waiting: deque[_WaitingFrame] = deque()
        self._frames = 0

    def set_strength(self, strength: float) -> None:
        """Change the strength, 0..1, from the next frame on; from any thread."""
        self._strength = strength

    def open(self) -> None:
        """Allocate the buffers, in this thread."""
        self._opened = Averager(self._landmarks, self._size)

    def process(self, work: FrameWork) -> Iterable[FrameWork]:
        """Yield the frame, or with look-ahead the one before it, with steady patches."""
        strength = self._strength
        self._frames += 1
        if not strength:
            yield from self.flush()
            self._tracks.clear()
            yield work
            return
        max_count = 1 + (_MAX_COUNT - 1) * strength
        smoothed = [self._follow(patch, max_count) for patch in work.patches]
        limit = self._frames - _FORGET
        self._tracks = {key: track for key, track in self._tracks.items() if track.seen_at > limit}
        self._waiting.append(_WaitingFrame(work, smoothed))
        if len(self._waiting) > self._lookahead:
            yield self._finish(self._waiting.popleft(), min(1.0, max_count - 1))

    def flush(self) -> Iterable[FrameWork]:
        """Yield the frame that waits, averaged with its past alone."""
        while self._waiting:
            yield self._finish(self._waiting.popleft(), 0.0)

    def close(self) -> None:
        """Release all memory."""
        self._tracks.clear()
        self._waiting.clear()
        self._opened = None

    @property
    def _averager(self) -> Averager:
        assert self._opened is not None, "a frame came before open() or after close()"
        return self._opened

    def _follow(self, patch: Patch, max_count: float) -> tuple[SmoothedFace, _SmoothedTrack] | None:
        """Add a patch to the average of its track; None: the patch passes unchanged."""
        if not patch.weight or patch.opacity is not None:
            return None
        restoration = patch.crop.image, patch.residual, patch.weight
        key = patch.crop.track_id
        track = self._tracks.get(key)
        if track is None:
            state = self._averager.begin(*restoration)
        else:
            state = self._averager.follow(track.state, *restoration, max_count)
        if track is None or state.match is None:
            track = self._tracks[key] = _SmoothedTrack(state, self._frames)
        track.state, track.seen_at = state, self._frames
        return state, track

    def _finish(self, frame: _WaitingFrame, next_count: float) -> FrameWork:
        """The frame with steady patches; the next frame counts as `next_count` restorations, 0..1."""
        patches = zip(frame.work.patches, frame.smoothed, strict=True)
        steady = tuple(self._steady(patch, smoothed, next_count) for patch, smoothed in patches)
        return replace(frame.work, patches=steady)

    def _steady(
        self, patch: Patch, smoothed: tuple[SmoothedFace, _SmoothedTrack] | None, next_count: float
    ) -> Patch:
        if smoothed is None:
            return patch
        state, track = smoothed
        picture = state.average
        if next_count and track.state is not state:
            picture = self._averager.with_next(state, track.state, next_count)
        if picture is state.restored:
            return patch
        self.faces_stabilised += 1
        picture = self._averager.sharpened(picture, state.restored, track.detail)
        residual = self._averager.residual_for(picture, state.restored, patch.residual, patch.weight)
        return replace(patch, residual=residual)
