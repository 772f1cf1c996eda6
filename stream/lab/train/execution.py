"""How the networks of a run are computed: device, precision and compilation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import torch

from stream.models.engines.torch_compile import cpu_options

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Execution:
    """The choices that the restorer and its adversary share."""

    device: torch.device
    half: bool
    """Whether forward and backward passes are computed in BF16."""
    compile: bool
    """Whether torch.compile is used."""

    def compiled(self, body: Callable[P, R]) -> Callable[P, R]:
        """`body` through torch.compile, one graph per set of shapes; `body` itself if `compile` is off."""
        if not self.compile:
            return body
        options = cpu_options(self.half) if self.device.type == "cpu" else None
        return torch.compile(body, dynamic=False, options=None if options is None else {**options})

    def autocast(self) -> torch.autocast:
        """A context for a network's forward pass: BF16 if `half` is set."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)
