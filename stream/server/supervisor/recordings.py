"""A camera's recordings: those in its own folders, and no other file."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from stream.errors import NotFoundError

_NAME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ)[\w-]*\.(?:mp4|mkv)")
_FRESH_S = 15.0
"""A file that was written to within this time is still being recorded."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One recorded file."""

    name: str
    began_at: float
    """Unix time, s."""
    seconds: float
    """Time from its beginning to the latest write: a fragmented file does not say how long it is."""
    bytes: int
    open: bool
    """Whether it is still being written."""


def list_recordings(folders: list[Path], now: float) -> list[Recording]:
    """The recordings in a camera's folders, oldest first. `now`: Unix time, s."""
    found = []
    for folder in folders:
        for path in folder.glob("*.m*"):
            match = _NAME.fullmatch(path.name)
            if match is None:
                continue
            try:
                facts = path.stat()
            except FileNotFoundError:  # it was just deleted because of its age
                continue
            began = datetime.strptime(match[1], "%Y-%m-%dT%H-%M-%SZ").replace(tzinfo=UTC).timestamp()
            found.append(
                Recording(
                    path.name,
                    began_at=began,
                    seconds=round(max(0.0, facts.st_mtime - began), 1),
                    bytes=facts.st_size,
                    open=now - facts.st_mtime < _FRESH_S,
                )
            )
    found.sort(key=lambda segment: (segment.began_at, segment.name))
    # Only the newest can still be written to.
    return [replace(segment, open=False) for segment in found[:-1]] + found[-1:]


def find_recording(folders: list[Path], file: str, camera: str) -> Path:
    """The path of a recording in one of the folders; NotFoundError for any other name or file."""
    if _NAME.fullmatch(file):
        for folder in folders:
            path = folder / file
            if path.is_file() and path.resolve().parent == folder.resolve():
                return path
    raise NotFoundError(f"{camera}: has no such recording; see its list")
