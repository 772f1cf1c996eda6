"""The access token: made at the first start, kept in a file that nobody else can read."""

from __future__ import annotations

import ipaddress
import os
import secrets
import stat
from pathlib import Path

from stream.errors import ConfigError

_BYTES = 32
_SHORTEST = 16


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address that is listened on."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def load_token(path: Path, host: str, *, wanted: bool = False) -> str | None:
    """The access token, made at the first start that needs one; None: this machine only, without.

    It is needed for every `host` but loopback, and where it is `wanted`. Raises ConfigError for a file
    that others can read, that is not ours or holds no token, and where none can be kept: nothing is
    served then.
    """
    try:
        return _read(path)
    except (FileNotFoundError, NotADirectoryError):
        if is_loopback(host) and not wanted:
            return None
    except OSError as error:
        raise ConfigError(f"{path}: the token cannot be read ({error.strerror})") from None
    token = secrets.token_urlsafe(_BYTES)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "w", encoding="ascii") as stream:
            os.chmod(path, 0o600)  # whatever the umask says
            stream.write(token + "\n")
    except OSError as error:
        raise ConfigError(
            f"{path}: the token cannot be written ({error.strerror}), and {host} is served with one only; "
            "set server.token_file"
        ) from None
    return token


def _read(path: Path) -> str:
    with open(path, "rb") as stream:
        facts = os.fstat(stream.fileno())  # of what was opened, not of what lies there a moment later
        if not stat.S_ISREG(facts.st_mode):
            raise ConfigError(f"{path}: is no file; name another token_file")
        if os.name == "posix":
            if facts.st_mode & 0o077:
                raise ConfigError(f"{path}: others can read the token; run: chmod 600 {path}")
            if facts.st_uid not in (os.geteuid(), 0):
                raise ConfigError(f"{path}: the token belongs to another user; name another token_file")
        token = stream.read(4096).decode("ascii", "replace").strip()
    if len(token) < _SHORTEST or not token.isprintable() or "\ufffd" in token or " " in token:
        raise ConfigError(
            f"{path}: the token is too short or no plain text; delete the file, and one is made"
        )
    return token
