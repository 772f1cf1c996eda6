"""What the dashboard may not be asked for, though the command line may."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stream.address import parse_address
from stream.cameras import CameraSettings, ServerSettings
from stream.catalog import entries
from stream.errors import ConfigError

_NO_SINKS = ("window", "virtual-camera")
_ON_DISK = ("file", "segments", "hls", "snapshots")
_PATHS = ("detect.weights", "compose.mask_weights", "compose.upscale_weights", "restore.inpaint_mask")
"""Settings that name files of this machine."""


def check_camera(name: str, settings: CameraSettings, server: ServerSettings) -> None:
    """Raise ConfigError where a camera would read or write outside the server's folders."""
    check_source(settings.source, server)
    for text, spec in zip(settings.to, settings.sinks(server.data_folder), strict=True):
        if spec.kind in _NO_SINKS:
            raise ConfigError(f"cameras.{name}.to: {text}: is for the command line only")
        if spec.kind in _ON_DISK and not _lies_in(Path(spec.target), server.data_folder):
            raise ConfigError(
                f"cameras.{name}.to: {spec.shown}: lies outside the data folder; write a relative one"
            )
    for key, value in settings.set.items():
        check_setting(key, value)


def check_source(source: str, server: ServerSettings) -> None:
    """Raise ConfigError for a source that is not allowed here: files elsewhere, variables."""
    if "${" in source:
        raise ConfigError("the environment is for the configuration file; write the address itself")
    address = parse_address(source)
    if address.kind == "file" and not any(
        _lies_in(Path(address.reveal()), folder) for folder in (server.data_folder, server.files_folder)
    ):
        raise ConfigError(f"{address}: lies outside the server's folders")


def check_setting(key: str, value: Any) -> None:
    """Raise ConfigError for a setting that names a file."""
    if key in _PATHS:
        raise ConfigError(f"{key}: is for the configuration file only")
    if key == "restore.model":
        check_model(value)


def check_model(name: Any) -> None:
    """Raise ConfigError for a model that is not known by name; a file could lie anywhere."""
    if not isinstance(name, str) or name not in entries():
        raise ConfigError(f"model {str(name)[:80]!r}: unknown; see gpen-stream models list")


def _lies_in(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
