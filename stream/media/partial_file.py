"""An unfinished output: a new hidden file beside the destination, which gets its name at the end."""

from __future__ import annotations

import os
from pathlib import Path

from stream.errors import EncodeError

_FLAGS = (
    os.O_RDWR
    | os.O_CREAT
    | os.O_EXCL
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_OPEN_FILES = Path("/proc/self/fd")
"""Where Linux lets a process open again what it has open."""


def hidden_name(destination: Path, state: str) -> Path:
    """`.NAME.STATE.EXT` beside the destination. FFmpeg knows the format by the ending."""
    return destination.with_name(f".{destination.stem}.{state}{destination.suffix}")


class PartialFile:
    """A file that this object has created, and that stays the same file under every name it gets.

    What lies at the path is removed first: a killed run left it. Of a symbolic link only the link is
    removed. The file is never somebody else's, and nobody's link leads the writer elsewhere. The caller
    holds the output's claim, and ends with `rename` and `close`, or with `discard`. Raises OSError.
    """

    def __init__(self, path: Path, destination: Path) -> None:
        """`destination`: the output, which error messages name."""
        self.path = path
        """Its name now."""
        self._destination = destination
        path.unlink(missing_ok=True)
        self._descriptor: int | None = os.open(path, _FLAGS, 0o666)

    @property
    def name_to_open(self) -> str:
        """A name by which a library opens this very file, if the system has such names; else the path."""
        name = _OPEN_FILES / str(self._descriptor)
        return str(name if name.exists() else self.path.absolute())

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return os.fstat(self._opened()).st_size

    def write(self, data: bytes) -> None:
        """Append bytes to the file."""
        with os.fdopen(os.dup(self._opened()), "wb") as file:
            file.write(data)

    def check(self) -> None:
        """Raise EncodeError where the path does not name this file any more."""
        try:
            found = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            found = None
        if found is None or not os.path.samestat(found, os.fstat(self._opened())):
            raise EncodeError(
                f"{self._destination}: {self.path.name} beside it was replaced by another program; run again"
            )

    def rename(self, target: Path) -> None:
        """Give the file another name; what has that name is replaced. Raises EncodeError as `check` does."""
        self.check()
        if os.name != "posix":  # Windows renames no open file
            self.close()
        os.replace(self.path, target)
        self.path = target

    def close(self) -> None:
        """Let go of the file; it stays. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None

    def discard(self) -> None:
        """Remove the file, unless another one has taken its name. Idempotent."""
        if self._descriptor is None:
            return
        try:
            self.check()
        except EncodeError:
            self.close()
            return
        self.close()
        self.path.unlink(missing_ok=True)

    def _opened(self) -> int:
        if self._descriptor is None:
            raise RuntimeError(f"{self.path}: is closed")
        return self._descriptor


def write_whole(destination: Path, data: bytes) -> None:
    """Write a file whole or not at all, by a hidden file beside it. Raises OSError and EncodeError."""
    file = PartialFile(hidden_name(destination, "partial"), destination)
    try:
        file.write(data)
        file.rename(destination)
    except BaseException:
        file.discard()
        raise
    file.close()
