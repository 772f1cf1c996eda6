"""From a model's name or path to a file that may be used; only `fetch` opens a connection."""

from __future__ import annotations

import difflib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream import catalog
from stream.catalog import Entry
from stream.errors import ConfigError, ModelError
from stream.importing import Facts, import_file, import_official, imported_path, own_path
from stream.model import BUNDLED_MODEL, INPUT_RANGES, ModelInfo, bundled_model_path, sha256_of
from stream.store import locked, models_folder, read_ledger
from stream.trust import (
    Say,
    check_file,
    entry_of,
    is_accepted,
    is_set,
    known_digest,
    pin,
    remembered_digest,
    require_licence,
)

if TYPE_CHECKING:  # what it takes to speak to servers costs every run 50 ms
    from stream.fetch import Patience, ProgressCallback

MIRROR_VARIABLE = "GPEN_STREAM_MODELS_URL"
"""Environment variable: a base URL under which all files lie, asked in place of their publishers."""
OFFLINE_VARIABLE = "GPEN_STREAM_OFFLINE"
"""Environment variable: 1 forbids every connection."""

_log = logging.getLogger(__name__)


def resolve(name_or_path: str | Path, *, accept_licence: bool = False, say: Say | None = None) -> Path:
    """A local file for a model's name or path: ``.safetensors``, ``.onnx``, or a helper's ``.pth``.

    A name is the catalogue's or one that was given at an import. A generator's ``.pth`` is imported
    into the models folder first, once. Other paths come back as they are: `read_model_info` says
    what is wrong with them. `say` is told what the user should know (the log by default).

    Raises ModelError where the model is not here or not the one meant, ConfigError for an unknown
    name and a licence that was not accepted. Never opens a connection.
    """
    name, say = str(name_or_path), say or _log.warning
    entry = catalog.entries().get(name)
    if entry is not None:
        return _resolve_entry(entry, accept_licence)
    own = read_ledger().imports.get(name)
    if own is not None:
        path = own_path(own)
        if not path.is_file():
            raise ModelError(f"{name}: its file {path} is gone; import it again")
        return path
    path = Path(name)
    if path.suffix in (".pth", ".pt"):
        return _resolve_checkpoint(path, accept_licence, say)
    if not path.suffix and not path.exists():
        raise ConfigError(_unknown(name))
    return path


def is_present(name: str) -> bool:
    """Whether a file of the catalogue's model `name` is here, by its name alone."""
    return _state(entry_named(name))[0] != "absent"


def require_licence_of(info: ModelInfo, accept: bool = False) -> None:
    """Raise ConfigError where a generator's weights state a licence that was not accepted."""
    licence = catalog.licences().get(info.licence)
    if licence is not None:
        require_licence(info.name, licence, accept)


def fetch(
    name: str,
    *,
    accept_licence: bool = False,
    offline: bool = False,
    progress: ProgressCallback | None = None,
    say: Say | None = None,
    patience: Patience | None = None,
) -> Path:
    """Download a model into the models folder, unless it is there; returns what `resolve` would.

    It is used only with the digest that is published or pinned; where there is none, a checkpoint
    must be the network that it claims to be, and is pinned. Raises ModelError or ConfigError.
    """
    from stream.fetch import fetch_file

    say = say or _log.warning
    entry = entry_named(name)
    if entry.url is None:
        return _resolve_entry(entry, accept_licence)
    require_licence(name, entry.licence, accept_licence)
    say(f"{name}: licence: {entry.licence.terms} ({entry.licence.url})")
    with locked(entry.file, lambda: say(f"{name}: another process fetches it; waiting")):
        if _state(entry)[0] == "unverified":
            return _resolve_entry(entry, accept_licence)  # which says what to do
        if _is_here(entry):
            say(f"{name}: is here already")
            return _resolve_entry(entry, accept_licence)
        if offline or is_set(OFFLINE_VARIABLE):
            raise ModelError(
                f"{name}: not here, and offline; fetch {entry.file} elsewhere and import it, or go online"
            )
        target = models_folder() / entry.file
        expected = known_digest(entry)

        def approve(part: Path, digest: str) -> None:
            if entry.is_checkpoint:
                import_official(entry, part, digest)

        digest = fetch_file(
            address(entry),
            target,
            size=entry.bytes,
            sha256=expected,
            approve=approve,
            progress=progress,
            patience=patience,
        )
        if expected is None:
            pin(entry, digest, say)
        check_file(target, digest)
    return _resolve_entry(entry, accept_licence)


def address(entry: Entry) -> str:
    """Where a file is fetched from: its publisher, or the mirror that the environment names."""
    from stream.fetch import check_url

    mirror = os.environ.get(MIRROR_VARIABLE, "").strip()
    if not mirror:
        return entry.url
    try:
        check_url(mirror)
    except ConfigError as error:
        raise ConfigError(f"{MIRROR_VARIABLE}: {error}") from None
    return f"{mirror.rstrip('/')}/{entry.file}"


def entry_named(name: str) -> Entry:
    """The catalogue's entry; ConfigError, with the nearest names, where there is none."""
    entry = catalog.entries().get(name)
    if entry is None:
        raise ConfigError(_unknown(name))
    return entry


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verifying one model gave."""

    name: str
    good: bool
    text: str


def verify(names: list[str] | None = None) -> list[Verdict]:
    """Hash the files of these models, or of all that are here, anew."""
    own = read_ledger().imports
    for name in names or []:
        if name not in own:
            entry_named(name)
    if not names:
        names = [fact["name"] for fact in survey() if fact["state"] != "absent"]
    return [_verify_own(name, own[name]) if name in own else _verify(entry_named(name)) for name in names]


def survey() -> list[dict[str, Any]]:
    """Every model that has a name, with the catalogue's facts and what is here of it.

    `state` is ``bundled``, ``here`` (the published file), ``imported`` (made from it or from a file of
    the user's own), ``unverified`` (a file whose digest nobody has checked) or ``absent``.
    """
    found = []
    for entry in catalog.entries().values():
        state, path = _state(entry)
        found.append(
            {
                "name": entry.name,
                "task": entry.task,
                "size": entry.size,
                "template": entry.template,
                "input_range": entry.input_range,
                "licence": entry.licence.terms,
                "licence_url": entry.licence.url,
                "licence_accepted": is_accepted(entry.licence),
                "file": entry.file,
                "url": entry.url,
                "bytes": entry.bytes,
                "sha256": entry.sha256,
                "pinned_sha256": None if entry.sha256 else known_digest(entry),
                "state": state,
                "path": None if path is None else str(path),
            }
        )
    for name, own in read_ledger().imports.items():
        path = own_path(own)
        facts = {
            "name": name,
            "task": own["task"],
            "size": int(own["size"]),
            "template": own["template"],
            "input_range": INPUT_RANGES[own["input_range"]],
            "licence": "not stated",
            "licence_accepted": True,
            "file": path.name,
            "sha256": own["sha256"],
            "state": "imported" if path.is_file() else "absent",
            "path": str(path),
        }
        found.append(dict.fromkeys(found[0]) | facts)
    return found


def _resolve_entry(entry: Entry, accept_licence: bool) -> Path:
    state, path = _state(entry)
    if state == "absent":
        raise ModelError(f"{entry.name}: not on this machine; run: gpen-stream models fetch {entry.name}")
    if state == "unverified":
        raise ModelError(
            f"{path}: nobody has published a hash of it, so it needs a look first; run: "
            f"gpen-stream models import {path}"
        )
    require_licence(entry.name, entry.licence, accept_licence)
    if state == "imported" and (expected := remembered_digest(path)):
        check_file(path, expected)
    if state == "here":
        digest = known_digest(entry)
        check_file(path, digest)
        return import_official(entry, path, digest).path if entry.is_checkpoint else path
    return path


def _resolve_checkpoint(path: Path, accept_licence: bool, say: Say) -> Path:
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    for own in read_ledger().imports.values():
        if own["source_sha256"] == digest and own_path(own).is_file():
            return own_path(own)
    entry = entry_of(digest)
    if entry is not None and not entry.is_checkpoint:
        return path
    if entry is not None and _state(entry)[0] == "imported":
        return _resolve_entry(entry, accept_licence)
    return import_file(path, Facts(), accept_licence=accept_licence, say=say).path


def _state(entry: Entry) -> tuple[str, Path | None]:
    """What is here of an entry, by names alone: no file is read."""
    if entry.name == BUNDLED_MODEL:
        return "bundled", bundled_model_path()
    digest, path = known_digest(entry), models_folder() / entry.file
    if entry.is_checkpoint and digest is not None:
        made = imported_path(digest, entry.name)
        if made.is_file():
            return "imported", made
    if path.is_file():
        return ("unverified" if digest is None else "here"), path
    return "absent", None


def _is_here(entry: Entry) -> bool:
    """Whether nothing has to be fetched. A file that is not the one meant does not count."""
    state, path = _state(entry)
    if state == "here":
        try:
            check_file(path, known_digest(entry))
        except ModelError:
            return False
    return state in ("here", "imported")


def _verify(entry: Entry) -> Verdict:
    state, path = _state(entry)
    source, digest = models_folder() / entry.file, known_digest(entry)
    if state in ("absent", "unverified"):
        text = "not on this machine" if state == "absent" else f"{path}: never checked; import it"
        return Verdict(entry.name, False, text)
    expected = [(path, remembered_digest(path) if state == "imported" else digest)]
    if state == "imported" and source.is_file():
        expected.append((source, digest))
    try:
        for file, wanted in expected:
            if wanted is not None:
                check_file(file, wanted, anew=True)
    except ModelError as error:
        return Verdict(entry.name, False, str(error))
    return Verdict(entry.name, True, f"good; SHA-256 {digest} ({'published' if entry.sha256 else 'pinned'})")


def _verify_own(name: str, own: dict[str, str]) -> Verdict:
    path = own_path(own)
    if not path.is_file():
        return Verdict(name, False, f"its file {path} is gone; import it again")
    if sha256_of(path) != own["sha256"]:
        return Verdict(name, False, f"{path}: changed since it was imported; import it again")
    return Verdict(name, True, f"good; SHA-256 {own['sha256']} (your own)")


def _unknown(name: str) -> str:
    known = list(catalog.entries()) + list(read_ledger().imports)
    near = difflib.get_close_matches(name, known, 3, 0.5) or [BUNDLED_MODEL]
    return (
        f"{name}: neither a model's name nor a file; near it: {', '.join(near)}; see gpen-stream models list"
    )
