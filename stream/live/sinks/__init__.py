"""The sinks that a user can name, and the module that implements each kind."""

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
from stream.live.packets import JpegPicture, Message, Packet, RawPicture, Snapshot
from stream.live.sinks.backlog import BacklogOverflow

if TYPE_CHECKING:
    from stream.live.sinks.sink import LiveSink


@dataclass(frozen=True, slots=True)
class SinkKind:
    """One kind of sink: its class, the messages that it accepts, and how much may wait for it."""

    class_path: str
    """MODULE.CLASS below `stream.live.sinks`; imported in the sink's own process only."""
    accepts: frozenset[type[Message]]
    max_wait_s: float
    """Longest time for which a message may wait for the sink; if one waits longer, frames are dropped."""
    overflow: BacklogOverflow
    """Which frames are dropped then."""
    syntax: str
    """How a user writes such a sink."""


_VIEWER = 2.0, BacklogOverflow.DROP_WAITING
_RECORD = 10.0, BacklogOverflow.DROP_NEW
"""A recording waits longer than a viewer: a disk may pause, but a viewer does not want to lag behind."""
_CODED = frozenset({Packet})

KINDS: Mapping[str, SinkKind] = {
    "window": SinkKind("window.WindowSink", frozenset({RawPicture}), *_VIEWER, "window"),
    "virtual-camera": SinkKind(
        "virtual_camera.VirtualCameraSink", frozenset({RawPicture}), *_VIEWER, "virtual-camera[:DEVICE]"
    ),
    "file": SinkKind("live_file.LiveFileSink", _CODED, *_RECORD, "FILE.mp4, FILE.mkv"),
    "segments": SinkKind("segments.SegmentSink", _CODED, *_RECORD, "FOLDER/"),
    "rtsp": SinkKind("publish.RtspSink", _CODED, *_VIEWER, "rtsp://HOST/PATH"),
    "rtmp": SinkKind("publish.RtmpSink", _CODED, *_VIEWER, "rtmp://HOST/APP/KEY"),
    "hls": SinkKind("hls.HlsSink", _CODED, *_RECORD, "hls:FOLDER"),
    "whip": SinkKind("whip.WhipSink", _CODED, *_VIEWER, "whip:https://HOST/PATH"),
    "mjpeg": SinkKind("mjpeg.MjpegSink", frozenset({JpegPicture}), *_VIEWER, "mjpeg:[HOST:]PORT"),
    "snapshots": SinkKind("snapshots.SnapshotSink", frozenset({Snapshot}), *_RECORD, "snapshots:FOLDER"),
}
_SECRET = re.compile(r"(?<=//)[^/\s]+(?=@)|(?<=\?)\S+")
"""User and password, and the query, which may hold a token."""
_SECRETS = {"rtmp": re.compile(_SECRET.pattern + r"|(?<=/)[^/?\s]+(?=(?:\?\S*)?$)")}
"""The last part of an RTMP path is the stream key: whoever knows it can publish."""
_SCHEMES = {"rtsp": "rtsp", "rtsps": "rtsp", "rtmp": "rtmp", "rtmps": "rtmp"}


@dataclass(frozen=True, slots=True)
class SinkSpec:
    """One sink that the user asked for. It is pickled and sent to the sink's process."""

    kind: str
    """A key of KINDS."""
    target: str = field(repr=False)
    """Path, address (with credentials) or HOST:PORT."""
    shown: str
    """The sink as the user wrote it, without its credentials: safe to log."""
    record: RecordSettings
    live: LiveEncodingSettings
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Password, stream key and every other secret part of the target."""
    lease: int = 0
    """Number of the camera's lease in a fleet, which is part of the names of recordings; 0: none."""

    @property
    def suffix(self) -> str:
        """What names of recordings end with, so that no two runs of a camera write one file."""
        return f"-L{self.lease}" if self.lease else ""

    def safe(self, text: str) -> str:
        """A text about this sink as one line without credentials. FFmpeg's errors hold whole addresses."""
        if self.secrets:
            text = text.replace(self.target, self.shown)
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return " ".join(text.split())


def parse_sink(text: str, config: Config) -> SinkSpec:
    """The sink that a user's text names. ${NAME} in an address stands for a variable of the environment.

    Raises ConfigError, which says in one line what is wrong with the text.
    """
    kind, target, shown, *secrets = _parse(text.strip())
    return SinkSpec(kind, target, shown, config.record, config.live, tuple(secrets))


def create(spec: SinkSpec) -> LiveSink:
    """A new instance of the sink; to be called in the sink's own process."""
    module, _, name = KINDS[spec.kind].class_path.rpartition(".")
    sink: LiveSink = getattr(importlib.import_module(f"stream.live.sinks.{module}"), name)(spec)
    return sink


def _parse(text: str) -> tuple[str, ...]:
    """Kind, target, the text that may be shown, and then each secret."""
    scheme, colon, rest = text.partition(":")
    scheme = scheme.lower()
    if text == "window":
        return "window", "", text
    if scheme == "virtual-camera":
        return "virtual-camera", rest, text
    if rest.startswith("//") or scheme == "whip":
        return _published_address(scheme, rest, text)
    if colon and scheme in ("hls", "snapshots"):
        if not rest:
            raise ConfigError(f"{text}: names no folder; write {KINDS[scheme].syntax}")
        return scheme, _path(rest), text
    if colon and scheme == "mjpeg":
        return "mjpeg", _listening_address(rest, text), text
    return _file_or_segments(text)


def _published_address(scheme: str, rest: str, text: str) -> tuple[str, ...]:
    kind = _SCHEMES.get(scheme, scheme)
    secret = _SECRETS.get(kind, _SECRET)
    shown = secret.sub("***", text)
    if kind not in ("whip", *_SCHEMES.values()):
        allowed = ", ".join(_SCHEMES)
        raise ConfigError(f"{shown}: {scheme} cannot be published to; choose one of {allowed} or whip:")
    target, values = _with_environment(text, shown)
    if not re.match(r"whip:https?://[^/\s]+" if kind == "whip" else r"\w+://[^/\s]+/\S", target):
        raise ConfigError(f"{shown}: names no host or no path; write {KINDS[kind].syntax}")
    secrets = [found for found in (*secret.findall(target), *values) if found]
    return kind, target.removeprefix("whip:"), shown, *secrets


def _with_environment(text: str, shown: str) -> tuple[str, list[str]]:
    """The text with each ${NAME} replaced by the variable's value, and these values."""
    values = []

    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise ConfigError(f"{shown}: ${{{match[1]}}} is not set in the environment; set it")
        values.append(os.environ[match[1]])
        return values[-1]

    return re.sub(r"\$\{(\w+)\}", value, text), values


def _listening_address(rest: str, text: str) -> str:
    host, _, port = rest.rpartition(":")
    if not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ConfigError(f"{text}: names no port; write {KINDS['mjpeg'].syntax}, such as mjpeg:8090")
    return f"{host or '127.0.0.1'}:{port}"


def _file_or_segments(text: str) -> tuple[str, str, str]:
    if not text:
        raise ConfigError(f"--to: names nothing; write one of {_all_syntaxes()}")
    if text.endswith(("/", "\\")) or Path(_path(text)).is_dir():
        return "segments", _path(text), text
    if Path(text).suffix.lower() in (".mp4", ".mkv"):
        return "file", _path(text), text
    raise ConfigError(f"{text}: no kind of sink; write one of {_all_syntaxes()}")


def _path(text: str) -> str:
    return str(Path(text).expanduser().absolute())


def _all_syntaxes() -> str:
    return ", ".join(kind.syntax for kind in KINDS.values())
