"""A sink that keeps faces beside their restorations: pairs of PNG files and an index in JSON lines."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from stream.live.packets import FaceFacts, Message, Snapshot
from stream.live.sinks import SinkSpec
from stream.live.sinks.disk_file import check_free_space, make_folder, write_error
from stream.live.sinks.sink import LiveSink, SinkError

INDEX = "snapshots.jsonl"
MOST = 1000
"""Pairs that the folder keeps; the oldest are deleted."""
_EXTRA = 50
"""Pairs that are added beyond `MOST` before the oldest are deleted and the index is rewritten."""
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")


class _Entry(FaceFacts):
    """A line of the index."""

    name: str
    original: str
    """Name of the file of the original face."""
    restored: str
    """Name of the file of the restored face."""


class SnapshotSink(LiveSink):
    """Writes NAME-original.png and NAME-restored.png, and adds their facts to snapshots.jsonl."""

    def __init__(self, spec: SinkSpec) -> None:
        self._folder, self._free_gb = Path(spec.target), spec.record.free_gb
        self._suffix = spec.suffix
        self._names: list[str] = []

    def open(self) -> None:
        """Make the folder and read its index: pairs of earlier runs count towards `MOST`."""
        make_folder(self._folder)
        try:
            self._names = [entry["name"] for entry in self._entries()]
        except OSError as error:
            raise write_error(self._folder, error) from error

    def write(self, message: Message) -> None:
        """Add a pair. Raises SinkError where space or permission is missing."""
        if not isinstance(message, Snapshot):
            return
        name = message.name + self._suffix
        if not _SAFE_NAME.fullmatch(name):
            raise SinkError(f"{self._folder}: {name!r} is no name for a file")
        check_free_space(self._folder, self._free_gb)
        original, restored = _pair(self._folder, name)
        entry: _Entry = {
            **message.facts, "name": name, "original": original.name, "restored": restored.name,
        }  # fmt: skip
        try:
            original.write_bytes(message.original)
            restored.write_bytes(message.restored)
            with (self._folder / INDEX).open("a", encoding="utf-8") as index:
                index.write(json.dumps(entry) + "\n")
            self._names.append(name)
            self._prune()
        except OSError as error:
            raise write_error(self._folder, error) from error
        self.detail = f"{len(self._names)} faces"

    def _prune(self) -> None:
        if len(self._names) < MOST + _EXTRA:
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
        """Entries of the index; lines that are incomplete, or that this sink did not write, are left out."""
        path = self._folder / INDEX
        entries: list[_Entry] = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                entry = json.loads(line)
                if _SAFE_NAME.fullmatch(entry["name"]):
                    entries.append(entry)
            except (ValueError, KeyError, TypeError):
                continue
        return entries


def _pair(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}-original.png", folder / f"{name}-restored.png"
