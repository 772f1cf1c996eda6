"""Which picture of one video belongs to which of the other: by time stamps, each at most once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stream.compare.media import Medium, at_size

_UNKNOWN_RATE = 25.0
_TIE_S = 1e-6


def paired(first: Iterator[Any], second: Iterator[Any], slack_s: float) -> Iterator[tuple[Any, Any]]:
    """Items with a `time_s` of both, in order of time, as pairs; None stands where one has no partner.

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


def _nearer(following: Any, other: Any, apart: float) -> bool:
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


class Pairs:
    """The pairs of two media and a reference. Iterate as often as needed; counts are the last run's."""

    def __init__(self, a: Medium, b: Medium, reference: Medium | None, size: tuple[int, int]) -> None:
        self.a, self.b, self.reference, self.size = a, b, reference, size
        self.only_a = self.only_b = self.without_reference = 0
        """Frames without a partner, and pairs without a reference: left out."""

    def __iter__(self) -> Iterator[Pair]:
        self.only_a = self.only_b = self.without_reference = 0
        for index, pair in enumerate(self._both() if self.reference is None else self._with_reference()):
            yield replace(pair, index=index)

    def _both(self) -> Iterator[Pair]:
        for a, b in paired(self.a.pictures(), self.b.pictures(), slack(self.a, self.b)):
            if a is not None and b is not None:
                yield Pair(0, a.index, a.time_s, at_size(a.rgb, self.size), at_size(b.rgb, self.size))
            self.only_a += b is None
            self.only_b += a is None

    def _with_reference(self) -> Iterator[Pair]:
        slack_s = slack(self.a, self.b, self.reference)
        for pair, reference in paired(self._both(), self.reference.pictures(), slack_s):
            if pair is not None and reference is not None:
                yield replace(pair, reference=at_size(reference.rgb, self.size))
            self.without_reference += pair is not None and reference is None


def slack(*media: Medium) -> float:
    """How far apart the times of two pictures may lie, s: half a frame of the fastest video."""
    return 0.5 / max([medium.rate for medium in media if medium.rate] or [_UNKNOWN_RATE])
