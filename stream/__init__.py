"""gpen-stream: restores faces in video with GPEN.

These names are the Python interface. They are loaded on first use, so that `import stream` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from stream._version import __version__

if TYPE_CHECKING:
    from stream import errors
    from stream.config import load_config
    from stream.job.api import restore_file, restore_images, restored_frames
    from stream.job.interface import Options, Outcome, Progress, RunReport, Status

_MODULES = {
    "load_config": "stream.config",
    "restore_file": "stream.job.api",
    "restore_images": "stream.job.api",
    "restored_frames": "stream.job.api",
    "Options": "stream.job.interface",
    "Outcome": "stream.job.interface",
    "Progress": "stream.job.interface",
    "RunReport": "stream.job.interface",
    "Status": "stream.job.interface",
}
__all__ = [
    "Options",
    "Outcome",
    "Progress",
    "RunReport",
    "Status",
    "__version__",
    "errors",
    "load_config",
    "restore_file",
    "restore_images",
    "restored_frames",
]


if not TYPE_CHECKING:  # a type checker would accept any name

    def __getattr__(name):
        if name == "errors":
            return importlib.import_module("stream.errors")
        if name in _MODULES:
            return getattr(importlib.import_module(_MODULES[name]), name)
        raise AttributeError(f"module 'stream' has no attribute {name!r}")
