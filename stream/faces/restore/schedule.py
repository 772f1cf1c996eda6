"""Decides which crops the network restores, and which are propagated from restored ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from stream.faces.restore.propagate import Match, Propagation, Propagator
from stream.picture.face import Crop

MAX_UNEXPLAINED = 7 / 255
"""A crop that its neighbours leave unexplained by more is restored itself. Measured on the samples:
at most 6 levels where a face turns or sways, 7 to 16 in a blink, 20 and more behind an obstacle."""


@dataclass(frozen=True, slots=True, eq=False)
class Interval:
    """How often a track is restored by the network; `restore.interval` and what goes with it."""

    frames: int
    """Frames from one restoration of a track to the next; 1: every frame."""
    lookahead: bool
    """Whether frames may wait for the next restoration, so that crops are propagated from both sides."""
    landmarks: np.ndarray = field(repr=False)
    """f64[5,2]: the model's template, px of the crop."""
    size: int
    """Side of a crop, px."""


@dataclass(frozen=True, slots=True)
class RestoreMode:
    """Settings of the restore stage that may change between two frames."""

    strength: float = 1.0
    """0..1: the part of the restoration that is added to the crop."""
    interval: int = 1
    """Frames from one restoration of a track to the next, see `Interval.frames`."""
    strict: bool = False
    """Whether the interval holds whatever happens. A crop that its source does not explain then shows
    the input in those places, where otherwise the network would restore it out of turn."""


@dataclass(slots=True, eq=False)
class PendingCrop:
    """A crop whose restored picture comes from the network, or is propagated from its sources."""

    crop: Crop
    restored: np.ndarray | None = None
    """The network's picture, f32[S,S,3] in 0..1. None before, and where the output was not finite."""
    done: bool = False
    """Whether the network has run."""
    propagation: Propagation | None = None
    """How the picture is composed of those of `sources`; None: the network restores the crop."""
    sources: tuple[PendingCrop, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether the restored pictures that this one needs are there."""
        return self.done or (bool(self.sources) and all(source.done for source in self.sources))

    def complete(self, restored: np.ndarray | None) -> None:
        """Store the network's picture; None where it was not finite."""
        self.restored, self.done = restored, True

    def propagate_from(self, sources: tuple[PendingCrop, ...], propagation: Propagation) -> None:
        """Have the picture made from those of other crops."""
        self.sources, self.propagation = sources, propagation


class RestorationSchedule:
    """Decides which crops the network restores. Only one thread may use it.

    A *segment* of a track is the crop restored last and the crops since. With look-ahead, its last crop
    is restored when it is full or the track ends, and the crops between are propagated from both ends.
    Without look-ahead, each crop is propagated from the first, or restored at once.
    """

    def __init__(self, interval: Interval | None) -> None:
        """`interval` None: every crop is restored, whatever the mode says."""
        self.forced = 0
        """Crops that were restored out of turn, because their neighbours did not explain them."""
        self.lookahead = interval.lookahead if interval else True
        """Whether crops wait for the end of their segment."""
        self._interval = interval
        self._due: list[PendingCrop] = []
        self._segments: dict[int | None, list[PendingCrop]] = {}

    def add(self, crops: Sequence[PendingCrop], mode: RestoreMode) -> None:
        """Decide how each crop of the next frame is restored: now, or when its segment ends."""
        if mode.interval == 1:
            self.finish()
            self._due += crops
            return
        present = {pending.crop.track_id: pending for pending in crops}
        for track in [track for track in self._segments if track not in present]:
            self._close(self._segments.pop(track))
        for track, pending in present.items():
            segment = self._segments.get(track)
            if segment is None:
                self._begin(track, pending)
            elif self.lookahead:
                segment.append(pending)
                if len(segment) > mode.interval:
                    self._close(segment)
                    self._segments[track] = [pending]
            else:
                self._follow(track, segment, pending, mode)

    def finish(self) -> None:
        """End all segments."""
        for segment in self._segments.values():
            self._close(segment)
        self._segments.clear()

    def pop_due(self, batch_size: int, partial: bool) -> list[PendingCrop]:
        """Remove and return the due crops that fill whole batches; with `partial`, all of them."""
        count = len(self._due) if partial else len(self._due) // batch_size * batch_size
        due, self._due = self._due[:count], self._due[count:]
        return due

    @cached_property
    def propagator(self) -> Propagator:
        """Made when the first crop is propagated."""
        if self._interval is None:
            raise ValueError("RestoreStage.mode has an interval, but the stage was built without one")
        return Propagator(self._interval.landmarks, self._interval.size)

    def _begin(self, track: int | None, pending: PendingCrop) -> None:
        self._due.append(pending)
        self._segments[track] = [pending]

    def _follow(
        self, track: int | None, segment: list[PendingCrop], pending: PendingCrop, mode: RestoreMode
    ) -> None:
        """Propagate a crop from the last restoration, or restore it. Used without look-ahead."""
        first = segment[0]
        if len(segment) >= mode.interval or first.restored is None:
            self._begin(track, pending)
            return
        match = self.propagator.match(pending.crop.image, first.crop.image)
        propagation = self.propagator.plan([match], [1.0])
        if propagation.unexplained > MAX_UNEXPLAINED and not mode.strict:
            self.forced += 1
            self._begin(track, pending)
            return
        pending.propagate_from((first,), propagation)
        segment.append(first)  # only the count matters: the crops between need not be kept

    def _close(self, segment: list[PendingCrop]) -> None:
        """Restore the segment's last crop, and propagate those between from both ends."""
        if len(segment) > 1 and self.lookahead:
            self._due.append(segment[-1])
            self._fill(segment, 0, len(segment) - 1, {})

    def _fill(
        self, segment: list[PendingCrop], first: int, last: int, matches: dict[tuple[int, int], Match]
    ) -> None:
        """Propagate the crops between two restored ones, or restore the least explained one and recurse.

        `matches` by (crop, source) holds what was computed for the same segment.
        """

        def match(at: int, source: int) -> Match:
            if (at, source) not in matches:
                images = segment[at].crop.image, segment[source].crop.image
                matches[at, source] = self.propagator.match(*images)
            return matches[at, source]

        between = range(first + 1, last)
        plans = {
            at: self.propagator.plan([match(at, first), match(at, last)], [last - at, at - first])
            for at in between
        }
        worst = max(between, key=lambda at: plans[at].unexplained, default=None)
        if worst is not None and plans[worst].unexplained > MAX_UNEXPLAINED:
            self.forced += 1
            self._due.append(segment[worst])
            self._fill(segment, first, worst, matches)
            self._fill(segment, worst, last, matches)
            return
        for at, plan in plans.items():
            segment[at].propagate_from((segment[first], segment[last]), plan)
