"""Which models exist: `catalog.yaml` as values, with no knowledge of what lies on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType

import yaml


@dataclass(frozen=True, slots=True)
class Licence:
    """Terms under which weights may be used."""

    name: str
    terms: str
    """One line that says what is allowed, and who says so."""
    url: str
    needs_consent: bool = False
    """Whether the user has to accept it, once, before the weights are used."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One model that can be named."""

    name: str
    file: str
    """Name of the published file, and of its copy in the models folder."""
    licence: Licence
    task: str
    """One of `model.TASKS` for a generator; ``parse`` or ``detect`` for what helps it."""
    url: str | None = None
    """Where the file is published; None for the model inside the package."""
    bytes: int | None = None
    sha256: str | None = None
    """Hexadecimal digest of the file; None where none is published."""
    size: int | None = None
    """Side of the picture that the network is made for, px."""
    template: str | None = None
    """Alignment template of a generator."""
    input_range: tuple[float, float] | None = None
    """What RGB 0..1 is mapped to for a generator."""

    @property
    def is_checkpoint(self) -> bool:
        """Whether it is a generator's training file, which is imported before it is used."""
        return self.template is not None and self.file.endswith(".pth")


@cache
def licences() -> Mapping[str, Licence]:
    """All licences by name."""
    return MappingProxyType({name: Licence(name, **facts) for name, facts in _table()["licences"].items()})


@cache
def entries() -> Mapping[str, Entry]:
    """All models by name, in the table's order."""
    found = {}
    for name, facts in _table()["models"].items():
        facts = facts | {"licence": licences()[facts["licence"]]}
        if "input_range" in facts:
            facts["input_range"] = tuple(map(float, facts["input_range"]))
        found[name] = Entry(name, **facts)
    return MappingProxyType(found)


def by_sha256(digest: str) -> Entry | None:
    """The model whose published file has this digest."""
    return next((entry for entry in entries().values() if entry.sha256 == digest), None)


def by_file(file: str) -> Entry | None:
    """The model whose published file has this name."""
    return next((entry for entry in entries().values() if entry.file == file), None)


@cache
def _table() -> dict:
    return yaml.safe_load((resources.files("stream") / "catalog.yaml").read_text(encoding="utf-8"))
