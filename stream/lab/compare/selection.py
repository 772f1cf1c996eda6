"""Which of many pairs are shown: evenly spread ones, and a dense stretch where most differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_DENSE_SHARE = 1 / 3


@dataclass(frozen=True, slots=True)
class Selection:
    """Numbers of the pairs chosen, rising, and the stretch in which none is left out."""

    pairs: tuple[int, ...]
    dense: range

    def words(self, count: int) -> str:
        """What was chosen out of `count`, for the reader."""
        if len(self.pairs) == count:
            return f"all {count} frames" if count > 1 else "the picture"
        even = len(self.pairs) - len(self.dense)
        return (
            f"{len(self.pairs)} of {count} frames: {even} spread evenly, and each of the {len(self.dense)} "
            "around the largest difference"
        )


def choose(difference: Sequence[float], most: int) -> Selection:
    """At most `most` (2 or more) pairs, by how far each differs; first and last are among them."""
    count = len(difference)
    if count <= most:
        return Selection(tuple(range(count)), range(count))
    length = max(1, int(most * _DENSE_SHARE))
    first = int(np.clip(int(np.argmax(difference)) - length // 2, 0, count - length))
    dense = range(first, first + length)
    even = spread(count, most - length)
    return Selection(tuple(sorted({*dense, *even})), dense)


def spread(count: int, most: int) -> list[int]:
    """At most `most` numbers below `count`, evenly, both ends among them where there is more than one."""
    if most >= count:
        return list(range(count))
    return [round(i * (count - 1) / max(1, most - 1)) for i in range(max(1, most))]
