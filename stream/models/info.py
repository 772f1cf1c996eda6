"""The facts that a weights file states about its model, read without an inference library.

Importing torch takes seconds. An engine whose network is cached needs only these facts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError, safe_open

from stream.errors import ModelError
from stream.models import catalog

_T = TypeVar("_T")

BUNDLED_MODEL = "gpen-lite-256"

_ARCHITECTURES = ("FullGenerator", "FullGenerator_SR")
INPUT_RANGES = {"-1,1": (-1.0, 1.0), "0,1": (0.0, 1.0)}
"""The values to which RGB 0..1 is mapped for a network, by their spelling in metadata."""
_FLAGS = {"true": True, "false": False}
TASKS = ("restore", "colorize", "inpaint", "segment")
"""Tasks of generators: faces from damaged, grey or incomplete faces, or from label maps."""
SIDECAR_ENDING = ".json"
"""A sidecar has the name of its ``.onnx`` with this ending added."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The facts that a generator's weights file states."""

    name: str
    """The file's name without its ending."""
    size: int
    """Side of the restored crop, px."""
    in_size: int
    """Side of the input crop, px; below `size` only for the SR variant."""
    channel_multiplier: float
    """This and the next three are the constructor's figures; 0 for an ``.onnx``, which has its own graph."""
    narrow: float
    style_dim: int
    n_mlp: int
    residual: bool
    """Whether output = input + network."""
    template: str
    """The alignment template that the model was trained with, such as ``ffhq_512``."""
    sha256: str
    """Hexadecimal digest of the whole file."""
    input_range: tuple[float, float]
    """The values to which RGB 0..1 is mapped for the network. Its output is always in -1..1."""
    task: str = "restore"
    """One of `TASKS`."""
    licence: str = ""
    """Name in `catalog.licences()`; empty where the file states none."""


@dataclass(frozen=True, slots=True)
class GeneratorSpec:
    """The facts about a training file's generator that its tensors' shapes do not show."""

    name: str
    task: str
    template: str
    input_range: tuple[float, float]
    licence: str = ""
    size: int | None = None
    """Side that the output must have, px; None: any."""


def bundled_model_path() -> Path:
    """Path of the weights that are part of the package (gpen-lite-256)."""
    return Path(str(resources.files("stream") / "weights" / f"{BUNDLED_MODEL}.safetensors"))


def sidecar_path(path: str | Path) -> Path:
    """Path of the file that states the facts about an ``.onnx`` outside of the catalogue."""
    path = Path(path)
    return path.with_name(path.name + SIDECAR_ENDING)


def metadata_of(info: ModelInfo) -> dict[str, str]:
    """The facts in the form of a weights file's metadata or a sidecar."""
    upscales = info.in_size != info.size
    sides = {"in_size": str(info.in_size), "out_size": str(info.size)} if upscales else {}
    network = {
        "channel_multiplier": f"{info.channel_multiplier:.17g}",
        "narrow": f"{info.narrow:.17g}",
        "style_dim": str(info.style_dim),
        "n_mlp": str(info.n_mlp),
    }
    return {
        "arch": _ARCHITECTURES[upscales],
        **(sides or {"size": str(info.size)}),
        **(network if info.narrow else {}),
        "residual": str(info.residual).lower(),
        "template": info.template,
        "input_range": ",".join(f"{value:g}" for value in info.input_range),
        "task": info.task,
        "licence": info.licence,
    }


def read_model_info(path: str | Path) -> ModelInfo:
    """Read the facts about a ``.safetensors`` or ``.onnx``. The tensors' values are only hashed.

    A ``.safetensors`` states the facts in its metadata. An ``.onnx`` is found in the catalogue by its
    digest, or has a sidecar that `gpen-stream models import` wrote.
    Raises ModelError where the file is missing or broken, or lacks a fact.
    """
    path = Path(path)
    try:
        if path.suffix == ".onnx":
            digest = sha256_of(path)
            return _parse(path, _onnx_metadata(path, digest), digest, own_graph=True)
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        return _parse(path, metadata, sha256_of(path))
    except SafetensorError as error:
        raise ModelError(
            f"{path}: not a whole safetensors file ({_one_line(error)}); fetch it again"
        ) from error
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read ({_one_line(error.strerror or error)}); check the path"
        ) from error


def _onnx_metadata(path: Path, digest: str) -> dict[str, str]:
    entry = catalog.by_sha256(digest)
    if entry is not None and entry.generator is not None:
        return {
            "arch": _ARCHITECTURES[0],
            "size": str(entry.size),
            "template": entry.generator.template,
            "input_range": ",".join(f"{value:g}" for value in entry.generator.input_range),
            "task": entry.task,
            "licence": entry.licence.name,
        }
    sidecar = sidecar_path(path)
    try:
        facts = json.loads(sidecar.read_text(encoding="utf-8"))
        metadata = {str(key): str(value) for key, value in facts["metadata"].items()}
        described = facts["sha256"]
    except FileNotFoundError:
        raise ModelError(f"{path}: an unknown network; run: gpen-stream models import {path}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(f"{sidecar}: not a sidecar; run: gpen-stream models import {path}") from None
    if described != digest:
        raise ModelError(
            f"{path}: not the file that {sidecar.name} describes; run: gpen-stream models import {path}"
        )
    return metadata


def _parse(path: Path, metadata: Mapping[str, str], digest: str, *, own_graph: bool = False) -> ModelInfo:
    fields = _Fields(path, metadata)
    architecture = fields.choice("arch", {name: name for name in _ARCHITECTURES})
    upscales = architecture == "FullGenerator_SR"
    size = fields.side("out_size" if upscales else "size")
    info = ModelInfo(
        name=path.stem,
        size=size,
        in_size=fields.side("in_size") if upscales else size,
        channel_multiplier=0.0 if own_graph else fields.number("channel_multiplier"),
        narrow=0.0 if own_graph else fields.number("narrow"),
        style_dim=0 if own_graph else fields.count("style_dim", "512"),
        n_mlp=0 if own_graph else fields.count("n_mlp", "8"),
        residual=fields.choice("residual", _FLAGS, "false"),
        template=fields.text("template"),
        sha256=digest,
        input_range=fields.choice("input_range", INPUT_RANGES, "-1,1"),
        task=fields.choice("task", {name: name for name in TASKS}, "restore"),
        licence=metadata.get("licence", ""),
    )
    if info.in_size > info.size or (info.residual and info.in_size != info.size):
        raise fields.refused("in_size", f"one that fits {info.size = } and {info.residual = }")
    return info


class _Fields:
    """Typed access to a file's metadata, whose values are all strings."""

    def __init__(self, path: Path, metadata: Mapping[str, str]) -> None:
        self._path = path
        self._metadata = metadata

    def text(self, key: str, default: str | None = None) -> str:
        value = self._metadata.get(key, default)
        if not value:
            raise ModelError(f"{self._path}: its metadata lacks {key!r}; use weights saved for gpen-stream")
        return value

    def choice(self, key: str, values: Mapping[str, _T], default: str | None = None) -> _T:
        text = self.text(key, default)
        if text not in values:
            raise self.refused(key, f"one of {', '.join(values)}")
        return values[text]

    def number(self, key: str, default: str | None = None) -> float:
        try:
            value = float(self.text(key, default))
        except ValueError:
            value = 0.0
        if not 0 < value <= 16:
            raise self.refused(key, "a number above 0, up to 16")
        return value

    def count(self, key: str, default: str | None = None) -> int:
        text = self.text(key, default)
        value = int(text) if text.isdecimal() else 0
        if not 1 <= value <= 8192:
            raise self.refused(key, "a whole number from 1 to 8192")
        return value

    def side(self, key: str) -> int:
        value = self.count(key)
        if value < 8 or value > 2048 or value & (value - 1):
            raise self.refused(key, "a power of two from 8 to 2048")
        return value

    def refused(self, key: str, expected: str) -> ModelError:
        got = _one_line(self._metadata.get(key))
        return ModelError(f"{self._path}: metadata {key!r} is {got!r}, expected {expected}")


def sha256_of(path: Path) -> str:
    """Hexadecimal digest of a whole file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _one_line(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 200 else text[:197] + "..."
