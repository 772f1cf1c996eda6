"""Selection of the pairs to show: evenly spaced ones, and all pairs around the largest difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_DENSE_SHARE = 1 / 3
"""Share of the selected pairs that lie around the largest difference."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Rising numbers of the selected pairs, and the range in which every pair is selected."""

    pairs: tuple[int, ...]
    dense: range

    def description(self, count: int) -> str:
        """Description of the selected pairs, out of `count`."""
        if len(self.pairs) == count:
            return f"all {count} frames" if count > 1 else "the picture"
        even = len(self.pairs) - len(self.dense)
        return (
            f"{len(self.pairs)} of {count} frames: {even} evenly spaced ones, and each of the "
            f"{len(self.dense)} around the largest difference"
        )


def select_pairs(difference: Sequence[float], most: int) -> Selection:
    """Select at most `most` pairs (2 or more), given the difference of each pair.

    The first and the last pair are always selected.
    """
    count = len(difference)
    if count <= most:
        return Selection(tuple(range(count)), range(count))
    length = max(1, int(most * _DENSE_SHARE))
    first = int(np.clip(int(np.argmax(difference)) - length // 2, 0, count - length))
    dense = range(first, first + length)
    even = evenly_spaced(count, most - length)
    return Selection(tuple(sorted({*dense, *even})), dense)


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most `most` evenly spaced numbers below `count`, with both ends if there is more than one."""
    if most >= count:
        return list(range(count))
    return [round(i * (count - 1) / max(1, most - 1)) for i in range(max(1, most))]
