"""Which engine "auto" takes on a CPU: the fastest of a first, short measurement, remembered."""

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
"""Crops that each candidate restores, one in turn, after one that does not count."""
CLEARLY = 0.9
"""Another candidate than the first must take at most this part of its time."""
_log = logging.getLogger(__name__)

Candidates = Mapping[str, Callable[[], Engine]]
"""By kind, what opens an engine; the first is taken unless another is clearly faster."""


class EngineChoice(BaseModel, frozen=True):
    """What was measured and chosen; kept on disk."""

    engine: str
    """Kind of the one chosen."""
    ms: dict[str, float]
    """A crop's, by kind of engine."""
    model: str
    threads: int | None
    cpu: str


def chosen(candidates: Candidates, entry: Path, model: str, threads: int | None) -> Engine:
    """Open the candidate that `entry` remembers, or measure all of them and remember the fastest.

    A single candidate is not measured. One that cannot be opened is left out with a warning; the
    first one's error is raised where none can. `model` and `threads` are kept beside the result, for
    people.
    """
    if len(candidates) == 1:
        return next(iter(candidates.values()))()
    kept = cache.read_record(entry, EngineChoice)
    if kept is not None and kept.engine in candidates:
        try:
            return candidates[kept.engine]()
        except StreamError as error:
            _log.warning("engine %s no longer opens (%s), measuring again", kept.engine, error)
    engines = _opened(candidates)
    times = measured_ms(engines) if len(engines) > 1 else dict.fromkeys(engines, 0.0)
    first = next(iter(times))
    fastest = min(times, key=times.__getitem__)
    if times[fastest] > CLEARLY * times[first]:
        fastest = first
    for kind, engine in engines.items():
        if kind != fastest:
            engine.close()
    said = ", ".join(f"{kind} {ms:.1f} ms" for kind, ms in times.items())
    _log.info("engine auto: %s (%s a crop)", fastest, said)
    made = EngineChoice(engine=fastest, ms=times, model=model, threads=threads, cpu=cpu_name())
    cache.write_record(entry, made)
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


def measured_ms(engines: Mapping[str, Engine]) -> dict[str, float]:
    """Milliseconds a crop of each engine, the best of interleaved rounds: a busy machine adds only."""
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


def entry_of(model: ModelInfo, candidates: Candidates, threads: int | None) -> Path:
    """Where a choice is kept: by processor, candidates and their versions, weights and threads."""
    key = cache.key_of(cpu_name(), versions(candidates), model.sha256, threads)
    return cache.cache_folder() / "choice" / f"{key}.json"


def remembered() -> list[EngineChoice]:
    """All choices that were made on this machine."""
    paths = sorted((cache.cache_folder() / "choice").glob("*.json"))
    return [made for path in paths if (made := cache.read_record(path, EngineChoice)) is not None]


def versions(kinds: Candidates) -> str:
    """Version of each kind's library."""
    return " ".join(f"{kind} {metadata.version(kind)}" for kind in kinds)


def cpu_name() -> str:
    """The processor's model, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        facts = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
        return " ".join(facts[key].strip() for key in ("model name", "model", "stepping"))
    except (OSError, KeyError, ValueError):
        return platform.processor() or platform.machine()
