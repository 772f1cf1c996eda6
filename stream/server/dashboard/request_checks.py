"""Checks of settings from the web, which may do less than the server's own file of cameras."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from stream.config import Config
from stream.errors import ConfigError
from stream.live.sinks import parse_sink
from stream.live.source.address import parse_address, redact
from stream.server.camera_config import ON_DISK_SINKS, CameraSettings, ServerSettings, parse_camera
from stream.server.dashboard.file_types import MEDIA, is_media
from stream.server.dashboard.token import is_loopback

_ON_SCREEN_SINKS = ("window", "virtual-camera")
_FILE_SETTINGS = (
    "detect.weights",
    "restore.inpaint_mask",
    "compose.mask_weights",
    "compose.upscale_weights",
)
"""Settings whose value is the path of a file."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check_camera_body(
    name: str, body: Mapping[str, object], server: ServerSettings, current: CameraSettings | None = None
) -> CameraSettings:
    """The settings of a camera that a request asks for.

    `current` has the camera's settings as they are shown. Values that agree with it are not checked again.
    Raises ConfigError, whose message is one line without credentials.
    """
    old_source = current.source if current is not None else None
    old_set, old_to = (current.set, current.to) if current is not None else ({}, ())
    to = body.get("to")
    for text in [body.get("source"), *(to if isinstance(to, list) else ())]:
        if isinstance(text, str) and text != old_source and text not in old_to:
            _check_plain(text, f"cameras.{name}")  # before ${NAME} is looked up
    settings = parse_camera(name, body)
    for key, value in settings.set.items():
        if key in _FILE_SETTINGS and value is not None and value != old_set.get(key):
            raise ConfigError(f"cameras.{name}.set.{key}: files are named in the server's own file only")
        if key == "restore.model" and value != old_set.get(key):
            check_model(value, f"cameras.{name}.set.{key}")
    source = settings.source
    if source != old_source:
        source = check_source(source, server, f"cameras.{name}.source")
    config = settings.config(f"cameras.{name}.set")
    for text in settings.to:
        if text not in old_to:
            _check_sink(text, config, server, f"cameras.{name}.to")
    return settings.model_copy(update={"source": source})


def check_source(text: str, server: ServerSettings, key: str = "source") -> str:
    """The address of a source that a request may open; that of a file gets its absolute path.

    Raises ConfigError, whose message begins with `key`.
    """
    _check_plain(text, key)
    address = parse_address(text)
    if address.kind != "file":
        return text
    refusal = f"{key}: files have to lie in the server's folder of files or in its data folder, as {MEDIA}"
    try:
        path = (server.files_folder / address.reveal()).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        # The message is the one for a file elsewhere, so that it does not reveal which files exist.
        raise ConfigError(refusal) from None
    folders = (server.files_folder, server.data_folder)
    if not any(path.is_relative_to(folder.resolve()) for folder in folders) or not is_media(path):
        raise ConfigError(refusal)
    return f"file:{path}"


def check_model(model: object, key: str = "model") -> None:
    """Raise ConfigError for anything but the name of a model: a path would open any file."""
    from stream.models import registry  # imported here because it loads what reads models

    if not isinstance(model, str) or model not in {known.name for known in registry.list_models()}:
        raise ConfigError(f"{key}: no model has that name; see gpen-stream models list")


def _check_sink(text: str, config: Config, server: ServerSettings, key: str) -> None:
    """Raise ConfigError for a sink that shows pictures to anyone or writes outside of the data folder."""
    try:
        spec = parse_sink(text, config)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from None
    if spec.kind in _ON_SCREEN_SINKS:
        raise ConfigError(f"{key}: {spec.kind} belongs to gpen-stream live; a server has no screen")
    if spec.kind == "mjpeg" and not is_loopback(spec.target.rpartition(":")[0]):
        raise ConfigError(f"{key}: {spec.shown} would show it to everybody; write mjpeg:PORT")
    if spec.kind in ON_DISK_SINKS:
        data = server.data_folder.resolve()
        path = Path(text.removeprefix(f"{spec.kind}:")).expanduser()
        target = (data / path).resolve()
        if not target.is_relative_to(data) or target == data:
            raise ConfigError(f"{key}: {spec.shown} has to be a folder or file in the server's data folder")


def _check_plain(text: str, key: str) -> None:
    """Raise ConfigError for control characters and for ${NAME}."""
    if _CONTROL.search(text):
        raise ConfigError(f"{key}: holds a line break or another control character; take it out")
    if "${" in text:  # it would send the server's environment to any address
        raise ConfigError(f"{key}: {redact(text)}: ${{NAME}} is allowed in the server's own file only")
