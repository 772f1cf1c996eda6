"""How the networks of a run are computed: device, precision, compiled or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")
_AVX2 = {"cpp.simdlen": 256}
"""Has Inductor use AVX2 for the kernels that it generates; convolutions and products are oneDNN's."""


@dataclass(frozen=True, slots=True)
class Execution:
    """What the restorer and its adversary share."""

    device: torch.device
    half: bool
    """Whether forward and backward passes are computed in BF16."""
    compile: bool

    def compiled(self, body: Callable[P, R]) -> Callable[P, R]:
        """`body` by torch.compile, one graph for each set of shapes; `body` itself if `compile` is off."""
        if not self.compile:
            return body
        return torch.compile(body, dynamic=False, options=_AVX2 if self._transposes_wrongly() else None)

    def autocast(self) -> torch.autocast:
        """The context in which a network's forward pass runs."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)

    def _transposes_wrongly(self) -> bool:
        """Whether Inductor's AVX-512 kernel that transposes BF16 would be used.

        GCC 12 at -O3 makes of it one that reads what was never written: NaN from the first step on
        (torch 2.14.1, measured).
        """
        wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        return self.half and self.device.type == "cpu" and wide
