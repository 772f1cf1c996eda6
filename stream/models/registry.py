"""From a model's name or path to a file that may be used; only `fetch` opens a connection."""

from __future__ import annotations

import difflib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stream.errors import ConfigError, ModelError
from stream.models import catalog
from stream.models.catalog import Entry
from stream.models.importing import Facts, import_file, import_official, imported_path, own_path
from stream.models.info import BUNDLED_MODEL, INPUT_RANGES, ModelInfo, bundled_model_path, sha256_of
from stream.models.ledger import OwnModel, locked, models_folder, read_ledger
from stream.models.licences import (
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
    from stream.models.download import Patience, ProgressCallback

MIRROR_VARIABLE = "GPEN_STREAM_MODELS_URL"
"""Environment variable: a base URL under which all files lie, asked in place of their publishers."""
OFFLINE_VARIABLE = "GPEN_STREAM_OFFLINE"
"""Environment variable: 1 forbids every connection."""

State = Literal["bundled", "here", "imported", "unverified", "absent"]
"""What is on this machine of a model: ``here`` is the published file, ``imported`` one that was made
from it or from a file of the user's own, ``unverified`` a file whose digest nobody has checked."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Found:
    """What is on this machine of an entry of the catalogue."""

    state: State
    path: Path
    digest: str | None
    """What the published file must have; None where nobody has checked it."""


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
    return _find(entry_named(name)) is not None


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
    from stream.models.download import fetch_file

    say = say or _log.warning
    entry = entry_named(name)
    if entry.url is None:
        return _resolve_entry(entry, accept_licence)
    require_licence(name, entry.licence, accept_licence)
    say(f"{name}: licence: {entry.licence.terms} ({entry.licence.url})")
    with locked(entry.file, lambda: say(f"{name}: another process fetches it; waiting")):
        found = _find(entry)
        if found is not None and found.digest is None:
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
            address(entry.url, entry.file),
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


def address(url: str, file: str) -> str:
    """Where a file is fetched from: its publisher's `url`, or the mirror that the environment names."""
    from stream.models.download import check_url

    mirror = os.environ.get(MIRROR_VARIABLE, "").strip()
    if not mirror:
        return url
    try:
        check_url(mirror)
    except ConfigError as error:
        raise ConfigError(f"{MIRROR_VARIABLE}: {error}") from None
    return f"{mirror.rstrip('/')}/{file}"


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
        names = [model.name for model in survey() if model.state != "absent"]
    return [_verify_own(name, own[name]) if name in own else _verify(entry_named(name)) for name in names]


@dataclass(frozen=True, slots=True)
class Known:
    """A model that has a name: what the catalogue says and what is here of it.

    Its fields are the keys of `gpen-stream models list --json`, in their order.
    """

    name: str
    task: str
    size: int | None
    template: str | None
    input_range: tuple[float, float] | None
    licence: str
    """Its terms."""
    licence_url: str | None
    licence_accepted: bool
    file: str
    url: str | None
    bytes: int | None
    sha256: str | None
    pinned_sha256: str | None
    """Digest of the file seen first, where none is published."""
    state: State
    path: str | None


def survey() -> list[Known]:
    """Every model that has a name: the catalogue's, then the user's own."""
    catalogued = [_known(entry) for entry in catalog.entries().values()]
    return catalogued + [_known_own(name, own) for name, own in read_ledger().imports.items()]


def _known(entry: Entry) -> Known:
    found, generator = _find(entry), entry.generator
    return Known(
        name=entry.name,
        task=entry.task,
        size=entry.size,
        template=None if generator is None else generator.template,
        input_range=None if generator is None else generator.input_range,
        licence=entry.licence.terms,
        licence_url=entry.licence.url,
        licence_accepted=is_accepted(entry.licence),
        file=entry.file,
        url=entry.url,
        bytes=entry.bytes,
        sha256=entry.sha256,
        pinned_sha256=None if entry.sha256 else known_digest(entry),
        state="absent" if found is None else found.state,
        path=None if found is None else str(found.path),
    )


def _known_own(name: str, own: OwnModel) -> Known:
    path = own_path(own)
    return Known(
        name=name,
        task=own["task"],
        size=int(own["size"]),
        template=own["template"],
        input_range=INPUT_RANGES[own["input_range"]],
        licence="not stated",
        licence_url=None,
        licence_accepted=True,
        file=path.name,
        url=None,
        bytes=None,
        sha256=own["sha256"],
        pinned_sha256=None,
        state="imported" if path.is_file() else "absent",
        path=str(path),
    )


def _resolve_entry(entry: Entry, accept_licence: bool) -> Path:
    found = _find(entry)
    if found is None:
        raise ModelError(f"{entry.name}: not on this machine; run: gpen-stream models fetch {entry.name}")
    path, digest = found.path, found.digest
    if digest is None:
        raise ModelError(
            f"{path}: nobody has published a hash of it, so it needs a look first; run: "
            f"gpen-stream models import {path}"
        )
    require_licence(entry.name, entry.licence, accept_licence)
    if found.state == "imported" and (expected := remembered_digest(path)):
        check_file(path, expected)
    if found.state == "here":
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
    found = None if entry is None else _find(entry)
    if entry is not None and found is not None and found.state == "imported":
        return _resolve_entry(entry, accept_licence)
    return import_file(path, Facts(), accept_licence=accept_licence, say=say).path


def _find(entry: Entry) -> _Found | None:
    """What is here of an entry, by names alone: no file is read. None where it is absent."""
    digest, path = known_digest(entry), models_folder() / entry.file
    if entry.name == BUNDLED_MODEL:
        return _Found("bundled", bundled_model_path(), digest)
    if entry.is_checkpoint and digest is not None:
        made = imported_path(digest, entry.name)
        if made.is_file():
            return _Found("imported", made, digest)
    if path.is_file():
        return _Found("unverified" if digest is None else "here", path, digest)
    return None


def _is_here(entry: Entry) -> bool:
    """Whether nothing has to be fetched. A file that is not the one meant does not count."""
    found = _find(entry)
    if found is None or found.digest is None:
        return False
    if found.state == "here":
        try:
            check_file(found.path, found.digest)
        except ModelError:
            return False
    return found.state in ("here", "imported")


def _verify(entry: Entry) -> Verdict:
    found, source = _find(entry), models_folder() / entry.file
    if found is None:
        return Verdict(entry.name, False, "not on this machine")
    path, digest = found.path, found.digest
    if digest is None:
        return Verdict(entry.name, False, f"{path}: never checked; import it")
    expected = [(path, remembered_digest(path) if found.state == "imported" else digest)]
    if found.state == "imported" and source.is_file():
        expected.append((source, digest))
    try:
        for file, wanted in expected:
            if wanted is not None:
                check_file(file, wanted, anew=True)
    except ModelError as error:
        return Verdict(entry.name, False, str(error))
    return Verdict(entry.name, True, f"good; SHA-256 {digest} ({'published' if entry.sha256 else 'pinned'})")


def _verify_own(name: str, own: OwnModel) -> Verdict:
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
