"""Which node runs a camera: by the measured cost of cameras and the cores of nodes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

UNMEASURED_CORES = 0.5
"""Cost of a camera while no camera has been measured."""
_RISE_S, _FALL_S = 10.0, 600.0
"""Time constants of an estimate: a camera that needs more is believed within seconds, one that needs less
only after minutes. Otherwise every camera whose picture is empty for a moment would be moved about."""
_LEAST_GAIN = 0.1
"""A camera is moved, which interrupts it, only if the highest load falls by this part of a node at least."""
_CALM = 0.5
"""A load up to which nothing is moved: no camera gains by it."""


@dataclass(frozen=True, slots=True)
class NodeLoad:
    """A node as a place for cameras."""

    run: str
    capacity: float
    """Cores for cameras."""
    used: float
    """Cores that its cameras need."""

    @property
    def free(self) -> float:
        """Cores that are left; negative if its cameras need more than there are."""
        return self.capacity - self.used

    def load_with(self, cores: float = 0.0) -> float:
        """Its load with another camera of so many cores; 1: full."""
        return (self.used + cores) / self.capacity


@dataclass(frozen=True, slots=True)
class Move:
    """A camera that is to leave its node because another node has more room."""

    camera: str
    from_run: str
    to_run: str


def updated_cost(known: float | None, measured: float, degraded: bool, elapsed_s: float) -> float:
    """The estimate of a camera's cost in cores after another measurement.

    `degraded`: the camera takes less than it would if it had more, so the estimate does not fall.
    """
    if known is None:
        return measured
    if measured <= known and degraded:
        return known
    constant_s = _RISE_S if measured > known else _FALL_S
    return known + (measured - known) * -math.expm1(-elapsed_s / constant_s)


def choose_node(cores: float, nodes: Iterable[NodeLoad]) -> str | None:
    """The node that a camera of so many cores loads least; None if no node has room.

    A camera that is larger than any node fits on an empty one: it reduces its restoration there.
    """
    fitting = [node for node in nodes if node.capacity > 0 and (cores <= node.free or node.used == 0)]
    return min(fitting, key=lambda node: (node.load_with(cores), node.run)).run if fitting else None


def best_move(nodes: Mapping[str, NodeLoad], cameras: Mapping[str, Mapping[str, float]]) -> Move | None:
    """The move that lowers the highest load most; None if no move lowers it noticeably.

    `cameras`: by run, its cameras that may be moved, with their cost in cores.
    """
    able = [node for node in nodes.values() if node.capacity > 0]
    if len(able) < 2:
        return None
    highest = max(able, key=NodeLoad.load_with)
    lowest = min(able, key=NodeLoad.load_with)
    before = highest.load_with()
    if before <= _CALM:
        return None
    after = {
        camera: max(highest.load_with(-cores), lowest.load_with(cores))
        for camera, cores in cameras.get(highest.run, {}).items()
    }
    best = min(after, key=lambda camera: (after[camera], camera), default=None)
    if best is None or after[best] > before - _LEAST_GAIN:
        return None
    return Move(best, highest.run, lowest.run)
