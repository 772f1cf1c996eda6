"""The network compiled by torch.compile as one graph. A break in the graph is an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stream.errors import ConfigError
from stream.models.engines.crop_net import CropNet

MODE = "reduce-overhead"
"""torch.compile's mode. It uses CUDA graphs on CUDA, and equals the default mode on a CPU."""

BACKEND = "inductor"
"""torch.compile's backend. "aot_eager" needs no C++ compiler and is no faster than eager."""

CompileOptions = dict[str, str | int | bool | Callable[..., Any]]
"""The type of torch.compile's parameter `options`."""


def compiled_net(net: CropNet) -> Callable[[Tensor], Tensor]:
    """Compile `net` as one graph for static shapes. Raises ConfigError if there is no compiler."""
    if BACKEND != "inductor":
        return torch.compile(net, fullgraph=True, dynamic=False, backend=BACKEND)
    weight = next(net.parameters())
    _check_compiler(weight.device.type)
    if weight.device.type == "cpu" and (options := cpu_options(weight.dtype.itemsize < 4)):
        return torch.compile(net, fullgraph=True, dynamic=False, options=options)
    return torch.compile(net, mode=MODE, fullgraph=True, dynamic=False)


def cpu_options(half: bool) -> CompileOptions | None:
    """Options of torch.compile for a CPU; None: the defaults. half: the graph computes in 16 bits.

    In 16 bits Inductor may only use AVX2 on a CPU with AVX-512. GCC 12 at -O3 miscompiles the AVX-512
    kernel that transposes BF16: it reads memory that was never written, and every value becomes NaN
    (torch 2.14.1, measured). Convolutions and products are computed by oneDNN and stay as fast.
    """
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return {"cpp.simdlen": 256} if half and wide else None


def _check_compiler(device_type: str) -> None:
    if device_type == "cuda":
        return  # Triton comes with torch's CUDA builds
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError) as error:
        raise ConfigError(
            "restore.engine: 'torch-compile' needs a C++ compiler here; install g++, or use engine torch"
        ) from error
