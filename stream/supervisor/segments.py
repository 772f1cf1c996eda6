"""The recordings of a camera, as far as they lie in its own folders."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from stream.errors import StreamError

_NAME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ)[\w-]*\.(?:mp4|mkv)")
_FRESH_S = 15.0


class NotFound(StreamError):
    """There is no such camera or recording."""


def listed(folders: list[Path], now: float) -> list[dict]:
    """Recordings, oldest first: name, began_at (UTC, seconds since the epoch), seconds, bytes, open.

    Seconds last to the latest write: fragmented files do not say how long they are. `open`: it is being
    written at `now`, seconds since the epoch.
    """
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
                {
                    "name": path.name,
                    "began_at": began,
                    "seconds": round(max(0.0, facts.st_mtime - began), 1),
                    "bytes": facts.st_size,
                    "open": now - facts.st_mtime < _FRESH_S,
                }
            )
    found.sort(key=lambda segment: (segment["began_at"], segment["name"]))
    for segment in found[:-1]:  # only the newest is still written
        segment["open"] = False
    return found


def confined(folders: list[Path], file: str, camera: str) -> Path:
    """The file of that name in one of the folders; NotFound for whatever else is asked."""
    if _NAME.fullmatch(file):
        for folder in folders:
            path = folder / file
            if path.is_file() and path.resolve().parent == folder.resolve():
                return path
    raise NotFound(f"{camera}: has no such recording; see its list")
