"""The recordings of a camera, as far as they lie in its own folders."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from stream.errors import StreamError

_NAME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ)[\w-]*\.(?:mp4|mkv)")
_FRESH_S = 15.0


class NotFound(StreamError):
    """There is no such camera or recording."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording."""

    name: str
    began_at: float
    """Unix time, s."""
    seconds: float
    """From its beginning to the latest write: fragmented files do not say how long they are."""
    bytes: int
    open: bool
    """Whether it is being written."""


def listed(folders: list[Path], now: float) -> list[Recording]:
    """Recordings as they are at `now`, Unix time in s; oldest first."""
    found = []
    for folder in folders:
        for path in folder.glob("*.m*"):
            match = _NAME.fullmatch(path.name)
            if match is None:
                continue
            try:
                facts = path.stat()
            except FileNotFoundError:  # retention was faster
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
    # Only the newest is still written.
    return [replace(segment, open=False) for segment in found[:-1]] + found[-1:]


def confined(folders: list[Path], file: str, camera: str) -> Path:
    """The file of that name in one of the folders; NotFound for whatever else is asked."""
    if _NAME.fullmatch(file):
        for folder in folders:
            path = folder / file
            if path.is_file() and path.resolve().parent == folder.resolve():
                return path
    raise NotFound(f"{camera}: has no such recording; see its list")
