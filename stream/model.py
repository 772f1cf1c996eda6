"""What a weights file says about its model, read without an inference library.

Importing torch costs seconds; an engine with a warm cache needs only the facts below.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from safetensors import SafetensorError, safe_open

from stream.errors import ModelError

BUNDLED_MODEL = "gpen-lite-256"

_ARCHITECTURES = ("FullGenerator", "FullGenerator_SR")
_INPUT_RANGES = {"-1,1": (-1.0, 1.0), "0,1": (0.0, 1.0)}
_FLAGS = {"true": True, "false": False}
TASKS = ("restore", "colorize", "inpaint", "segment")
"""What a generator was trained for: faces from damaged, grey or holed ones, or from label maps."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The facts about one generator that its weights file states."""

    name: str
    """The file's name without its ending."""
    size: int
    """Side of the restored crop, px."""
    in_size: int
    """Side of the crop that goes in, px; below `size` only for the SR variant."""
    channel_multiplier: float
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
    """What RGB 0..1 is mapped to for the network; its output is always in -1..1."""
    task: str = "restore"
    """One of `TASKS`."""


def bundled_model_path() -> Path:
    """Path of the weights that ship inside the package (gpen-lite-256)."""
    return Path(str(resources.files("stream") / "weights" / f"{BUNDLED_MODEL}.safetensors"))


def read_model_info(path: str | Path) -> ModelInfo:
    """Read the metadata of a safetensors file; the tensors' values are only hashed.

    Raises ModelError, in one line, when the file is missing, broken or says too little.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        digest = _sha256(path)
    except SafetensorError as error:
        raise ModelError(
            f"{path}: not a whole safetensors file ({_one_line(error)}); fetch it again"
        ) from error
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read ({_one_line(error.strerror or error)}); check the path"
        ) from error
    return _parse(path, metadata, digest)


def _parse(path: Path, metadata: Mapping[str, str], digest: str) -> ModelInfo:
    fields = _Fields(path, metadata)
    architecture = fields.choice("arch", {name: name for name in _ARCHITECTURES})
    upscales = architecture == "FullGenerator_SR"
    size = fields.side("out_size" if upscales else "size")
    info = ModelInfo(
        name=path.stem,
        size=size,
        in_size=fields.side("in_size") if upscales else size,
        channel_multiplier=fields.number("channel_multiplier"),
        narrow=fields.number("narrow"),
        style_dim=fields.count("style_dim", "512"),
        n_mlp=fields.count("n_mlp", "8"),
        residual=fields.choice("residual", _FLAGS, "false"),
        template=fields.text("template"),
        sha256=digest,
        input_range=fields.choice("input_range", _INPUT_RANGES, "-1,1"),
        task=fields.choice("task", {name: name for name in TASKS}, "restore"),
    )
    if info.in_size > info.size or (info.residual and info.in_size != info.size):
        raise fields.refused("in_size", f"one that fits {info.size = } and {info.residual = }")
    return info


class _Fields:
    """Typed access to the file's metadata, all of whose values are strings."""

    def __init__(self, path: Path, metadata: Mapping[str, str]) -> None:
        self._path = path
        self._metadata = metadata

    def text(self, key: str, default: str | None = None) -> str:
        value = self._metadata.get(key, default)
        if not value:
            raise ModelError(f"{self._path}: its metadata lacks {key!r}; use weights saved for gpen-stream")
        return value

    def choice(self, key: str, values: Mapping, default: str | None = None):
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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _one_line(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 200 else text[:197] + "..."
