"""The claim on an output: while one run writes a file, no other run does."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from stream.errors import EncodeError, OutputTakenError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_FLAGS = (
    getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)  # else opening a pipe of that name would wait for its other end
    | getattr(os, "O_NOINHERIT", 0)
    | getattr(os, "O_BINARY", 0)
)
_BEYOND = 1 << 30
"""Where Windows locks a byte: a locked byte cannot be read by others, so it lies behind the text."""
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What a file system without locks answers."""
_HOLDER = re.compile(r"process (?P<pid>\d+) on (?P<host>.+) since (?P<since>\S+)\n")
_MOST_BYTES = 4096


class OutputClaim:
    """The right to write `destination`, held from `acquire` to `release` or within a `with` block.

    It is a lock on the hidden file `.NAME.EXT.lock` beside the destination, whose text names the process,
    the host and the time of the start (ISO 8601, UTC). The folder is resolved, so that every spelling of
    a path is the same claim. Two claims of one process exclude each other too; a claim is not reentrant.

    `release` removes the file. The system ends the lock of a killed process, whose file then does not
    matter. Where the file system knows no locks, nothing is excluded.
    """

    def __init__(self, destination: Path) -> None:
        self.destination = destination
        self.path = destination.parent.resolve() / f".{destination.name}.lock"
        """The locked file."""
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Claim the output, without waiting.

        Raises OutputTakenError if another run holds it, EncodeError if the lock file cannot be used.
        """
        if self._descriptor is not None:
            raise RuntimeError(f"{self.destination}: is claimed already")
        with self._errors():
            while self._descriptor is None:
                self._descriptor = self._attempt()

    def release(self) -> None:
        """Remove the lock file and give the claim up. Idempotent."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        try:
            # While it is locked: afterwards the file may be another run's.
            if os.name == "posix" and self._is_in_place(descriptor):
                self.path.unlink(missing_ok=True)
        except OSError:
            pass  # an unlocked file of that name does not matter
        finally:
            os.close(descriptor)
        if os.name != "posix":  # Windows removes no open file
            with suppress(OSError):
                self.path.unlink(missing_ok=True)

    def _attempt(self) -> int | None:
        """The locked file's descriptor; None if it was removed meanwhile and has to be opened again."""
        descriptor, is_writable = self._open()
        try:
            if not _lock(descriptor):
                raise self._taken(descriptor)
            if not self._is_in_place(descriptor):
                os.close(descriptor)
                return None
            self._check_file(descriptor)
            if not is_writable:  # what a killed run of another user left
                self.path.unlink()
                os.close(descriptor)
                return None
            _write_holder(descriptor)
        except BaseException:
            with suppress(OSError):
                os.close(descriptor)
            raise
        return descriptor

    def _open(self) -> tuple[int, bool]:
        """The lock file's descriptor, and whether it can be written."""
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o666), True
        except PermissionError:
            if not os.path.lexists(self.path):
                raise
            return os.open(self.path, os.O_RDONLY | _FLAGS), False  # enough to lock it

    def _is_in_place(self, descriptor: int) -> bool:
        """Whether the path still names the opened file."""
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path, follow_symlinks=False))
        except FileNotFoundError:
            return False

    def _check_file(self, descriptor: int) -> None:
        """Raise EncodeError where the file is not one that a claim wrote: it would be overwritten."""
        facts = os.fstat(descriptor)
        ours = stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1
        text = _read(descriptor) if ours else ""
        if not ours or (text.strip("\0") and _HOLDER.fullmatch(text) is None):
            raise EncodeError(f"{self.destination}: {self.path.name} beside it is no lock file; remove it")

    def _taken(self, descriptor: int) -> OutputTakenError:
        holder = _HOLDER.fullmatch(_read(descriptor))
        who = ""
        if holder is not None:
            who = f" (process {holder['pid']} on {holder['host']} since {_clock(holder['since'])})"
        return OutputTakenError(
            f"{self.destination}: is being written by another run{who}; wait for it, or name another output"
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn the system's errors into one line."""
        try:
            yield
        except OSError as error:
            if error.errno == errno.ENOSPC:
                reason, advice = "the disk is full", "free some space and run again"
            elif error.errno == errno.ELOOP:
                reason, advice = f"{self.path.name} beside it is a symbolic link", "remove it"
            else:
                reason = f"{self.path.name} beside it cannot be used ({error.strerror})"
                advice = "check the folder"
            raise EncodeError(f"{self.destination}: {reason}; {advice}") from None


def _lock(descriptor: int) -> bool:
    """Lock a file without waiting; False if somebody else has locked it."""
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, _BEYOND, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
            return False
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _read(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return os.read(descriptor, _MOST_BYTES).decode("utf-8", "replace")


def _write_holder(descriptor: int) -> None:
    since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = f"process {os.getpid()} on {socket.gethostname()} since {since}\n"
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, text.encode())


def _clock(since: str) -> str:
    """The time of the day, and before it the date if that is not today's."""
    try:
        begun = datetime.fromisoformat(since)
    except ValueError:
        return since
    pattern = "%H:%M UTC" if begun.date() == datetime.now(UTC).date() else "%Y-%m-%d %H:%M UTC"
    return begun.strftime(pattern)
