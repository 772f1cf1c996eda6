"""The network as one compiled graph: a break in the graph is an error, never a silent fall-back."""

from __future__ import annotations

import torch

from stream.engines.crop_net import CropNet
from stream.errors import ConfigError

MODE = "reduce-overhead"
"""On CUDA it captures CUDA graphs; on a CPU it compiles as the default mode does."""

BACKEND = "inductor"
"""What torch.compile hands the graph to; "aot_eager" needs no C++ compiler and gains no speed."""


def compiled_net(net: CropNet):
    """`net` by torch.compile, whole, for static shapes.

    Raises ConfigError, in one line, where compiling is not possible here.
    """
    if BACKEND != "inductor":
        return torch.compile(net, fullgraph=True, dynamic=False, backend=BACKEND)
    _check_compiler(next(net.parameters()).device.type)
    return torch.compile(net, mode=MODE, fullgraph=True, dynamic=False)


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
