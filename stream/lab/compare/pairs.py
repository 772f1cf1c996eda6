"""Pairing of the pictures of two videos by their times. Each picture has at most one partner."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np

from stream.lab.compare.medium import Medium, TimedPicture

_DEFAULT_RATE = 25.0
"""Assumed for media without a frame rate."""
_TIE_S = 1e-6
"""Differences of time below this count as equal."""


class Timed(Protocol):
    """An item with a time."""

    @property
    def time_s(self) -> float:
        """Seconds on the common clock."""


FirstT = TypeVar("FirstT", bound=Timed)
SecondT = TypeVar("SecondT", bound=Timed)


def pair_by_time(
    first: Iterator[FirstT], second: Iterator[SecondT], tolerance_s: float
) -> Iterator[tuple[FirstT | None, SecondT | None]]:
    """The items of both iterators as pairs, in order of time. None stands for a missing partner.

    Two items are partners if their times differ by at most `tolerance_s` and neither has a nearer one
    next. Each iterator is read one item ahead.
    """
    a, a_next = next(first, None), next(first, None)
    b, b_next = next(second, None), next(second, None)
    while a is not None and b is not None:
        gap_s = b.time_s - a.time_s
        alone_a = gap_s > tolerance_s or _nearer(a_next, b, gap_s)
        alone_b = not alone_a and (gap_s < -tolerance_s or _nearer(b_next, a, gap_s))
        yield (None if alone_b else a), (None if alone_a else b)
        if not alone_b:
            a, a_next = a_next, next(first, None)
        if not alone_a:
            b, b_next = b_next, next(second, None)
    while a is not None:
        yield a, None
        a, a_next = a_next, next(first, None)
    while b is not None:
        yield None, b
        b, b_next = b_next, next(second, None)


def _nearer(following: Timed | None, other: Timed, gap_s: float) -> bool:
    """Whether the next item is nearer to `other` than the present one, which is `gap_s` away."""
    return following is not None and abs(following.time_s - other.time_s) < abs(gap_s) - _TIE_S


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Pictures of one time, all RGB u8[H,W,3] of one size."""

    index: int
    """Number of the pair, from 0."""
    frame: int
    """Number of A's frame, from 0."""
    time_s: float
    """Time of A's picture on the common clock, s."""
    a: np.ndarray
    b: np.ndarray
    reference: np.ndarray | None = None

    @property
    def layers(self) -> dict[str, np.ndarray]:
        """The pictures by the keys of the outputs: a, b and, if there is a reference, r."""
        layers = {"a": self.a, "b": self.b}
        return layers if self.reference is None else layers | {"r": self.reference}


@dataclass(frozen=True, slots=True, eq=False)
class _Match:
    """Decoded pictures of one time, before their conversion to RGB."""

    time_s: float
    a: TimedPicture
    b: TimedPicture
    reference: TimedPicture | None = None


@dataclass(slots=True)
class Unpaired:
    """How many pictures and pairs were left out."""

    only_a: int = 0
    """Frames of A without a frame of B."""
    only_b: int = 0
    """Frames of B without a frame of A."""
    without_reference: int = 0
    """Pairs without a frame of the reference."""


class PairedPictures:
    """The pairs of two media and, optionally, a reference.

    It can be iterated any number of times. `unpaired` belongs to the last iteration.
    """

    def __init__(self, a: Medium, b: Medium, reference: Medium | None, size: tuple[int, int]) -> None:
        self.a, self.b, self.reference, self.size = a, b, reference, size
        self.unpaired = Unpaired()

    def __iter__(self) -> Iterator[Pair]:
        self.unpaired = Unpaired()
        for index, match in enumerate(self._matches(self.unpaired)):
            yield self._pair(index, match)

    def only(self, wanted: Set[int]) -> Iterator[Pair]:
        """The pairs with these numbers. The others are decoded only, and `unpaired` stays as it is."""
        for index, match in enumerate(self._matches(Unpaired())):
            if index in wanted:
                yield self._pair(index, match)
            if index >= max(wanted):
                return

    def _pair(self, index: int, match: _Match) -> Pair:
        a, b = match.a.rgb(self.size), match.b.rgb(self.size)
        reference = None if match.reference is None else match.reference.rgb(self.size)
        return Pair(index, match.a.index, match.time_s, a, b, reference)

    def _matches(self, left_out: Unpaired) -> Iterator[_Match]:
        if self.reference is None:
            yield from self._both(left_out)
            return
        tolerance_s = tolerance_of(self.a, self.b, self.reference)
        matches = pair_by_time(self._both(left_out), self.reference.pictures(), tolerance_s)
        for match, reference in matches:
            if match is not None and reference is not None:
                yield replace(match, reference=reference)
            left_out.without_reference += match is not None and reference is None

    def _both(self, left_out: Unpaired) -> Iterator[_Match]:
        for a, b in pair_by_time(self.a.pictures(), self.b.pictures(), tolerance_of(self.a, self.b)):
            if a is not None and b is not None:
                yield _Match(a.time_s, a, b)
            left_out.only_a += b is None
            left_out.only_b += a is None


def tolerance_of(*media: Medium) -> float:
    """Largest time difference of two partners, s: half the frame interval of the fastest video."""
    return 0.5 / max([medium.rate for medium in media if medium.rate] or [_DEFAULT_RATE])
