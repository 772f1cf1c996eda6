"""The models folder and its ledger: accepted licences, pinned and verified files, imported models."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypedDict

from platformdirs import user_data_dir

from stream.errors import ModelError

MODELS_VARIABLE = "GPEN_STREAM_MODELS"
"""Environment variable that names another models folder."""
_LEDGER = "ledger.json"


class OwnModel(TypedDict):
    """A model that the user imported."""

    path: str
    """Path of its file; relative to the models folder if it is inside."""
    sha256: str
    source_sha256: str
    """Digest of the file from which it was imported."""
    task: str
    size: str
    """Side of the output, px."""
    template: str
    input_range: str
    """A key of `info.INPUT_RANGES`."""


@dataclass(slots=True)
class Ledger:
    """Facts stored between runs, as JSON in the models folder."""

    licences: list[str] = field(default_factory=list)
    """Names of accepted licences."""
    pins: dict[str, str] = field(default_factory=dict)
    """Digest of the first file seen, by file name, for files whose publishers give no digest."""
    verified: dict[str, list[int | str]] = field(default_factory=dict)
    """Bytes, modification time (ns) and digest of each file that was hashed, by path."""
    imports: dict[str, OwnModel] = field(default_factory=dict)
    """Imported models by name."""


def models_folder() -> Path:
    """The folder for models, by GPEN_STREAM_MODELS or the system's custom. It need not exist."""
    named = os.environ.get(MODELS_VARIABLE)
    folder = Path(named).expanduser() if named else Path(user_data_dir("gpen-stream")) / "models"
    return folder.absolute()


def read_ledger() -> Ledger:
    """The ledger, or an empty one where there is none. Raises ModelError where it is damaged."""
    path = models_folder() / _LEDGER
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return Ledger()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); check {MODELS_VARIABLE}") from None
    except ValueError:
        data = None
    try:
        ledger = Ledger(**data)
    except TypeError:
        ledger = None
    if ledger is None or any(type(v) is not type(asdict(Ledger())[k]) for k, v in asdict(ledger).items()):
        raise ModelError(f"{path}: damaged; mend it, or delete it and with it all pins and consents")
    return ledger


def change_ledger(change: Callable[[Ledger], object]) -> None:
    """Apply `change` to the ledger on the disk. Other processes see the ledger before or after it.

    The result of `change` is ignored. Raises ModelError where the folder cannot be written.
    """
    path = models_folder() / _LEDGER
    with locked(_LEDGER):
        ledger = read_ledger()
        before = asdict(ledger)
        change(ledger)
        if asdict(ledger) == before:
            return
        draft = path.with_name(f".{_LEDGER}.{os.getpid()}")
        try:
            draft.write_text(json.dumps(asdict(ledger), indent=1) + "\n", encoding="utf-8")
            draft.replace(path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise cannot_write(path.parent, error) from None


@contextmanager
def locked(file: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock for one file of the models folder. The folder is created if it is missing.

    `waiting` is called once if another process has the lock. A process that dies releases it.
    """
    from filelock import FileLock, Timeout  # it imports asyncio, 60 ms that a run can save

    folder = models_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f".{file}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if waiting is not None:
                waiting()
            lock.acquire()
    except OSError as error:
        raise cannot_write(folder, error) from None
    try:
        yield
    finally:
        lock.release()


def rename_refused(path: Path, name: str, digest: str) -> str:
    """Rename a file that must not be used to ``NAME.refused-DIGEST``, and return the new name."""
    aside = path.with_name(f"{name}.refused-{digest[:12]}")
    path.replace(aside)
    return aside.name


def cannot_write(folder: Path, error: OSError) -> ModelError:
    """The error for a folder that is full or cannot be written."""
    return ModelError(
        f"{folder}: cannot be written ({error.strerror or error}); make room, or name another folder "
        f"in {MODELS_VARIABLE}"
    )
