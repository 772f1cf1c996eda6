"""Files that are here already -> models that can be named: official ones, and the user's own."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from stream.errors import ConfigError, ModelError
from stream.models import catalog
from stream.models.catalog import Entry
from stream.models.info import INPUT_RANGES, TASKS, ModelInfo, Wanted, metadata_of, sha256_of, sidecar_path
from stream.models.ledger import OwnModel, cannot_write, change_ledger, locked, models_folder, set_aside
from stream.models.licences import (
    Say,
    check_file,
    entry_of,
    known_digest,
    pin,
    remember_file,
    require_licence,
)
from stream.picture.geometry import TEMPLATES

CHECKPOINT_SUFFIXES = (".pth", ".pt", ".safetensors")
DEFAULT_TEMPLATE = "arcface_gpen"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a user says about a model of his own; None: the usual."""

    name: str | None = None
    """How it is to be called; the file's own name by default."""
    task: str | None = None
    """``restore`` by default."""
    template: str | None = None
    """`DEFAULT_TEMPLATE` by default."""
    input_range: str | None = None
    """A key of `model.INPUT_RANGES`; by default what official models of the task take."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A model that can be named now."""

    name: str
    path: Path
    info: ModelInfo | None
    """None for a network that is no generator."""


def imported_path(digest: str, name: str) -> Path:
    """Where the weights lie that were made from a checkpoint with this digest."""
    return models_folder() / "imported" / digest[:16] / f"{name}.safetensors"


def own_path(record: OwnModel) -> Path:
    """Where the file of a model of the user's own lies."""
    return models_folder() / record["path"]  # an absolute path stays as it is


def import_file(path: Path, facts: Facts, *, accept_licence: bool, say: Say) -> Imported:
    """Make the model in `path` one that `zoo.resolve` finds by its name.

    An official file is known by its digest, or by its name where no digest is published; what
    `facts` could say about it is known then. A ``.pth`` becomes safetensors in the models folder; an
    official file of another kind is copied there; any other ``.onnx`` stays where it is and gets a
    sidecar. Raises ModelError or ConfigError in one line.
    """
    _check(facts)
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    entry = _official(path, digest, facts.name)
    if entry is None:
        return _import_own(path, digest, facts)
    if facts.task or facts.template or facts.input_range:
        raise ConfigError(f"{entry.name}: an official model; leave out --task, --template and --input-range")
    require_licence(entry.name, entry.licence, accept_licence)
    say(f"{entry.name}: licence: {entry.licence.terms} ({entry.licence.url})")
    if not entry.is_checkpoint:
        return Imported(entry.name, _copy(path, entry, digest), None)
    made = import_official(entry, path, digest)
    if known_digest(entry) is None:
        pin(entry, digest, say)
    return Imported(entry.name, made.path, made.info)


def import_official(entry: Entry, path: Path, digest: str) -> Imported:
    """An official generator's checkpoint as safetensors in the models folder; once for each digest."""
    generator, target = entry.generator, imported_path(digest, entry.name)
    info = None
    if not target.is_file():
        assert generator is not None, "other files are used as they are"
        wanted = Wanted(
            entry.name,
            entry.task,
            generator.template,
            generator.input_range,
            entry.licence.name,
            entry.size,
        )
        info = _convert(path, target, digest, wanted)
        remember_file(target, sha256_of(target))
    return Imported(entry.name, target, info)


def _official(path: Path, digest: str, name: str | None) -> Entry | None:
    """The catalogue's entry for a file, ConfigError or ModelError for one that only claims to be it."""
    entry = entry_of(digest)
    if entry is not None:
        if name not in (None, entry.name):
            raise ConfigError(f"--name {name}: {path} is the official {entry.name}; leave the name out")
        return entry
    claimed = catalog.by_file(path.name) if name is None else catalog.entries().get(name)
    if claimed is not None and (expected := known_digest(claimed)) is not None:
        raise ModelError(
            f"{path}: refused: its SHA-256 is {digest[:12]}..., that of {claimed.name} is "
            f"{expected[:12]}...; if it is a model of your own, import it with another --name"
        )
    return claimed


def _import_own(path: Path, digest: str, facts: Facts) -> Imported:
    task = facts.task or "restore"
    chosen = facts.input_range or ("0,1" if task == "segment" else "-1,1")
    name = facts.name or path.stem
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,79}", name, re.ASCII) or name in catalog.entries():
        raise ConfigError(f"{name}: cannot be a name; give --name with letters, digits, '.', '_' and '-'")
    wanted = Wanted(name, task, facts.template or DEFAULT_TEMPLATE, INPUT_RANGES[chosen])
    if path.suffix == ".onnx":
        target = path.resolve()
        info = _describe_onnx(target, digest, wanted)
    elif path.suffix in CHECKPOINT_SUFFIXES:
        target = imported_path(digest, name)
        info = _convert(path, target, digest, wanted)
    else:
        endings = ", ".join((*CHECKPOINT_SUFFIXES, ".onnx"))
        raise ModelError(f"{path}: not a kind of file that holds a model here; known: {endings}")
    folder = models_folder()
    record: OwnModel = {
        "path": str(target.relative_to(folder) if target.is_relative_to(folder) else target),
        "sha256": sha256_of(target),
        "source_sha256": digest,
        "task": info.task,
        "size": str(info.size),
        "template": info.template,
        "input_range": chosen,
    }
    change_ledger(lambda ledger: ledger.imports.__setitem__(name, record))
    return Imported(name, target, info)


def _convert(path: Path, target: Path, digest: str, wanted: Wanted) -> ModelInfo:
    from stream.models.nets.official_checkpoint import import_checkpoint  # imports torch

    try:
        return import_checkpoint(path, target, wanted, digest)
    except OSError as error:
        raise cannot_write(models_folder(), error) from None


def _describe_onnx(path: Path, digest: str, wanted: Wanted) -> ModelInfo:
    from stream.models.engines.onnx_facts import onnx_sides  # imports OpenVINO

    in_size, size = onnx_sides(path)
    if in_size > size:
        raise ModelError(
            f"{path}: turns {in_size} px into {size} px; a restorer does not make pictures smaller"
        )
    info = ModelInfo(
        name=wanted.name,
        size=size,
        in_size=in_size,
        channel_multiplier=0.0,
        narrow=0.0,
        style_dim=0,
        n_mlp=0,
        residual=False,
        template=wanted.template,
        sha256=digest,
        input_range=wanted.input_range,
        task=wanted.task,
    )
    sidecar = sidecar_path(path)
    draft = sidecar.with_name(f".{sidecar.name}.{os.getpid()}")
    text = json.dumps({"sha256": digest, "metadata": metadata_of(info)}, indent=1)
    try:
        draft.write_text(text + "\n", encoding="utf-8")
        draft.replace(sidecar)
    except OSError as error:
        raise ModelError(
            f"{sidecar}: cannot be written ({error.strerror}); copy the model to a folder of your own"
        ) from None
    return info


def _copy(path: Path, entry: Entry, digest: str) -> Path:
    target = models_folder() / entry.file
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    with locked(entry.file):
        if not (target.exists() and target.samefile(path)):
            try:
                shutil.copyfile(path, draft)
                if target.exists() and (there := sha256_of(target)) != digest:
                    set_aside(target, entry.file, there)
                draft.replace(target)
            except OSError as error:
                draft.unlink(missing_ok=True)
                raise cannot_write(target.parent, error) from None
        check_file(target, digest)
    return target


def _check(facts: Facts) -> None:
    for option, value, known in (
        ("task", facts.task, TASKS),
        ("template", facts.template, tuple(TEMPLATES)),
        ("input-range", facts.input_range, tuple(INPUT_RANGES)),
    ):
        if value is not None and value not in known:
            raise ConfigError(f"--{option} {value}: unknown; choose one of {' '.join(known)}")
