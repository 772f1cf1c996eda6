"""Where the picture goes: what a user may name, and which module serves it."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from stream.config import Config
from stream.config_live import LiveEncodingSettings, RecordSettings
from stream.errors import ConfigError
from stream.live.packets import Jpeg, Message, Packet, Raw, Snapshot
from stream.live.sinks.backlog import BacklogOverflow

if TYPE_CHECKING:
    from stream.live.sinks.sink import LiveSink


@dataclass(frozen=True, slots=True)
class SinkKind:
    """One kind of sink: its class, imported in the sink's own process only, and what it wants to be sent."""

    path: str
    """Module below `stream.live.sinks`, and class."""
    takes: frozenset[type[Message]]
    held_s: float
    """So much may wait for the sink; beyond it frames are dropped."""
    overflow: BacklogOverflow
    """Which."""
    form: str
    """As a user writes it."""


_VIEWER = 2.0, BacklogOverflow.DROP_WAITING
_RECORD = 10.0, BacklogOverflow.DROP_NEW
"""A disk may pause for longer than a viewer wants to lag behind."""
_CODED = frozenset({Packet})

KINDS: Mapping[str, SinkKind] = {
    "window": SinkKind("window.WindowSink", frozenset({Raw}), *_VIEWER, "window"),
    "virtual-camera": SinkKind(
        "virtual_camera.VirtualCameraSink", frozenset({Raw}), *_VIEWER, "virtual-camera[:DEVICE]"
    ),
    "file": SinkKind("live_file.LiveFileSink", _CODED, *_RECORD, "FILE.mp4, FILE.mkv"),
    "segments": SinkKind("segments.SegmentSink", _CODED, *_RECORD, "FOLDER/"),
    "rtsp": SinkKind("publish.RtspSink", _CODED, *_VIEWER, "rtsp://HOST/PATH"),
    "rtmp": SinkKind("publish.RtmpSink", _CODED, *_VIEWER, "rtmp://HOST/APP/KEY"),
    "hls": SinkKind("hls.HlsSink", _CODED, *_RECORD, "hls:FOLDER"),
    "whip": SinkKind("whip.WhipSink", _CODED, *_VIEWER, "whip:https://HOST/PATH"),
    "mjpeg": SinkKind("mjpeg.MjpegSink", frozenset({Jpeg}), *_VIEWER, "mjpeg:[HOST:]PORT"),
    "snapshots": SinkKind("snapshots.SnapshotSink", frozenset({Snapshot}), *_RECORD, "snapshots:FOLDER"),
}
_SECRET = re.compile(r"(?<=//)[^/\s]+(?=@)|(?<=\?)\S+")
"""User and password, and the query: a token stands there."""
_SECRETS = {"rtmp": re.compile(_SECRET.pattern + r"|(?<=/)[^/?\s]+(?=(?:\?\S*)?$)")}
"""The last part of an RTMP address is the key: all that a publisher has to know."""
_SCHEMES = {"rtsp": "rtsp", "rtsps": "rtsp", "rtmp": "rtmp", "rtmps": "rtmp"}


@dataclass(frozen=True, slots=True)
class SinkSpec:
    """One sink as it was asked for; goes to its process by a pipe."""

    kind: str
    """A key of KINDS."""
    target: str = field(repr=False)
    """Path, address (with credentials) or HOST:PORT."""
    shown: str
    """Safe to log."""
    record: RecordSettings
    live: LiveEncodingSettings
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Password, key and what else of the target nobody may read."""

    def safe(self, text: str) -> str:
        """A text about this sink, in one line without its credentials: FFmpeg names whole addresses."""
        if self.secrets:
            text = text.replace(self.target, self.shown)
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return " ".join(text.split())


def parse_sink(text: str, config: Config) -> SinkSpec:
    """A sink by the text that a user writes; ConfigError in one line says what is wrong with it.

    ${NAME} in an address is taken from the environment.
    """
    kind, target, shown, *secrets = _parse(text.strip())
    return SinkSpec(kind, target, shown, config.record, config.live, tuple(secrets))


def create(spec: SinkSpec) -> LiveSink:
    """The sink itself; call it in its own process."""
    module, _, name = KINDS[spec.kind].path.rpartition(".")
    sink: LiveSink = getattr(importlib.import_module(f"stream.live.sinks.{module}"), name)(spec)
    return sink


def _parse(text: str) -> tuple[str, ...]:
    """Kind, target, what is shown of it, and its secrets."""
    scheme, colon, rest = text.partition(":")
    scheme = scheme.lower()
    if text == "window":
        return "window", "", text
    if scheme == "virtual-camera":
        return "virtual-camera", rest, text
    if rest.startswith("//") or scheme == "whip":
        return _address(scheme, rest, text)
    if colon and scheme in ("hls", "snapshots"):
        if not rest:
            raise ConfigError(f"{text}: names no folder; write {KINDS[scheme].form}")
        return scheme, _path(rest), text
    if colon and scheme == "mjpeg":
        return "mjpeg", _listen(rest, text), text
    return _file(text)


def _address(scheme: str, rest: str, text: str) -> tuple[str, ...]:
    kind = _SCHEMES.get(scheme, scheme)
    secret = _SECRETS.get(kind, _SECRET)
    shown = secret.sub("***", text)
    if kind not in ("whip", *_SCHEMES.values()):
        allowed = ", ".join(_SCHEMES)
        raise ConfigError(f"{shown}: {scheme} cannot be published to; choose one of {allowed} or whip:")
    target, values = _filled_in(text, shown)
    if not re.match(r"whip:https?://[^/\s]+" if kind == "whip" else r"\w+://[^/\s]+/\S", target):
        raise ConfigError(f"{shown}: names no host or no path; write {KINDS[kind].form}")
    secrets = [found for found in (*secret.findall(target), *values) if found]
    return kind, target.removeprefix("whip:"), shown, *secrets


def _filled_in(text: str, shown: str) -> tuple[str, list[str]]:
    """The text with ${NAME} taken from the environment, and the values taken."""
    values = []

    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise ConfigError(f"{shown}: ${{{match[1]}}} is not set in the environment; set it")
        values.append(os.environ[match[1]])
        return values[-1]

    return re.sub(r"\$\{(\w+)\}", value, text), values


def _listen(rest: str, text: str) -> str:
    host, _, port = rest.rpartition(":")
    if not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ConfigError(f"{text}: names no port; write {KINDS['mjpeg'].form}, such as mjpeg:8090")
    return f"{host or '127.0.0.1'}:{port}"


def _file(text: str) -> tuple[str, str, str]:
    if not text:
        raise ConfigError(f"--to: names nothing; write one of {_forms()}")
    if text.endswith(("/", "\\")) or Path(_path(text)).is_dir():
        return "segments", _path(text), text
    if Path(text).suffix.lower() in (".mp4", ".mkv"):
        return "file", _path(text), text
    raise ConfigError(f"{text}: no kind of sink; write one of {_forms()}")


def _path(text: str) -> str:
    return str(Path(text).expanduser().absolute())


def _forms() -> str:
    return ", ".join(kind.form for kind in KINDS.values())
