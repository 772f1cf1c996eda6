"""The cameras that a server looks after, as its YAML file names them."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, time, timedelta
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

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(r"(?:([a-z,-]+) +)?(\d{1,2}):(\d\d) *- *(\d{1,2}):(\d\d)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_ON_DISK = frozenset({"file", "segments", "hls", "snapshots"})
_SETTING = re.compile(r"[a-z_]+\.[a-z_]+")


class WebhookSettings(Section):
    """Where events are posted."""

    url: str = Field(
        repr=False,
        pattern=r"^(https?://|\$\{)",
        description="http(s) address; ${NAME} is taken from the environment",
    )
    secret_env: str | None = Field(
        None, description="environment variable whose value is sent along, so that the receiver knows us"
    )
    kinds: tuple[str, ...] = Field((), description="kinds of events; none named: all")


class ServerSettings(Section):
    """The dashboard and the folders of `gpen-stream serve`."""

    host: str = Field("127.0.0.1", description="address it listens on; any other needs a token")
    port: int = Field(8080, ge=0, le=65535, description="TCP port; 0: a free one")
    token_file: str | None = Field(
        None, description="file with the access token; unset: token in the data folder"
    )
    data: str = Field("gpen-stream-data", min_length=1, description="folder for recordings and the token")
    files: str | None = Field(None, description="folder of files to restore; unset: files in the data folder")
    names: tuple[str, ...] = Field(
        (), description="names by which browsers may call it, beside localhost, its own and numbers"
    )
    upload_mb: int = Field(4096, ge=1, le=1_000_000, description="largest file that may be uploaded, MiB")
    webhook: WebhookSettings | None = None

    @property
    def data_folder(self) -> Path:
        """Absolute."""
        return Path(self.data).expanduser().absolute()

    @property
    def files_folder(self) -> Path:
        """Absolute."""
        return Path(self.files).expanduser().absolute() if self.files else self.data_folder / "files"

    @property
    def token_path(self) -> Path:
        """Absolute."""
        return (
            Path(self.token_file).expanduser().absolute() if self.token_file else self.data_folder / "token"
        )


class CameraSettings(Section):
    """One camera."""

    source: str = Field(
        repr=False, min_length=1, description="address; ${NAME} is taken from the environment"
    )
    to: tuple[str, ...] = Field(
        (), repr=False, description="sinks beside the dashboard; relative folders lie in the data folder"
    )
    preset: Preset = Field("default", description="what its settings start from")
    set: dict[str, Any] = Field(
        default_factory=dict, description="settings over the preset, such as restore.strength: 0.7"
    )
    priority: int = Field(5, ge=1, le=10, description="share of the restorer, 10 the largest")
    schedule: Annotated[tuple[str, ...], AfterValidator(lambda value: _checked(value))] = Field(
        (), description="when it runs, such as 'mon-fri 07:00-19:00', local time; none: always"
    )
    enabled: bool = True
    include: tuple[Region, ...] = Field((), description="regions as fractions: faces inside only")
    exclude: tuple[Region, ...] = Field((), description="regions whose faces are left alone")

    def config(self, key: str = "set") -> Config:
        """The settings of its run; ConfigError names `key` and what is wrong below it."""
        if wrong := next((name for name in self.set if not _SETTING.fullmatch(name)), None):
            raise ConfigError(f"{key}.{wrong}: no setting; write section.key, such as restore.strength")
        overrides = dict(self.set)
        overrides |= {f"select.{k}": v for k in ("include", "exclude") if (v := getattr(self, k))}
        texts = [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in overrides.items()]
        try:
            return load_config(self.preset, None, texts)
        except ConfigError as error:
            raise ConfigError(f"{key}.{error}") from None

    def changed(self, changes: LiveSettings) -> Self:
        """The settings as they are after a change, for the next start of the camera."""
        own = {name: value for name, value in changes.given().items() if name in CameraSettings.model_fields}
        others = changes.model_copy(update=dict.fromkeys(own))
        return self.model_copy(update=own | {"set": self.set | others.overrides()})

    def sinks(self, data: Path, key: str = "to") -> list[SinkSpec]:
        """Its sinks; a relative folder or file lies in `data`. ConfigError begins with `key`."""
        config, specs = self.config(), []
        for text in self.to:
            try:
                spec = parse_sink(text, config)
            except ConfigError as error:
                raise ConfigError(f"{key}: {error}") from None
            path = Path(text.removeprefix(f"{spec.kind}:")).expanduser()
            if spec.kind in _ON_DISK and not path.is_absolute():
                spec = replace(spec, target=str(data / path))
            specs.append(spec)
        return specs


class CamerasFile(Section):
    """A whole file."""

    server: ServerSettings = ServerSettings()
    cameras: dict[str, CameraSettings] = Field(default_factory=dict)


def load_cameras(path: Path) -> CamerasFile:
    """Read a file; ConfigError in one line names the file and the key."""
    data = {key: value for key, value in read_yaml(path).items() if value is not None}
    try:
        if twice := _twice(path):
            raise ConfigError(f"cameras.{twice}: is there twice; every camera needs a name of its own")
        file = CamerasFile.model_validate(tuples(data))
        for name, settings in file.cameras.items():
            check_camera(name, settings)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error, CamerasFile)}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return file


def _twice(path: Path) -> str | None:
    """A camera whose name comes up twice: YAML's loader would keep the last and say nothing."""
    root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    for key, value in root.value if root is not None else ():
        if key.value == "cameras" and isinstance(value, yaml.MappingNode):
            names = [name.value for name, _ in value.value]
            return next((name for name in names if names.count(name) > 1), None)
    return None


def save_cameras(path: Path, file: CamerasFile) -> None:
    """Write a file as a whole or not at all; ${NAME} stays as it is, comments go."""
    data = file.model_dump(mode="json", exclude_defaults=True)
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=False, width=100)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600  # it may hold credentials
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
    """One camera's settings as plain values; ConfigError names cameras.NAME.key."""
    try:
        settings = CameraSettings.model_validate(tuples(data))
    except ValidationError as error:
        raise ConfigError(f"cameras.{name}.{_explain(error, CameraSettings)}") from None
    check_camera(name, settings)
    return settings


def check_camera(name: str, settings: CameraSettings) -> None:
    """ConfigError where the name, the source, a sink or a setting cannot be used."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"cameras.{name}: a name has up to 40 letters, digits, - and _")
    settings.config(f"cameras.{name}.set")
    settings.sinks(Path(), f"cameras.{name}.to")
    try:
        parse_address(settings.source)
    except ConfigError as error:
        raise ConfigError(f"cameras.{name}.source: {str(error).removeprefix('source ')}") from None


def shown(settings: CameraSettings) -> CameraSettings:
    """The settings as they may be shown: *** in place of credentials. ConfigError."""
    source = parse_address(settings.source).shown
    to = tuple(spec.shown for spec in settings.sinks(Path()))
    return settings.model_copy(update={"source": source, "to": to})


def is_open(schedule: Sequence[str], now: datetime) -> bool:
    """Whether a camera with this schedule runs now; always without one."""
    return not schedule or any(begin <= now < end for begin, end in _windows(schedule, now))


def next_opening(schedule: Sequence[str], now: datetime) -> datetime:
    """When its next window begins; now without a schedule."""
    return min((begin for begin, _ in _windows(schedule, now) if begin > now), default=now)


def _windows(schedule: Sequence[str], now: datetime) -> list[tuple[datetime, datetime]]:
    """Begin and end of every window from yesterday on for more than a week."""
    found = []
    for days, begin_min, end_min in map(_window, schedule):
        for ahead in range(-1, 8):
            day = datetime.combine(now.date() + timedelta(ahead), time(), now.tzinfo)
            if day.weekday() in days:
                end = end_min if end_min > begin_min else end_min + 1440  # over midnight
                found.append((day + timedelta(minutes=begin_min), day + timedelta(minutes=end)))
    return found


def _window(text: str) -> tuple[set[int], int, int]:
    """Weekdays, and begin and end in minutes of the day; ValueError."""
    match = _WINDOW.fullmatch(text.strip().lower())
    if not match:
        raise ValueError(f"{text!r} is no window of time; write such as 'mon-fri 07:00-19:00'")
    days: set[int] = set()
    for part in (match[1] or "mon-sun").split(","):
        first, _, last = part.partition("-")
        if first not in _DAYS or (last or first) not in _DAYS:
            raise ValueError(f"{part!r} is no weekday; write {', '.join(_DAYS)} or such as mon-fri")
        low, high = _DAYS.index(first), _DAYS.index(last or first)
        days |= {day % 7 for day in range(low, high + 1 if high >= low else high + 8)}
    hours, minutes = [int(match[2]), int(match[4])], [int(match[3]), int(match[5])]
    begin, end = (hour * 60 + minute for hour, minute in zip(hours, minutes, strict=True))
    if max(minutes) > 59 or begin >= 1440 or end > 1440 or begin == end:
        raise ValueError(f"{text!r} is no window of time; hours go from 00:00 to 24:00")
    return days, begin, end


def _checked(schedule: tuple[str, ...]) -> tuple[str, ...]:
    for text in schedule:
        _window(text)
    return schedule


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first error: its key's path and what is allowed there; never the value, it may be a secret."""
    first = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] in ("extra_forbidden", "invalid_key"):
        known = _known(first["loc"][:-1], model)
        return f"{path}: unknown setting; known there: {', '.join(known)}"
    if first["type"] == "missing":
        return f"{path}: is missing"
    message = first["msg"].removeprefix("Value error, ")
    return f"{path}: {message[0].lower()}{message[1:]}"


def _known(keys: Sequence[int | str], model: type[BaseModel]) -> list[str]:
    """Names of the settings at a path."""
    kinds: dict[int | str, type[BaseModel]] = {
        "server": ServerSettings,
        "webhook": WebhookSettings,
        "cameras": CameraSettings,
    }
    names = [kinds[key] for key in keys if key in kinds]
    return list((names[-1] if names else model).model_fields)
