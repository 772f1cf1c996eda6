"""The models that have a name, read from `catalog.yaml`. Nothing here looks at the disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import NotRequired, TypedDict

import yaml


@dataclass(frozen=True, slots=True)
class Licence:
    """Terms under which weights may be used."""

    name: str
    terms: str
    """One line: what is allowed, and whose terms they are."""
    url: str
    needs_consent: bool = False
    """Whether the user has to accept it once before the weights are used."""


@dataclass(frozen=True, slots=True)
class Generator:
    """Requirements on the input of a face generator."""

    template: str
    """Name of the template by which faces are aligned."""
    input_range: tuple[float, float]
    """The values to which RGB 0..1 is mapped."""


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One model of the catalogue."""

    name: str
    file: str
    """Name of the published file, and of its copy in the models folder."""
    licence: Licence
    task: str
    """One of `info.TASKS` for a generator; ``parse`` or ``detect`` for a network that assists it."""
    url: str | None = None
    """Address at which the file is published; None for the model that is part of the package."""
    bytes: int | None = None
    sha256: str | None = None
    """Hexadecimal digest of the published file; None where the publisher gives none."""
    size: int | None = None
    """Side of the pictures that the network restores, px."""
    generator: Generator | None = None
    """None for a network that assists a generator."""

    @property
    def is_checkpoint(self) -> bool:
        """Whether the file is a generator's training file, which has to be imported before it is used."""
        return self.generator is not None and self.file.endswith(".pth")


class _LicenceRow(TypedDict):
    """A licence in `catalog.yaml`."""

    terms: str
    url: str
    needs_consent: NotRequired[bool]


class _ModelRow(TypedDict):
    """A model in `catalog.yaml`; `template` and `input_range` are a generator's."""

    file: str
    licence: str
    task: str
    url: NotRequired[str]
    bytes: NotRequired[int]
    sha256: NotRequired[str]
    size: NotRequired[int]
    template: NotRequired[str]
    input_range: NotRequired[list[float]]


class _Table(TypedDict):
    licences: dict[str, _LicenceRow]
    models: dict[str, _ModelRow]


@cache
def licences() -> Mapping[str, Licence]:
    """All licences by name."""
    return MappingProxyType({name: Licence(name, **facts) for name, facts in _table()["licences"].items()})


@cache
def entries() -> Mapping[str, CatalogEntry]:
    """All models by name, in the table's order."""
    return MappingProxyType({name: _entry(name, row) for name, row in _table()["models"].items()})


def by_sha256(digest: str) -> CatalogEntry | None:
    """The model whose published file has this digest."""
    return next((entry for entry in entries().values() if entry.sha256 == digest), None)


def by_file(file: str) -> CatalogEntry | None:
    """The model whose published file has this name."""
    return next((entry for entry in entries().values() if entry.file == file), None)


def _entry(name: str, row: _ModelRow) -> CatalogEntry:
    generator = None
    if "template" in row:
        low, high = map(float, row["input_range"])
        generator = Generator(row["template"], (low, high))
    return CatalogEntry(
        name,
        row["file"],
        licences()[row["licence"]],
        row["task"],
        row.get("url"),
        row.get("bytes"),
        row.get("sha256"),
        row.get("size"),
        generator,
    )


@cache
def _table() -> _Table:
    text = (resources.files("stream.models") / "catalog.yaml").read_text(encoding="utf-8")
    table: _Table = yaml.safe_load(text)
    return table
