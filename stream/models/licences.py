"""Checks before weights are used: the licence is accepted, and the file has the expected digest."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from stream.errors import ConfigError, ModelError
from stream.models import catalog
from stream.models.catalog import CatalogEntry, Licence
from stream.models.info import sha256_of
from stream.models.ledger import Ledger, change_ledger, models_folder, read_ledger

CONSENT_VARIABLE = "GPEN_STREAM_ACCEPT_LICENCE"
"""Environment variable: 1 accepts every licence."""

Notify = Callable[[str], None]
"""Shows one line to the user."""

_log = logging.getLogger(__name__)


def is_set(variable: str) -> bool:
    """Whether an environment variable is 1, true, yes or on."""
    return os.environ.get(variable, "").strip().lower() in ("1", "true", "yes", "on")


def is_accepted(licence: Licence) -> bool:
    """Whether the licence needs no consent, or was accepted before."""
    return not licence.needs_consent or licence.name in read_ledger().licences


def require_licence(name: str, licence: Licence, accept: bool = False) -> None:
    """Raise ConfigError, with the terms, unless the licence of model `name` is accepted.

    It may be accepted now, by `accept` or the environment, or before. Consent is stored in the models
    folder if that can be written.
    """
    if is_accepted(licence):
        return
    if not (accept or is_set(CONSENT_VARIABLE)):
        raise ConfigError(
            f"{name}: its licence is not accepted yet: {licence.terms} ({licence.url}); if you keep to it, "
            f"add --accept-licence, or set restore.accept_licence or {CONSENT_VARIABLE}=1"
        )

    def add(ledger: Ledger) -> None:
        if licence.name not in ledger.licences:
            ledger.licences.append(licence.name)

    _change_if_writable(add)


def known_digest(entry: CatalogEntry) -> str | None:
    """The digest that the entry's file must have: the published one, or the one pinned in the ledger."""
    return entry.sha256 or read_ledger().pins.get(entry.file)


def entry_by_digest(digest: str) -> CatalogEntry | None:
    """The catalogue's entry whose file has this digest, published or pinned."""
    pinned = {pin: file for file, pin in read_ledger().pins.items()}
    return catalog.by_sha256(digest) or catalog.by_file(pinned.get(digest, ""))


def pin(entry: CatalogEntry, digest: str, notify: Notify) -> None:
    """From now on, accept only the file with this digest for an entry that has no published digest."""
    notify(
        f"{entry.name}: nobody has published a hash of {entry.file}: this one is trusted on first use and "
        f"pinned in {models_folder()}: SHA-256 {digest}"
    )
    change_ledger(lambda ledger: ledger.pins.setdefault(entry.file, digest))


def check_file(path: Path, expected: str, *, anew: bool = False) -> None:
    """Raise ModelError unless a file of the models folder has the digest `expected`.

    A file whose size and time have not changed is not hashed again, unless `anew` is true.
    """
    if not anew and read_ledger().verified.get(_key(path)) == [*_size_and_time(path), expected]:
        return
    digest = sha256_of(path)
    if digest != expected:
        raise ModelError(
            f"{path}: refused: its SHA-256 is {digest[:12]}..., expected {expected[:12]}...; "
            "fetch it again, or give it another name if it is your own"
        )
    record_digest(path, expected)


def record_digest(path: Path, digest: str) -> None:
    """Record the digest of a file, with the file's size and time."""
    entry: list[int | str] = [*_size_and_time(path), digest]
    _change_if_writable(lambda ledger: ledger.verified.__setitem__(_key(path), entry))


def recorded_digest(path: Path) -> str | None:
    """The digest that the file had when it was hashed last."""
    entry = read_ledger().verified.get(_key(path))
    return None if entry is None else str(entry[-1])


def _key(path: Path) -> str:
    folder = models_folder()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _size_and_time(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _change_if_writable(change: Callable[[Ledger], object]) -> None:
    """Change the ledger if the folder is writable. Nothing depends on it: it may be shared and read-only."""
    try:
        change_ledger(change)
    except ModelError as error:
        _log.info("not remembered: %s", error)
