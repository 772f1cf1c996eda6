"""Which picture of one video belongs to which of the other: by time stamps, each at most once."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np

from stream.lab.compare.medium import Medium, TimedPicture

_UNKNOWN_RATE = 25.0
_TIE_S = 1e-6


class Timed(Protocol):
    """Something that has a time."""

    @property
    def time_s(self) -> float:
        """Seconds on the common clock."""


FirstT = TypeVar("FirstT", bound=Timed)
SecondT = TypeVar("SecondT", bound=Timed)


def paired(
    first: Iterator[FirstT], second: Iterator[SecondT], slack_s: float
) -> Iterator[tuple[FirstT | None, SecondT | None]]:
    """Items of both, in order of time, as pairs; None stands where one has no partner.

    Two belong together where they lie at most `slack_s` apart and neither has a nearer one next.
    Each iterator is read one item ahead.
    """
    a, a_next = next(first, None), next(first, None)
    b, b_next = next(second, None), next(second, None)
    while a is not None and b is not None:
        apart = b.time_s - a.time_s
        alone_a = apart > slack_s or _nearer(a_next, b, apart)
        alone_b = not alone_a and (apart < -slack_s or _nearer(b_next, a, apart))
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


def _nearer(following: Timed | None, other: Timed, apart: float) -> bool:
    return following is not None and abs(following.time_s - other.time_s) < abs(apart) - _TIE_S


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """What belongs together, all RGB u8[H,W,3] of one size."""

    index: int
    """Number of the pair, from 0."""
    frame: int
    """Number of A's frame, from 0."""
    time_s: float
    """Of A's picture, on the common clock."""
    a: np.ndarray
    b: np.ndarray
    reference: np.ndarray | None = None

    @property
    def layers(self) -> dict[str, np.ndarray]:
        """The pictures by the letters that outputs call them: a, b, and r where there is a reference."""
        layers = {"a": self.a, "b": self.b}
        return layers if self.reference is None else layers | {"r": self.reference}


@dataclass(frozen=True, slots=True, eq=False)
class _Match:
    """Pictures of one time, not converted yet."""

    time_s: float
    a: TimedPicture
    b: TimedPicture
    reference: TimedPicture | None = None


@dataclass(slots=True)
class Unpaired:
    """How much was left out."""

    only_a: int = 0
    """Frames without a partner."""
    only_b: int = 0
    without_reference: int = 0
    """Pairs."""


class PairedPictures:
    """The pairs of two media and a reference; iterate as often as needed, `unpaired` is of the last time."""

    def __init__(self, a: Medium, b: Medium, reference: Medium | None, size: tuple[int, int]) -> None:
        self.a, self.b, self.reference, self.size = a, b, reference, size
        self.unpaired = Unpaired()

    def __iter__(self) -> Iterator[Pair]:
        self.unpaired = Unpaired()
        for index, match in enumerate(self._matches(self.unpaired)):
            yield self._pair(index, match)

    def only(self, wanted: Set[int]) -> Iterator[Pair]:
        """Pairs of these numbers; the others are only decoded, and nothing is counted."""
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
        slack_s = slack(self.a, self.b, self.reference)
        for match, reference in paired(self._both(left_out), self.reference.pictures(), slack_s):
            if match is not None and reference is not None:
                yield replace(match, reference=reference)
            left_out.without_reference += match is not None and reference is None

    def _both(self, left_out: Unpaired) -> Iterator[_Match]:
        for a, b in paired(self.a.pictures(), self.b.pictures(), slack(self.a, self.b)):
            if a is not None and b is not None:
                yield _Match(a.time_s, a, b)
            left_out.only_a += b is None
            left_out.only_b += a is None


def slack(*media: Medium) -> float:
    """How far apart the times of two pictures may lie, s: half a frame of the fastest video."""
    return 0.5 / max([medium.rate for medium in media if medium.rate] or [_UNKNOWN_RATE])
