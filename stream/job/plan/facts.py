"""What must be the same for a run to continue another: input, settings, model, versions, machine."""

from __future__ import annotations

import hashlib
import platform
from importlib import metadata
from pathlib import Path

import av
from pydantic import JsonValue

from stream import __version__
from stream.errors import SourceError
from stream.faces.assembly import Setup
from stream.job.interface import Options
from stream.models.engines import Engine

_BLOCK = 1 << 20
"""Bytes that are hashed at a file's beginning and end."""
_SAMPLES, _SAMPLE = 16, 1 << 16
"""Number and size of the samples that are hashed between them, bytes."""
_INSTRUCTIONS = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "asimd", "bf16", "sve")
"""Instruction sets by which inference libraries choose their kernels, by Linux's names."""
_LIBRARIES = ("av", "numpy", "opencv-python", "openvino")


def input_facts(path: Path, *, whole: bool) -> dict[str, JsonValue]:
    """Size and SHA-256 of a file: of its beginning, end and samples between, or of all of it if `whole`.

    Raises SourceError.
    """
    digest = hashlib.sha256()
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if whole:
                while block := file.read(_BLOCK):
                    digest.update(block)
            else:
                steps = [round(size * i / (_SAMPLES + 1)) for i in range(1, _SAMPLES + 1)]
                for at, length in [
                    (0, _BLOCK),
                    *((s, _SAMPLE) for s in steps),
                    (max(0, size - _BLOCK), _BLOCK),
                ]:
                    file.seek(at)
                    digest.update(file.read(length))
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    kind = "sha256" if whole else "sampled_sha256"
    return {"input.size": size, f"input.{kind}": digest.hexdigest()}


def job_facts(
    source: Path, setup: Setup, options: Options, longest_s: float, *, whole: bool
) -> dict[str, JsonValue]:
    """All that a continued run must have in common with the one that made the plan. Raises SourceError."""
    facts = input_facts(source, whole=whole)
    facts |= {
        "options.start": options.start_s,
        "options.duration": options.duration_s,
        "options.aligned": options.aligned,
        "options.segment": longest_s,
        "model.name": setup.model.name,
        "model.sha256": setup.model.sha256,
    }
    facts |= version_facts()
    for section, values in setup.config.model_dump(mode="json").items():
        facts |= {f"settings.{section}.{key}": value for key, value in values.items()}
    return facts


def version_facts() -> dict[str, JsonValue]:
    """The versions of this program and of the libraries that decide the result."""
    facts: dict[str, JsonValue] = {f"version.{name}": _version(name) for name in _LIBRARIES}
    facts["version.gpen-stream"] = __version__
    facts["version.ffmpeg"] = ".".join(map(str, av.library_versions["libavcodec"]))
    return facts


def machine_facts(engine: Engine) -> dict[str, JsonValue]:
    """What decides the bits that this machine computes with an engine."""
    return {
        "engine": engine.name,
        "precision": engine.description,
        "architecture": platform.machine(),
        "instructions": " ".join(_instructions()),
    }


def _instructions() -> list[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    known = next((line for line in lines if line.startswith(("flags", "Features"))), "").split()
    return [name for name in _INSTRUCTIONS if name in known]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
