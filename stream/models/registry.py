"""A model's name or path -> a verified file on this machine. Only `fetch` opens a connection."""

from __future__ import annotations

import difflib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stream.errors import ConfigError, ModelError
from stream.models import catalog
from stream.models.catalog import CatalogEntry
from stream.models.importing import ImportOptions, import_file, import_official, imported_path, own_path
from stream.models.info import BUNDLED_MODEL, INPUT_RANGES, ModelInfo, bundled_model_path, sha256_of
from stream.models.ledger import OwnModel, locked, models_folder, read_ledger
from stream.models.licences import (
    Notify,
    check_file,
    entry_by_digest,
    is_accepted,
    is_set,
    known_digest,
    pin,
    recorded_digest,
    require_licence,
)

if TYPE_CHECKING:  # importing it takes 50 ms, which only a download needs
    from stream.models.download import ReceivedCallback, RetryPolicy

MIRROR_VARIABLE = "GPEN_STREAM_MODELS_URL"
"""Environment variable: base URL of a mirror that is used in place of the publishers."""
OFFLINE_VARIABLE = "GPEN_STREAM_OFFLINE"
"""Environment variable: 1 forbids every connection."""

State = Literal["bundled", "here", "imported", "unverified", "absent"]
"""Which file of a model is on this machine. ``here``: the published file. ``imported``: a file that was
converted from it, or a file of the user's own. ``unverified``: a file whose digest was never checked."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _LocalFile:
    """The file of a catalogue's entry on this machine."""

    state: State
    path: Path
    digest: str | None
    """The published file's; None where the entry has neither a published nor a pinned one."""


def resolve(name_or_path: str | Path, *, accept_licence: bool = False, notify: Notify | None = None) -> Path:
    """The file for a model's name or path: ``.safetensors``, ``.onnx``, or an assisting network's ``.pth``.

    A name is one of the catalogue or one that was given at an import. A generator's ``.pth`` is converted
    into the models folder, once. Other paths are returned as they are; `read_model_info` reports what is
    wrong with them. `notify` shows the user what he should know (by default the log).

    Raises ModelError where the model is missing or has another digest than expected, ConfigError for an
    unknown name and for a licence that was not accepted. It opens no connection.
    """
    name, notify = str(name_or_path), notify or _log.warning
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
        return _resolve_checkpoint(path, accept_licence, notify)
    if not path.suffix and not path.exists():
        raise ConfigError(_unknown(name))
    return path


def is_present(name: str) -> bool:
    """Whether a file of the catalogue's model `name` is on this machine. The file is not read."""
    return _find(entry_named(name)) is not None


def require_licence_of(info: ModelInfo, accept: bool = False) -> None:
    """Raise ConfigError if a generator's weights state a licence that was not accepted."""
    licence = catalog.licences().get(info.licence)
    if licence is not None:
        require_licence(info.name, licence, accept)


def fetch(
    name: str,
    *,
    accept_licence: bool = False,
    offline: bool = False,
    progress: ReceivedCallback | None = None,
    notify: Notify | None = None,
    retry: RetryPolicy | None = None,
) -> Path:
    """Download a model into the models folder, unless it is there. The result is that of `resolve`.

    The file must have the published or pinned digest. If there is none, a checkpoint must fit the
    catalogue's network, and its digest is pinned. Raises ModelError or ConfigError.
    """
    from stream.models.download import fetch_file

    notify = notify or _log.warning
    entry = entry_named(name)
    if entry.url is None:
        return _resolve_entry(entry, accept_licence)
    require_licence(name, entry.licence, accept_licence)
    notify(f"{name}: licence: {entry.licence.terms} ({entry.licence.url})")
    with locked(entry.file, lambda: notify(f"{name}: another process fetches it; waiting")):
        local = _find(entry)
        if local is not None and local.digest is None:
            return _resolve_entry(entry, accept_licence)  # raises an error that says what to do
        if _is_verified(entry):
            notify(f"{name}: is here already")
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
            retry=retry,
        )
        if expected is None:
            pin(entry, digest, notify)
        check_file(target, digest)
    return _resolve_entry(entry, accept_licence)


def address(url: str, file: str) -> str:
    """The address of a download: the publisher's `url`, or the mirror that the environment names."""
    from stream.models.download import check_url

    mirror = os.environ.get(MIRROR_VARIABLE, "").strip()
    if not mirror:
        return url
    try:
        check_url(mirror)
    except ConfigError as error:
        raise ConfigError(f"{MIRROR_VARIABLE}: {error}") from None
    return f"{mirror.rstrip('/')}/{file}"


def entry_named(name: str) -> CatalogEntry:
    """The catalogue's entry. Raises ConfigError, with similar names, where there is none."""
    entry = catalog.entries().get(name)
    if entry is None:
        raise ConfigError(_unknown(name))
    return entry


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of verifying one model."""

    name: str
    good: bool
    text: str
    """One line for the user: the digest, or what is wrong."""


def verify(names: list[str] | None = None) -> list[Verification]:
    """Hash the files of these models, or of all on this machine, again."""
    own = read_ledger().imports
    for name in names or []:
        if name not in own:
            entry_named(name)
    if not names:
        names = [model.name for model in list_models() if model.state != "absent"]
    return [_verify_own(name, own[name]) if name in own else _verify(entry_named(name)) for name in names]


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model that has a name, and its file on this machine.

    Its fields are the keys of `gpen-stream models list --json`, in their order.
    """

    name: str
    task: str
    size: int | None
    template: str | None
    input_range: tuple[float, float] | None
    licence: str
    """The licence's terms."""
    licence_url: str | None
    licence_accepted: bool
    file: str
    url: str | None
    bytes: int | None
    sha256: str | None
    pinned_sha256: str | None
    """Digest of the first file seen, for models without a published one."""
    state: State
    path: str | None


def list_models() -> list[ListedModel]:
    """Every model that has a name: those of the catalogue, then those that the user imported."""
    catalogued = [_listed(entry) for entry in catalog.entries().values()]
    return catalogued + [_listed_own(name, own) for name, own in read_ledger().imports.items()]


def _listed(entry: CatalogEntry) -> ListedModel:
    local, generator = _find(entry), entry.generator
    return ListedModel(
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
        state="absent" if local is None else local.state,
        path=None if local is None else str(local.path),
    )


def _listed_own(name: str, own: OwnModel) -> ListedModel:
    path = own_path(own)
    return ListedModel(
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


def _resolve_entry(entry: CatalogEntry, accept_licence: bool) -> Path:
    local = _find(entry)
    if local is None:
        raise ModelError(f"{entry.name}: not on this machine; run: gpen-stream models fetch {entry.name}")
    path, digest = local.path, local.digest
    if digest is None:
        raise ModelError(
            f"{path}: nobody has published a hash of it, so it needs a look first; run: "
            f"gpen-stream models import {path}"
        )
    require_licence(entry.name, entry.licence, accept_licence)
    if local.state == "imported" and (expected := recorded_digest(path)):
        check_file(path, expected)
    if local.state == "here":
        check_file(path, digest)
        return import_official(entry, path, digest).path if entry.is_checkpoint else path
    return path


def _resolve_checkpoint(path: Path, accept_licence: bool, notify: Notify) -> Path:
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    for own in read_ledger().imports.values():
        if own["source_sha256"] == digest and own_path(own).is_file():
            return own_path(own)
    entry = entry_by_digest(digest)
    if entry is not None and not entry.is_checkpoint:
        return path
    local = None if entry is None else _find(entry)
    if entry is not None and local is not None and local.state == "imported":
        return _resolve_entry(entry, accept_licence)
    return import_file(path, ImportOptions(), accept_licence=accept_licence, notify=notify).path


def _find(entry: CatalogEntry) -> _LocalFile | None:
    """The entry's file on this machine, found by names alone: no file is read. None: absent."""
    digest, path = known_digest(entry), models_folder() / entry.file
    if entry.name == BUNDLED_MODEL:
        return _LocalFile("bundled", bundled_model_path(), digest)
    if entry.is_checkpoint and digest is not None:
        imported = imported_path(digest, entry.name)
        if imported.is_file():
            return _LocalFile("imported", imported, digest)
    if path.is_file():
        return _LocalFile("unverified" if digest is None else "here", path, digest)
    return None


def _is_verified(entry: CatalogEntry) -> bool:
    """Whether the entry's file is on this machine and has the expected digest."""
    local = _find(entry)
    if local is None or local.digest is None:
        return False
    if local.state == "here":
        try:
            check_file(local.path, local.digest)
        except ModelError:
            return False
    return local.state in ("here", "imported")


def _verify(entry: CatalogEntry) -> Verification:
    local, source = _find(entry), models_folder() / entry.file
    if local is None:
        return Verification(entry.name, False, "not on this machine")
    path, digest = local.path, local.digest
    if digest is None:
        return Verification(entry.name, False, f"{path}: never checked; import it")
    expected = [(path, recorded_digest(path) if local.state == "imported" else digest)]
    if local.state == "imported" and source.is_file():
        expected.append((source, digest))
    try:
        for file, file_digest in expected:
            if file_digest is not None:
                check_file(file, file_digest, anew=True)
    except ModelError as error:
        return Verification(entry.name, False, str(error))
    return Verification(
        entry.name, True, f"good; SHA-256 {digest} ({'published' if entry.sha256 else 'pinned'})"
    )


def _verify_own(name: str, own: OwnModel) -> Verification:
    path = own_path(own)
    if not path.is_file():
        return Verification(name, False, f"its file {path} is gone; import it again")
    if sha256_of(path) != own["sha256"]:
        return Verification(name, False, f"{path}: changed since it was imported; import it again")
    return Verification(name, True, f"good; SHA-256 {own['sha256']} (your own)")


def _unknown(name: str) -> str:
    names = list(catalog.entries()) + list(read_ledger().imports)
    near = difflib.get_close_matches(name, names, 3, 0.5) or [BUNDLED_MODEL]
    return (
        f"{name}: neither a model's name nor a file; near it: {', '.join(near)}; see gpen-stream models list"
    )
