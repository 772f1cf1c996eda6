"""Which files of a folder are done, so that a run that was killed is continued file by file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, JsonValue, ValidationError

from stream.job.plan.facts import input_facts
from stream.media.synced_file import write_synced

NAME = ".gpen-folder.json"
"""Name of the record, in the folder of results; it is removed when a run comes to its end."""


class DoneFile(BaseModel, frozen=True):
    """A file that is done."""

    source: dict[str, JsonValue]
    """Size and sampled SHA-256 of the input."""
    output_size: int
    """Bytes of the result."""


class _Record(BaseModel):
    facts: dict[str, JsonValue]
    """Facts that a run which continues must share: settings, model, versions."""
    files: dict[str, DoneFile] = {}
    """The finished files, by their path below the folder."""


class FolderRecord:
    """The record in a folder of results. One that was made with other settings counts for nothing."""

    def __init__(self, folder: Path, facts: dict[str, JsonValue]) -> None:
        self._folder = folder
        self._path = folder / NAME
        self._record = _Record(facts=facts)
        with suppress(OSError, ValidationError):
            found = _Record.model_validate_json(self._path.read_bytes())
            if found.facts == facts:
                self._record = found

    def is_done(self, source: Path, output: Path) -> bool:
        """Whether an earlier run restored this file, and its result is there. Raises SourceError."""
        done = self._record.files.get(self._key(output))
        if done is None or not output.is_file() or output.stat().st_size != done.output_size:
            return False
        return input_facts(source, whole=False) == done.source

    def add(self, source: Path, output: Path) -> None:
        """Note that a file is done. Raises SourceError and OSError."""
        done = DoneFile(source=input_facts(source, whole=False), output_size=output.stat().st_size)
        self._record.files[self._key(output)] = done
        write_synced(self._path, self._record.model_dump_json(indent=1))

    def remove(self) -> None:
        """Delete the record: the run has come to its end, or begins again."""
        self._record.files.clear()
        self._path.unlink(missing_ok=True)

    def _key(self, output: Path) -> str:
        return output.relative_to(self._folder).as_posix()
