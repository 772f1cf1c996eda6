"""Restored faces beside the originals: PNG pairs in a folder, and a line of JSON for each."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from stream.live.packets import FaceFacts, Message, Snapshot
from stream.live.sinks import SinkSpec
from stream.live.sinks.disk_file import check_room, make_folder, write_error
from stream.live.sinks.sink import SinkError

INDEX = "snapshots.jsonl"
MOST = 1000
"""Pairs in the folder; the oldest go."""
_SPARE = 50
"""So many more are let in before the index is written anew."""
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")


class _Entry(FaceFacts):
    """A line of the index."""

    name: str
    original: str
    restored: str
    """File names."""


class SnapshotSink:
    """NAME-original.png, NAME-restored.png, and in snapshots.jsonl their names with all that is known."""

    wanted = True

    def __init__(self, spec: SinkSpec) -> None:
        self.detail = ""
        self._folder, self._free_gb = Path(spec.target), spec.record.free_gb
        self._names: list[str] = []

    def open(self) -> None:
        """Make the folder, read its index: what an earlier run wrote is part of the bound."""
        make_folder(self._folder)
        try:
            self._names = [entry["name"] for entry in self._entries()]
        except OSError as error:
            raise write_error(self._folder, error) from error

    def write(self, message: Message) -> None:
        """Add a pair. Raises SinkError where there is no room or no permission."""
        if not isinstance(message, Snapshot):
            return
        if not _SAFE.fullmatch(message.name):
            raise SinkError(f"{self._folder}: {message.name!r} is no name for a file")
        check_room(self._folder, self._free_gb)
        original, restored = _pair(self._folder, message.name)
        entry: _Entry = {
            **message.facts, "name": message.name, "original": original.name, "restored": restored.name,
        }  # fmt: skip
        try:
            original.write_bytes(message.original)
            restored.write_bytes(message.restored)
            with (self._folder / INDEX).open("a", encoding="utf-8") as index:
                index.write(json.dumps(entry) + "\n")
            self._names.append(message.name)
            self._prune()
        except OSError as error:
            raise write_error(self._folder, error) from error
        self.detail = f"{len(self._names)} faces"

    def idle(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing is held back."""

    def _prune(self) -> None:
        if len(self._names) < MOST + _SPARE:
            return
        gone, self._names = self._names[:-MOST], self._names[-MOST:]
        kept = [json.dumps(entry) + "\n" for entry in self._entries()[-MOST:]]
        partial = self._folder / f".{INDEX}"
        partial.write_text("".join(kept), encoding="utf-8")
        os.replace(partial, self._folder / INDEX)
        for name in gone:
            for path in _pair(self._folder, name):
                path.unlink(missing_ok=True)

    def _entries(self) -> list[_Entry]:
        """Of the index; lines that were not written to their end, or not by us, are left out."""
        path = self._folder / INDEX
        entries: list[_Entry] = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                entry = json.loads(line)
                if _SAFE.fullmatch(entry["name"]):
                    entries.append(entry)
            except (ValueError, KeyError, TypeError):
                continue
        return entries


def _pair(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}-original.png", folder / f"{name}-restored.png"
