"""Files on this machine -> models with a name: official models, and models of the user's own."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from stream.errors import ConfigError, ModelError
from stream.models import catalog
from stream.models.catalog import CatalogEntry
from stream.models.info import (
    INPUT_RANGES,
    TASKS,
    GeneratorSpec,
    ModelInfo,
    metadata_of,
    sha256_of,
    sidecar_path,
)
from stream.models.ledger import OwnModel, cannot_write, change_ledger, locked, models_folder, rename_refused
from stream.models.licences import (
    Notify,
    check_file,
    entry_by_digest,
    known_digest,
    pin,
    record_digest,
    require_licence,
)
from stream.picture.geometry import TEMPLATES

CHECKPOINT_SUFFIXES = (".pth", ".pt", ".safetensors")
DEFAULT_TEMPLATE = "arcface_gpen"


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """The user's facts about his own model; None stands for the default."""

    name: str | None = None
    """The model's name; by default the file's."""
    task: str | None = None
    """One of `info.TASKS`; by default ``restore``."""
    template: str | None = None
    """Name of the alignment template; by default `DEFAULT_TEMPLATE`."""
    input_range: str | None = None
    """A key of `info.INPUT_RANGES`; by default that of official models for the task."""


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """A model that was imported."""

    name: str
    path: Path
    info: ModelInfo | None
    """The facts about it; None for a network that is no generator, and where they were not read again."""


def imported_path(digest: str, name: str) -> Path:
    """Path of the weights that were converted from a checkpoint with this digest."""
    return models_folder() / "imported" / digest[:16] / f"{name}.safetensors"


def own_path(record: OwnModel) -> Path:
    """Path of the file of a model that the user imported."""
    return models_folder() / record["path"]  # an absolute path stays as it is


def import_file(path: Path, options: ImportOptions, *, accept_licence: bool, notify: Notify) -> ImportedModel:
    """Register the model in `path`, so that `registry.resolve` finds it by its name.

    An official file is recognised by its digest, or by its name where no digest is published; `options`
    must not contradict the catalogue then. A ``.pth`` is converted to safetensors in the models folder, and
    an official file of another kind is copied there. Any other ``.onnx`` stays where it is and gets a
    sidecar. Raises ModelError or ConfigError.
    """
    _check(options)
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    entry = _official(path, digest, options.name)
    if entry is None:
        return _import_own(path, digest, options)
    if options.task or options.template or options.input_range:
        raise ConfigError(f"{entry.name}: an official model; leave out --task, --template and --input-range")
    require_licence(entry.name, entry.licence, accept_licence)
    notify(f"{entry.name}: licence: {entry.licence.terms} ({entry.licence.url})")
    if not entry.is_checkpoint:
        return ImportedModel(entry.name, _copy(path, entry, digest), None)
    imported = import_official(entry, path, digest)
    if known_digest(entry) is None:
        pin(entry, digest, notify)
    return imported


def import_official(entry: CatalogEntry, path: Path, digest: str) -> ImportedModel:
    """Convert an official checkpoint to safetensors in the models folder, once for each digest."""
    generator, target = entry.generator, imported_path(digest, entry.name)
    info = None
    if not target.is_file():
        assert generator is not None, "other files are not converted"
        spec = GeneratorSpec(
            entry.name,
            entry.task,
            generator.template,
            generator.input_range,
            entry.licence.name,
            entry.size,
        )
        info = _convert(path, target, digest, spec)
        record_digest(target, sha256_of(target))
    return ImportedModel(entry.name, target, info)


def _official(path: Path, digest: str, name: str | None) -> CatalogEntry | None:
    """The catalogue's entry for a file; None for a file of the user's own.

    Raises ConfigError or ModelError for a file that has an official name, but another digest.
    """
    entry = entry_by_digest(digest)
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


def _import_own(path: Path, digest: str, options: ImportOptions) -> ImportedModel:
    task = options.task or "restore"
    chosen = options.input_range or ("0,1" if task == "segment" else "-1,1")
    name = options.name or path.stem
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,79}", name, re.ASCII) or name in catalog.entries():
        raise ConfigError(f"{name}: cannot be a name; give --name with letters, digits, '.', '_' and '-'")
    spec = GeneratorSpec(name, task, options.template or DEFAULT_TEMPLATE, INPUT_RANGES[chosen])
    if path.suffix == ".onnx":
        target = path.resolve()
        info = _describe_onnx(target, digest, spec)
    elif path.suffix in CHECKPOINT_SUFFIXES:
        target = imported_path(digest, name)
        info = _convert(path, target, digest, spec)
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
    return ImportedModel(name, target, info)


def _convert(path: Path, target: Path, digest: str, spec: GeneratorSpec) -> ModelInfo:
    from stream.models.nets.official_checkpoint import import_checkpoint  # imports torch

    try:
        return import_checkpoint(path, target, spec, digest)
    except OSError as error:
        raise cannot_write(models_folder(), error) from None


def _describe_onnx(path: Path, digest: str, spec: GeneratorSpec) -> ModelInfo:
    """Write the sidecar of an ``.onnx``."""
    from stream.models.engines.openvino_model import onnx_sides  # imports OpenVINO

    in_size, size = onnx_sides(path)
    if in_size > size:
        raise ModelError(
            f"{path}: turns {in_size} px into {size} px; a restorer does not make pictures smaller"
        )
    info = ModelInfo(
        name=spec.name,
        size=size,
        in_size=in_size,
        channel_multiplier=0.0,
        narrow=0.0,
        style_dim=0,
        n_mlp=0,
        residual=False,
        template=spec.template,
        sha256=digest,
        input_range=spec.input_range,
        task=spec.task,
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


def _copy(path: Path, entry: CatalogEntry, digest: str) -> Path:
    target = models_folder() / entry.file
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    with locked(entry.file):
        if not (target.exists() and target.samefile(path)):
            try:
                shutil.copyfile(path, draft)
                if target.exists() and (old_digest := sha256_of(target)) != digest:
                    rename_refused(target, entry.file, old_digest)
                draft.replace(target)
            except OSError as error:
                draft.unlink(missing_ok=True)
                raise cannot_write(target.parent, error) from None
        check_file(target, digest)
    return target


def _check(options: ImportOptions) -> None:
    for option, value, allowed in (
        ("task", options.task, TASKS),
        ("template", options.template, tuple(TEMPLATES)),
        ("input-range", options.input_range, tuple(INPUT_RANGES)),
    ):
        if value is not None and value not in allowed:
            raise ConfigError(f"--{option} {value}: unknown; choose one of {' '.join(allowed)}")
