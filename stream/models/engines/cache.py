"""Facts and files that a first run finds out and later runs read."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from platformdirs import user_cache_dir
from pydantic import BaseModel, ValidationError

CACHE_VARIABLE = "GPEN_STREAM_CACHE"
"""Environment variable that names another cache folder."""

Record = TypeVar("Record", bound=BaseModel)

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where converted networks and first measurements are kept."""
    return Path(os.environ.get(CACHE_VARIABLE) or user_cache_dir("gpen-stream"))


def key_of(*facts: object) -> str:
    """A file's name for everything that a cached thing depends on."""
    return hashlib.sha256("|".join(map(str, facts)).encode()).hexdigest()[:32]


def read_record(path: Path, kind: type[Record]) -> Record | None:
    """What `write_record` kept, or None when it is absent, broken or lacks a field."""
    try:
        return kind.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except ValidationError:
        _log.warning("%s: says too little, measuring again", path)
        return None
    except (OSError, ValueError) as error:
        _log.warning("%s: cannot be read (%s), measuring again", path, error)
        return None


def write_record(path: Path, record: BaseModel) -> None:
    """Keep `record` as JSON; a folder that cannot be written only costs the next run the same work."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(record.model_dump(), indent=1), encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        _log.warning("%s: cannot be kept (%s)", path, error)


def whole(entry: Path, names: Sequence[str]) -> bool:
    """Whether the files `names` of a cache entry are as they were stored.

    False where there is no such entry; raises OSError or ValueError where it is broken.
    """
    try:
        expected = (entry / "digest").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    if expected != _digest(entry, names):
        raise ValueError("its digest does not match")
    return True


def store(entry: Path, names: Sequence[str], write: Callable[[Path], None]) -> None:
    """Let `write` make the files of an entry in a draft folder, and rename it into its place.

    No reader ever sees half an entry. Raises OSError.
    """
    entry.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f"{entry.name}-", dir=entry.parent))
    try:
        write(draft)
        (draft / "digest").write_text(_digest(draft, names), encoding="utf-8")
        shutil.rmtree(entry, ignore_errors=True)
        draft.rename(entry)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _digest(entry: Path, names: Sequence[str]) -> str:
    """SHA-256 over the files; 32 MB take 25 ms, and a crash can leave zeros in whole files."""
    digest = hashlib.sha256()
    for name in names:
        with (entry / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
