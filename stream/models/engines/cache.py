"""The cache folder: results of a first run that later runs read, as records (JSON) and folders of files."""

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
    """The folder of converted networks and measurements, by GPEN_STREAM_CACHE or the system's custom."""
    return Path(os.environ.get(CACHE_VARIABLE) or user_cache_dir("gpen-stream"))


def key_of(*facts: object) -> str:
    """A name for a cached item, from everything on which the item depends."""
    return hashlib.sha256("|".join(map(str, facts)).encode()).hexdigest()[:32]


def read_record(path: Path, kind: type[Record]) -> Record | None:
    """The record that `write_record` wrote; None if it is missing or broken, or lacks a field."""
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
    """Write `record` as JSON. If that fails, a warning is logged: the next run repeats the work."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(record.model_dump(), indent=1), encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        _log.warning("%s: cannot be kept (%s)", path, error)


def is_intact(folder: Path, names: Sequence[str]) -> bool:
    """Whether the files `names` of a folder are as `write_folder` wrote them.

    False if there is no such folder. Raises OSError or ValueError if a file is missing or changed.
    """
    try:
        expected = (folder / "digest").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    if expected != _digest(folder, names):
        raise ValueError("its digest does not match")
    return True


def write_folder(folder: Path, names: Sequence[str], write: Callable[[Path], None]) -> None:
    """Let `write` create the files `names` in a draft folder, and rename the draft to `folder`.

    So no reader sees an incomplete folder. Raises OSError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    try:
        write(draft)
        (draft / "digest").write_text(_digest(draft, names), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _digest(folder: Path, names: Sequence[str]) -> str:
    """SHA-256 of the files. A crash can leave files of the right length full of zeros.

    32 MB take 25 ms.
    """
    digest = hashlib.sha256()
    for name in names:
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
