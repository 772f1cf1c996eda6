"""The models folder and its ledger: what was accepted, pinned, verified and imported there."""

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
    """A model of the user's own."""

    path: str
    """Where its file lies, relative within the models folder."""
    sha256: str
    source_sha256: str
    """Digest of the file that it was made from."""
    task: str
    size: str
    """px"""
    template: str
    input_range: str
    """A key of `model.INPUT_RANGES`."""


@dataclass(slots=True)
class Ledger:
    """What is remembered between runs; lies in the models folder as JSON."""

    licences: list[str] = field(default_factory=list)
    """Names of the licences that were accepted."""
    pins: dict[str, str] = field(default_factory=dict)
    """Digest by file name, of files whose publishers give none: that of the first one seen."""
    verified: dict[str, list[int | str]] = field(default_factory=dict)
    """Bytes, modification time (ns) and digest of files in the folder that were hashed."""
    imports: dict[str, OwnModel] = field(default_factory=dict)
    """The user's own models by name."""


def models_folder() -> Path:
    """Where models are kept; it need not exist yet."""
    named = os.environ.get(MODELS_VARIABLE)
    folder = Path(named).expanduser() if named else Path(user_data_dir("gpen-stream")) / "models"
    return folder.absolute()


def read_ledger() -> Ledger:
    """The ledger as it is, or an empty one; ModelError where it cannot be understood."""
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
    """Apply `change` to the ledger on the disk; other processes see it before or after.

    What it returns is ignored. Raises ModelError where the folder cannot be written.
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
    """Hold the lock of one file of the models folder, which is made where it is missing.

    `waiting` is called once when another process has it. A process that dies leaves no lock behind.
    """
    from filelock import FileLock, Timeout  # with asyncio behind it: 60 ms that a run does without

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


def set_aside(path: Path, name: str, digest: str) -> str:
    """Rename a file that must not be used to ``NAME.refused-DIGEST``; returns the new name."""
    aside = path.with_name(f"{name}.refused-{digest[:12]}")
    path.replace(aside)
    return aside.name


def cannot_write(folder: Path, error: OSError) -> ModelError:
    """The one line for a folder that takes no more, or nothing at all."""
    return ModelError(
        f"{folder}: cannot be written ({error.strerror or error}); make room, or name another folder "
        f"in {MODELS_VARIABLE}"
    )
