"""Addresses of live sources: which ones are allowed, and how they are shown without credentials."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from functools import cache
from urllib.parse import urlsplit

import av

from stream.errors import ConfigError

_SCHEMES = {
    "rtsp": "rtsp", "rtsps": "rtsp", "rtmp": "rtmp", "rtmps": "rtmp", "http": "http", "https": "http",
    "udp": "udp", "srt": "srt",
}  # fmt: skip
"""Allowed schemes and the kind of source of each. FFmpeg knows more; some of them open local files."""
_SECRET = (
    r"(?:[\w.-]*(?:pass|pwd|secret|token|auth|key|sig|credential|session)[\w.-]*"
    r"|user(?:name)?|login|code|pw|p)"
)
"""A regular expression for the names of query values that are not shown."""
_MASK = "***"


@dataclass(frozen=True, slots=True)
class Address:
    """Address of a live source. Printing it shows only `shown`; pickling keeps the credentials."""

    kind: str
    """webcam, rtsp (rtsps too), rtmp (rtmps too), http (https too), udp, srt, file or test."""
    shown: str
    """The address without credentials, safe to log."""
    _url: str = field(repr=False)

    def reveal(self) -> str:
        """The address for FFmpeg, credentials included; of a webcam the device. It must not be logged."""
        return self._url

    def __str__(self) -> str:
        return self.shown

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"


def parse_address(text: str) -> Address:
    """The address that a user typed, with `${NAME}` replaced from the environment. Raises ConfigError."""
    shown = redact(text.strip())
    url = expand(text.strip(), f"source {shown}")
    if not url:
        raise ConfigError(
            "source: is empty; give webcam:0, test:, a file, rtsp://HOST/PATH, rtmp:// or http://"
        )
    if any(ord(char) < 32 or ord(char) == 127 for char in url):
        raise ConfigError(f"source {shown!r}: holds a line break or another control character; take it out")
    scheme, colon, rest = url.partition(":")
    scheme = scheme.lower()
    if scheme == "test" and colon:
        if rest:
            raise ConfigError(f"source {shown}: nothing follows test:; set source.size and source.rate")
        return Address("test", "test:", "test:")
    if scheme == "webcam" and colon:
        if not rest:
            raise ConfigError("source webcam: which one? webcam:0 is the first; see gpen-stream sources")
        return Address("webcam", shown, rest)
    if re.match(r"[A-Za-z][\w+.-]*://", url):
        return _remote(url, shown)
    if scheme == "file" and colon:
        return Address("file", shown, rest)
    # A single letter before a colon is a drive of Windows, not a scheme.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", url) and not os.path.exists(url):
        raise ConfigError(
            f"source {shown}: {scheme}: is not known; {_allowed_schemes()}, or a file that is there"
        )
    return Address("file", shown, url)


def redact(text: str) -> str:
    """Replace the credentials of all URLs in a text by ***."""
    text = re.sub(r"([A-Za-z][\w+.-]*://)([^/?#\s\"'<>]*)@", rf"\1{_MASK}@", text)
    # A password that holds a slash: the text between :// and the slash is not a host and a port.
    with_slash = r"(://)(?!\*\*\*@)(?![\w.-]*:\d+/)([^\s\"'<>@/]*:[^\s\"'<>@]*)@"
    text = re.sub(with_slash, rf"\1{_MASK}@", text)
    return re.sub(rf"(?i)([?&;]{_SECRET}=)[^&;#\s\"'<>]+", rf"\1{_MASK}", text)


def expand(text: str, what: str) -> str:
    """Replace `${NAME}` in a text from the environment.

    Raises ConfigError where a variable is missing; its message begins with `what`, the text's meaning.
    """

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1])
        if found is None:
            raise ConfigError(f"{what}: the environment holds no {match[1]}; set it")
        return found

    return re.sub(r"\$\{(\w+)\}", value, text)


def _remote(url: str, shown: str) -> Address:
    scheme = url.partition(":")[0].lower()
    kind = _SCHEMES.get(scheme)
    if kind is None:
        raise ConfigError(f"source {shown}: {scheme}:// is not allowed; {_allowed_schemes()}")
    if not _can_read(scheme):
        raise ConfigError(
            f"source {shown}: this build of FFmpeg has no {scheme}; have it sent as RTSP or RTMP"
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # its text may quote a password
        raise ConfigError(
            f"source {shown}: its host or port cannot be read; write {scheme}://HOST:PORT/"
        ) from None
    if not host and kind != "udp":
        raise ConfigError(f"source {shown}: names no host; write {scheme}://HOST/...")
    if kind == "udp" and not port:
        raise ConfigError(f"source {shown}: names no port; write udp://0.0.0.0:PORT to listen there")
    return Address(kind, shown, url)


def _allowed_schemes() -> str:
    return "take webcam:, test:, " + ", ".join(f"{name}://" for name in _SCHEMES if _can_read(name))


@cache
def _can_read(scheme: str) -> bool:
    """Whether this build of FFmpeg can read the scheme. Only `srt` depends on the build."""
    if scheme != "srt":
        return True
    try:
        av.open("srt://127.0.0.1:9", timeout=0.05).close()
    except av.ProtocolNotFoundError:
        return False
    except av.FFmpegError:
        pass  # FFmpeg has the protocol; nobody listens there
    return True
