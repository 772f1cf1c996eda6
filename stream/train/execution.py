"""How the networks of a run are computed: device, precision, compiled or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Execution:
    """What the restorer and its adversary share."""

    device: torch.device
    half: bool
    """Whether forward and backward passes are computed in BF16."""
    compile: bool

    def compiled(self, body: Callable[P, R]) -> Callable[P, R]:
        """`body` by torch.compile, one graph for each set of shapes; `body` itself if `compile` is off."""
        return torch.compile(body, dynamic=False) if self.compile else body

    def autocast(self) -> torch.autocast:
        """The context in which a network's forward pass runs."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)
