"""What has to hold before weights are used: the licence is accepted, the file is the one meant."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from stream.errors import ConfigError, ModelError
from stream.models import catalog
from stream.models.catalog import Entry, Licence
from stream.models.info import sha256_of
from stream.models.ledger import Ledger, change_ledger, models_folder, read_ledger

CONSENT_VARIABLE = "GPEN_STREAM_ACCEPT_LICENCE"
"""Environment variable: 1 accepts every licence that is asked for."""

Say = Callable[[str], None]
"""Takes one line for the user."""

_log = logging.getLogger(__name__)


def is_set(variable: str) -> bool:
    """Whether an environment variable says yes."""
    return os.environ.get(variable, "").strip().lower() in ("1", "true", "yes", "on")


def is_accepted(licence: Licence) -> bool:
    """Whether nothing stands against its use: it asks for no consent, or was accepted before."""
    return not licence.needs_consent or licence.name in read_ledger().licences


def require_licence(name: str, licence: Licence, accept: bool = False) -> None:
    """Pass where the licence of model `name` is accepted, now (`accept`, the environment) or before.

    Consent is remembered in the models folder, where that can be written. Raises ConfigError, with
    the terms, where it is missing.
    """
    if is_accepted(licence):
        return
    if not (accept or is_set(CONSENT_VARIABLE)):
        raise ConfigError(
            f"{name}: its licence is not accepted yet: {licence.terms} ({licence.url}); if you keep to it, "
            f"add --accept-licence, or set restore.accept_licence or {CONSENT_VARIABLE}=1"
        )

    def remember(ledger: Ledger) -> None:
        if licence.name not in ledger.licences:
            ledger.licences.append(licence.name)

    _change_if_writable(remember)


def known_digest(entry: Entry) -> str | None:
    """The digest that the entry's file must have: the published one, or the one pinned here."""
    return entry.sha256 or read_ledger().pins.get(entry.file)


def entry_of(digest: str) -> Entry | None:
    """The catalogue's entry whose file has this digest, as published or as pinned here."""
    pinned = {pin: file for file, pin in read_ledger().pins.items()}
    return catalog.by_sha256(digest) or catalog.by_file(pinned.get(digest, ""))


def pin(entry: Entry, digest: str, say: Say) -> None:
    """Trust, from now on, only this file of an entry for which no digest is published."""
    say(
        f"{entry.name}: nobody has published a hash of {entry.file}: this one is trusted on first use and "
        f"pinned in {models_folder()}: SHA-256 {digest}"
    )
    change_ledger(lambda ledger: ledger.pins.setdefault(entry.file, digest))


def check_file(path: Path, expected: str, *, anew: bool = False) -> None:
    """Raise ModelError unless a file of the models folder has the digest `expected`.

    It is hashed only once while its size and time stay, unless `anew` asks for more.
    """
    if not anew and read_ledger().verified.get(_key(path)) == [*_mark(path), expected]:
        return
    digest = sha256_of(path)
    if digest != expected:
        raise ModelError(
            f"{path}: refused: its SHA-256 is {digest[:12]}..., expected {expected[:12]}...; "
            "fetch it again, or give it another name if it is your own"
        )
    remember_file(path, expected)


def remember_file(path: Path, digest: str) -> None:
    """Keep the digest that a file was found to have, with the size and time by which to know it."""
    entry: list[int | str] = [*_mark(path), digest]
    _change_if_writable(lambda ledger: ledger.verified.__setitem__(_key(path), entry))


def remembered_digest(path: Path) -> str | None:
    """The digest that the file had when it was last looked at."""
    entry = read_ledger().verified.get(_key(path))
    return None if entry is None else str(entry[-1])


def _key(path: Path) -> str:
    folder = models_folder()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _mark(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _change_if_writable(change: Callable[[Ledger], object]) -> None:
    """A folder that others look after may be read-only: what is remembered there is a comfort only."""
    try:
        change_ledger(change)
    except ModelError as error:
        _log.info("not remembered: %s", error)
