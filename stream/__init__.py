"""gpen-stream: restores faces in video with GPEN.

`restore_file` and `restored_frames` are the Python API; they load on first use, so that
`import stream` costs nothing.
"""

from __future__ import annotations

from typing import Any

from stream._version import __version__

_API = ("Options", "Outcome", "Progress", "Status", "restore_file", "restore_images", "restored_frames")
__all__ = ["__version__", "load_config", *_API]


def __getattr__(name: str) -> Any:
    if name in _API:
        from stream.job import api

        return getattr(api, name)
    if name == "load_config":
        from stream.config import load_config

        return load_config
    raise AttributeError(f"module 'stream' has no attribute {name!r}")
