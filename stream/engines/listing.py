"""Which engines there are on this machine, for people; no inference library is imported."""

from __future__ import annotations

import shutil
from importlib import metadata
from typing import Any

from stream.engines import choice, driver_present

_LIBRARIES = {
    "openvino": "openvino",
    "torch": "torch",
    "torch-compile": "torch",
    "onnxruntime": "onnxruntime",
    "tensorrt": "onnxruntime-gpu",
}


def listed() -> dict[str, Any]:
    """The kinds with their library's version and what they lack, and the choices of "auto"."""
    engines = []
    for kind, library in _LIBRARIES.items():
        version = _version(library)
        if kind == "onnxruntime" and version is None:
            version = _version("onnxruntime-gpu")
        lacks = "" if version else f"{library} is not installed"
        if not lacks and kind == "tensorrt" and not driver_present():
            lacks = "no NVIDIA driver"
        if not lacks and kind == "torch-compile" and not (shutil.which("g++") or shutil.which("clang++")):
            lacks = "no C++ compiler, which a CPU needs"
        engines.append({"engine": kind, "library": library, "version": version, "lacks": lacks})
    return {"engines": engines, "nvidia_driver": driver_present(), "auto": choice.remembered()}


def render(facts: dict[str, Any]) -> str:
    """The same as text."""
    lines = [
        f"{row['engine']:14} {row['library']} {row['version'] or '-':12} {row['lacks'] or 'ready'}"
        for row in facts["engines"]
    ]
    lines.append(f"NVIDIA driver: {'yes' if facts['nvidia_driver'] else 'no'}")
    for row in facts["auto"]:
        times = ", ".join(f"{kind} {ms:.1f} ms" for kind, ms in row["ms"].items())
        lines.append(f"auto, {row['model']}, {row['threads']} threads: {row['engine']} ({times} a crop)")
    return "\n".join(lines)


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
