"""The engines of this machine, as `gpen-stream engines` shows them. No inference library is imported."""

from __future__ import annotations

import shutil
from importlib import metadata

from pydantic import BaseModel

from stream.models.engines import auto_choice, has_nvidia_driver
from stream.models.engines.auto_choice import EngineChoice

_LIBRARIES = {
    "openvino": "openvino",
    "torch": "torch",
    "torch-compile": "torch",
    "onnxruntime": "onnxruntime",
    "tensorrt": "onnxruntime-gpu",
}


class EngineKind(BaseModel, frozen=True):
    """One kind of engine."""

    engine: str
    library: str
    version: str | None
    """The library's; None if it is not installed."""
    lacks: str
    """The requirement that is missing; empty: the engine is ready."""


class Engines(BaseModel, frozen=True):
    """The content of `gpen-stream engines --json`."""

    engines: list[EngineKind]
    nvidia_driver: bool
    auto: list[EngineChoice]
    """The measurements and choices of engine "auto"."""


def list_engines() -> Engines:
    """All kinds of engines with their library's version and what they lack, and the choices of "auto"."""
    engines = []
    for kind, library in _LIBRARIES.items():
        version = _version(library)
        if kind == "onnxruntime" and version is None:
            version = _version("onnxruntime-gpu")
        lacks = "" if version else f"{library} is not installed"
        if not lacks and kind == "tensorrt" and not has_nvidia_driver():
            lacks = "no NVIDIA driver"
        if not lacks and kind == "torch-compile" and not (shutil.which("g++") or shutil.which("clang++")):
            lacks = "no C++ compiler, which a CPU needs"
        engines.append(EngineKind(engine=kind, library=library, version=version, lacks=lacks))
    return Engines(engines=engines, nvidia_driver=has_nvidia_driver(), auto=auto_choice.recorded_choices())


def render(facts: Engines) -> str:
    """The facts as text, one engine in each line."""
    lines = [
        f"{kind.engine:14} {kind.library} {kind.version or '-':12} {kind.lacks or 'ready'}"
        for kind in facts.engines
    ]
    lines.append(f"NVIDIA driver: {'yes' if facts.nvidia_driver else 'no'}")
    for choice in facts.auto:
        times = ", ".join(f"{engine} {ms:.1f} ms" for engine, ms in choice.ms.items())
        lines.append(f"auto, {choice.model}, {choice.threads} threads: {choice.engine} ({times} a crop)")
    return "\n".join(lines)


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
