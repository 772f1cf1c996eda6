"""The network as one compiled graph: a break in the graph is an error, never a silent fall-back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stream.errors import ConfigError
from stream.models.engines.crop_net import CropNet

MODE = "reduce-overhead"
"""On CUDA it captures CUDA graphs; on a CPU it compiles as the default mode does."""

BACKEND = "inductor"
"""What torch.compile hands the graph to; "aot_eager" needs no C++ compiler and gains no speed."""


Options = dict[str, str | int | bool | Callable[..., Any]]
"""As torch.compile takes them."""


def compiled_net(net: CropNet) -> Callable[[Tensor], Tensor]:
    """`net` by torch.compile, whole, for static shapes.

    Raises ConfigError, in one line, where compiling is not possible here.
    """
    if BACKEND != "inductor":
        return torch.compile(net, fullgraph=True, dynamic=False, backend=BACKEND)
    weight = next(net.parameters())
    _check_compiler(weight.device.type)
    if weight.device.type == "cpu" and (options := cpu_options(weight.dtype.itemsize < 4)):
        return torch.compile(net, fullgraph=True, dynamic=False, options=options)
    return torch.compile(net, mode=MODE, fullgraph=True, dynamic=False)


def cpu_options(half: bool) -> Options | None:
    """Options of torch.compile for a CPU, None for its own; `half`: the graph computes in 16 bits.

    In 16 bits Inductor is held to AVX2 on a CPU with AVX-512. GCC 12 at -O3 breaks the AVX-512 kernel
    that transposes BF16: it reads what was never written, and every figure is NaN (torch 2.14.1,
    measured). Convolutions and products are oneDNN's and stay as fast.
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
