"""The choice of engine "auto" on a CPU: the fastest in a short measurement, whose result is recorded."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from stream.errors import StreamError
from stream.models.engines import cache
from stream.models.engines.engine import Engine
from stream.models.info import ModelInfo

ROUNDS = 5
"""Crops that each candidate restores, by turns, after one crop that does not count."""
CLEARLY_FASTER = 0.9
"""A candidate replaces the first if it needs at most this part of its time."""
_log = logging.getLogger(__name__)

Candidates = Mapping[str, Callable[[], Engine]]
"""Functions that open an engine, by kind. The first is preferred unless another is clearly faster."""


class EngineChoice(BaseModel, frozen=True):
    """A measurement and its result, as they are stored in the cache."""

    engine: str
    """The kind that was chosen."""
    ms: dict[str, float]
    """Milliseconds for a crop, by kind of engine."""
    model: str
    threads: int | None
    cpu: str


def open_fastest(candidates: Candidates, record: Path, model: str, threads: int | None) -> Engine:
    """Open the candidate that `record` names. Without a record, measure all and record the fastest.

    A single candidate is not measured. One that cannot be opened is left out with a warning; if none can
    be opened, the first error is raised. `model` and `threads` are recorded for the user to read.
    """
    if len(candidates) == 1:
        return next(iter(candidates.values()))()
    recorded = cache.read_record(record, EngineChoice)
    if recorded is not None and recorded.engine in candidates:
        try:
            return candidates[recorded.engine]()
        except StreamError as error:
            _log.warning("engine %s no longer opens (%s), measuring again", recorded.engine, error)
    engines = _opened(candidates)
    times = measure_ms(engines) if len(engines) > 1 else dict.fromkeys(engines, 0.0)
    first = next(iter(times))
    fastest = min(times, key=times.__getitem__)
    if times[fastest] > CLEARLY_FASTER * times[first]:
        fastest = first
    for kind, engine in engines.items():
        if kind != fastest:
            engine.close()
    shown = ", ".join(f"{kind} {ms:.1f} ms" for kind, ms in times.items())
    _log.info("engine auto: %s (%s a crop)", fastest, shown)
    choice = EngineChoice(engine=fastest, ms=times, model=model, threads=threads, cpu=cpu_name())
    cache.write_record(record, choice)
    return engines[fastest]


def _opened(candidates: Candidates) -> dict[str, Engine]:
    engines, errors = {}, []
    for kind, create in candidates.items():
        try:
            engines[kind] = create()
        except StreamError as error:
            _log.warning("engine %s is left out: %s", kind, error)
            errors.append(error)
    if not engines:
        raise errors[0]
    return engines


def measure_ms(engines: Mapping[str, Engine]) -> dict[str, float]:
    """Milliseconds for a crop by kind of engine: the least of several rounds, since load only adds time."""
    times: dict[str, list[float]] = {kind: [] for kind in engines}
    for i in range(ROUNDS + 1):
        for kind, engine in engines.items():
            side = engine.model.in_size
            crop = np.full((1, side, side, 3), 0.5, np.float32)
            start = time.perf_counter()
            engine.restore(crop)
            if i:
                times[kind].append((time.perf_counter() - start) * 1e3)
    return {kind: round(min(values), 2) for kind, values in times.items()}


def record_path(model: ModelInfo, candidates: Candidates, threads: int | None) -> Path:
    """Path of the record for this processor, these candidates and their versions, weights and threads."""
    key = cache.key_of(cpu_name(), versions(candidates), model.sha256, threads)
    return cache.cache_folder() / "choice" / f"{key}.json"


def recorded_choices() -> list[EngineChoice]:
    """All choices that are recorded on this machine."""
    paths = sorted((cache.cache_folder() / "choice").glob("*.json"))
    return [choice for path in paths if (choice := cache.read_record(path, EngineChoice)) is not None]


def versions(kinds: Candidates) -> str:
    """The versions of the kinds' libraries, in one line."""
    return " ".join(f"{kind} {metadata.version(kind)}" for kind in kinds)


def cpu_name() -> str:
    """The processor's model, as far as the system knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        facts = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
        return " ".join(facts[key].strip() for key in ("model name", "model", "stepping"))
    except (OSError, KeyError, ValueError):
        return platform.processor() or platform.machine()
