"""The YAML file of a server: its cameras, their schedules and the dashboard's settings."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from stream.config import Config, Preset, load_config, read_yaml, tuples
from stream.config_live import Section
from stream.errors import ConfigError
from stream.live.session.live_settings import LiveSettings, Region
from stream.live.sinks import SinkSpec, parse_sink
from stream.live.source.address import parse_address
from stream.server.opening_hours import check_schedule

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
ON_DISK_SINKS = frozenset({"file", "segments", "hls", "snapshots"})
"""Kinds of sinks that write files."""
_SETTING = re.compile(r"[a-z_]+\.[a-z_]+")


class WebhookSettings(Section):
    """Settings of the webhook that events are sent to."""

    url: str = Field(
        repr=False,
        pattern=r"^(https?://|\$\{)",
        description="http(s) address; ${NAME} is replaced by that environment variable",
    )
    secret_env: str | None = Field(
        None,
        description="environment variable whose value is sent too, to prove who sends",
    )
    kinds: tuple[str, ...] = Field((), description="kinds of events to send; empty: all")


class JobSettings(Section):
    """Settings of the files that the dashboard restores."""

    at_once: int = Field(
        1, ge=1, le=64, description="files restored at the same time; each uses all cores, so one is fastest"
    )
    segment_s: float = Field(
        60.0,
        ge=1,
        le=86_400,
        description="longest part of a long video, s; a server that was killed loses no more of its work",
    )
    on: str | None = Field(
        None,
        min_length=1,
        description="Ray cluster that restores long videos, as restore --on; unset: this machine",
    )


class ServerSettings(Section):
    """Settings of `gpen-stream serve`: the dashboard and the folders."""

    host: str = Field("127.0.0.1", description="address it listens on; any other needs a token")
    port: int = Field(8080, ge=0, le=65535, description="TCP port; 0: a free one")
    token_file: str | None = Field(
        None, description="file with the access token; unset: token in the data folder"
    )
    data: str = Field("gpen-stream-data", min_length=1, description="folder for recordings and the token")
    files: str | None = Field(None, description="folder of files to restore; unset: files in the data folder")
    names: tuple[str, ...] = Field(
        (), description="names by which browsers may address it, besides localhost, its own and IP addresses"
    )
    upload_mb: int = Field(4096, ge=1, le=1_000_000, description="largest file that may be uploaded, MiB")
    on: str | None = Field(
        None,
        description="Ray cluster whose machines run the cameras: ray://HOST:PORT, HOST:PORT, auto or ray; "
        "unset: this machine runs them",
    )
    state: str | None = Field(
        None,
        description="folder of the cluster's state, on storage that all machines see; unset: fleet in the "
        "data folder",
    )
    webhook: WebhookSettings | None = None
    jobs: JobSettings = JobSettings()

    @property
    def data_folder(self) -> Path:
        """Absolute path of the folder for recordings and the token."""
        return Path(self.data).expanduser().absolute()

    @property
    def files_folder(self) -> Path:
        """Absolute path of the folder of files to restore."""
        return Path(self.files).expanduser().absolute() if self.files else self.data_folder / "files"

    @property
    def state_folder(self) -> Path:
        """Absolute path of the folder of a fleet's state."""
        return Path(self.state).expanduser().absolute() if self.state else self.data_folder / "fleet"

    @property
    def token_path(self) -> Path:
        """Absolute path of the file with the access token."""
        return (
            Path(self.token_file).expanduser().absolute() if self.token_file else self.data_folder / "token"
        )


class CameraSettings(Section):
    """Settings of one camera."""

    source: str = Field(
        repr=False, min_length=1, description="address; ${NAME} is replaced by that environment variable"
    )
    to: tuple[str, ...] = Field(
        (), repr=False, description="sinks besides the dashboard; relative folders lie in the data folder"
    )
    preset: Preset = Field("default", description="the preset that its settings start from")
    set: dict[str, Any] = Field(
        default_factory=dict, description="settings over those of the preset, such as restore.strength: 0.7"
    )
    priority: int = Field(5, ge=1, le=10, description="share of the restorer, 10 the largest")
    schedule: Annotated[tuple[str, ...], AfterValidator(check_schedule)] = Field(
        (), description="when it runs, such as 'mon-fri 07:00-19:00', local time; empty: always"
    )
    enabled: bool = True
    include: tuple[Region, ...] = Field(
        (), description="regions as fractions: only faces inside are restored"
    )
    exclude: tuple[Region, ...] = Field((), description="regions as fractions: faces inside stay unrestored")

    def config(self, key: str = "set") -> Config:
        """The camera's whole configuration: `set` over the preset.

        Raises ConfigError, whose message begins with `key`, the path of `set` in the file.
        """
        if wrong := next((name for name in self.set if not _SETTING.fullmatch(name)), None):
            raise ConfigError(f"{key}.{wrong}: no setting; write section.key, such as restore.strength")
        regions = {"select.include": self.include, "select.exclude": self.exclude}
        overrides = self.set | {name: boxes for name, boxes in regions.items() if boxes}
        texts = [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in overrides.items()]
        try:
            return load_config(self.preset, None, texts)
        except ConfigError as error:
            raise ConfigError(f"{key}.{error}") from None

    def changed(self, changes: LiveSettings) -> Self:
        """These settings after a change of the running session, for the next start of the camera."""
        own = {name: value for name, value in changes.given().items() if name in CameraSettings.model_fields}
        others = changes.model_copy(update=dict.fromkeys(own))
        return self.model_copy(update=own | {"set": self.set | others.overrides()})

    def sinks(self, data_folder: Path, key: str = "to") -> list[SinkSpec]:
        """The camera's sinks; a relative folder or file lies in `data_folder`.

        Raises ConfigError, whose message begins with `key`, the path of `to` in the file.
        """
        config, specs = self.config(), []
        for text in self.to:
            try:
                spec = parse_sink(text, config)
            except ConfigError as error:
                raise ConfigError(f"{key}: {error}") from None
            path = Path(text.removeprefix(f"{spec.kind}:")).expanduser()
            if spec.kind in ON_DISK_SINKS and not path.is_absolute():
                spec = replace(spec, target=str(data_folder / path))
            specs.append(spec)
        return specs


class CamerasFile(Section):
    """The whole file."""

    server: ServerSettings = ServerSettings()
    cameras: dict[str, CameraSettings] = Field(default_factory=dict)


def load_cameras(path: Path) -> CamerasFile:
    """Read the file of cameras. Raises ConfigError, whose one line names the file and the key."""
    data = {key: value for key, value in read_yaml(path).items() if value is not None}
    try:
        if twice := _repeated_camera(path):
            raise ConfigError(f"cameras.{twice}: is there twice; every camera needs a name of its own")
        file = CamerasFile.model_validate(tuples(data))
        for name, settings in file.cameras.items():
            check_camera(name, settings)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error, CamerasFile)}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return file


def _repeated_camera(path: Path) -> str | None:
    """The name of a camera that stands twice in a file: YAML's loader would silently keep the last one."""
    root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    for key, value in root.value if root is not None else ():
        if key.value == "cameras" and isinstance(value, yaml.MappingNode):
            names = [name.value for name, _ in value.value]
            return next((name for name in names if names.count(name) > 1), None)
    return None


def save_cameras(path: Path, file: CamerasFile) -> None:
    """Write the file of cameras, as a whole or not at all. ${NAME} stays as it is; comments are lost.

    Raises ConfigError if the file cannot be written.
    """
    data = file.model_dump(mode="json", exclude_defaults=True)
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=False, width=100)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600  # the file may hold credentials
    part = ""
    try:
        handle, part = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        with open(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(part, mode)
        os.replace(part, path)
    except OSError as error:
        if part:
            Path(part).unlink(missing_ok=True)
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror}); the change holds until a restart"
        ) from None


def parse_camera(name: str, data: Mapping[str, object]) -> CameraSettings:
    """A camera's settings from plain values. Raises ConfigError, whose message names cameras.NAME.KEY."""
    try:
        settings = CameraSettings.model_validate(tuples(data))
    except ValidationError as error:
        raise ConfigError(f"cameras.{name}.{_explain(error, CameraSettings)}") from None
    check_camera(name, settings)
    return settings


def check_camera(name: str, settings: CameraSettings) -> None:
    """Raise ConfigError if the name, the source, a sink or a setting of a camera cannot be used."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"cameras.{name}: a name has up to 40 letters, digits, - and _")
    settings.config(f"cameras.{name}.set")
    settings.sinks(Path(), f"cameras.{name}.to")
    try:
        parse_address(settings.source)
    except ConfigError as error:
        raise ConfigError(f"cameras.{name}.source: {str(error).removeprefix('source ')}") from None


def refuse_shared_target(
    name: str, settings: CameraSettings, others: Mapping[str, CameraSettings], data_folder: Path
) -> None:
    """Raise ConfigError if another camera writes to the same place: they would overwrite each other."""
    own = {(spec.kind, spec.target): spec.shown for spec in settings.sinks(data_folder)}
    for other, theirs in others.items():
        for sink in theirs.sinks(data_folder):
            if (text := own.get((sink.kind, sink.target))) is not None:
                raise ConfigError(f"cameras.{name}.to: {text} is camera {other}'s; name another")


def with_secrets(new: CameraSettings, old: CameraSettings, shown: CameraSettings) -> CameraSettings:
    """New settings in which addresses without credentials are replaced by the known ones with them.

    `old`: the settings before, `shown`: how they were shown.
    """
    known = dict(zip(shown.to, old.to, strict=True))
    known[shown.source] = old.source
    to = tuple(known.get(text, text) for text in new.to)
    return new.model_copy(update={"source": known.get(new.source, new.source), "to": to})


def redacted(settings: CameraSettings) -> CameraSettings:
    """The settings with *** in place of credentials. Raises ConfigError if an address cannot be parsed."""
    source = parse_address(settings.source).shown
    to = tuple(spec.shown for spec in settings.sinks(Path()))
    return settings.model_copy(update={"source": source, "to": to})


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first error: the key's path and what is allowed there, without the value, which may be secret."""
    first = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] in ("extra_forbidden", "invalid_key"):
        known = _known_settings(first["loc"][:-1], model)
        return f"{path}: unknown setting; known there: {', '.join(known)}"
    if first["type"] == "missing":
        return f"{path}: is missing"
    message = first["msg"].removeprefix("Value error, ")
    return f"{path}: {message[0].lower()}{message[1:]}"


def _known_settings(keys: Sequence[int | str], model: type[BaseModel]) -> list[str]:
    """Names of the settings below a path of keys."""
    sections: dict[int | str, type[BaseModel]] = {
        "server": ServerSettings,
        "webhook": WebhookSettings,
        "jobs": JobSettings,
        "cameras": CameraSettings,
    }
    found = [sections[key] for key in keys if key in sections]
    return list((found[-1] if found else model).model_fields)
