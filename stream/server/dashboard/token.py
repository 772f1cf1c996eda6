"""The access token: created at the first start, and kept in a file that only its owner can read."""

from __future__ import annotations

import ipaddress
import os
import secrets
import stat
from pathlib import Path

from stream.errors import ConfigError

_TOKEN_BYTES = 32
_MIN_LENGTH = 16


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def load_token(path: Path, host: str, *, wanted: bool = False) -> str | None:
    """Read the access token from `path`, or create it; None if none is needed and none exists.

    A token is needed if `host` is not loopback, or if it is `wanted`. Raises ConfigError if others can
    read the file, if it belongs to another user, if it holds no token, or if it cannot be written. The
    server must not start then.
    """
    try:
        return _read(path)
    except (FileNotFoundError, NotADirectoryError):
        if is_loopback(host) and not wanted:
            return None
    except OSError as error:
        raise ConfigError(f"{path}: the token cannot be read ({error.strerror})") from None
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "w", encoding="ascii") as stream:
            os.chmod(path, 0o600)  # the umask may have removed the owner's rights
            stream.write(token + "\n")
    except OSError as error:
        raise ConfigError(
            f"{path}: the token cannot be written ({error.strerror}), and {host} is served with one only; "
            "set server.token_file"
        ) from None
    return token


def _read(path: Path) -> str:
    """The token in a file; OSError if it cannot be opened, ConfigError if it must not be used."""
    with open(path, "rb") as stream:
        facts = os.fstat(stream.fileno())  # facts of the opened file: the path may lead to another file now
        if not stat.S_ISREG(facts.st_mode):
            raise ConfigError(f"{path}: is no file; name another token_file")
        if os.name == "posix":
            if facts.st_mode & 0o077:
                raise ConfigError(f"{path}: others can read the token; run: chmod 600 {path}")
            if facts.st_uid not in (os.geteuid(), 0):
                raise ConfigError(f"{path}: the token belongs to another user; name another token_file")
        token = stream.read(4096).decode("ascii", "replace").strip()
    if len(token) < _MIN_LENGTH or not token.isprintable() or "\ufffd" in token or " " in token:
        raise ConfigError(
            f"{path}: the token is too short or no plain text; delete the file, and one is made"
        )
    return token
