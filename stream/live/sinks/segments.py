"""A sink that records a folder of segments, named by UTC time, and deletes old ones."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import filelock

from stream.live.packets import LIVE_TIME_BASE, EpochStart, Message, Packet
from stream.live.sinks import SinkSpec
from stream.live.sinks.disk_file import (
    DiskFile,
    check_free_space,
    make_folder,
    repair,
    unused_path,
    write_error,
)
from stream.live.sinks.sink import LiveSink, SinkError

_NAME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d)Z(-L\d+)?(-\d+)?\.(mp4|mkv)")
_FORMAT = "%Y-%m-%dT%H-%M-%S"
_LOCK = ".recording{}.lock"
"""With the suffix of the lease: each lease of a fleet has its own."""
_LOCK_S = 1.0
"""How long `open` waits for the lock, which `segments` holds for an instant."""
_DELETE_EVERY_S = 60.0
_DAY_S = 86400.0
_MIB, _GIB = 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class Segment:
    """A file that was recorded, or that is being recorded."""

    path: Path
    began_at: float
    """Unix time in seconds, read from its name."""
    seconds: float
    """Time from `began_at` to the last change of the file."""
    size: int
    """Size of the file, bytes."""
    is_open: bool
    """Whether it is still being written."""


def segments(folder: Path) -> list[Segment]:
    """Segments in a folder, oldest first; other files are ignored."""
    found = sorted(_listed(folder), key=lambda entry: entry[0])
    recording = bool(found) and _is_locked(folder, _suffix(found[-1][1]))
    listed = []
    for _, path, began_at, stat in found:
        seconds = max(0.0, stat.st_mtime - began_at)
        listed.append(Segment(path, began_at, seconds, stat.st_size, recording and path == found[-1][1]))
    return listed


class SegmentSink(LiveSink):
    """Begins a file with every epoch, and at a keyframe after `record.segment_s` or `segment_mb`.

    Segments beyond `record.keep_days` and `keep_gb` are deleted when a file begins, and once a minute. A
    lock, which ends with the process, keeps a second sink out of the folder. In a fleet the machine that
    recorded before may hang and keep its lock: there each lease has a lock and file names of its own.
    """

    def __init__(self, spec: SinkSpec) -> None:
        self._folder, self._record = Path(spec.target), spec.record
        self._suffix = spec.suffix
        self._lock = filelock.FileLock(self._folder / _LOCK.format(self._suffix))
        self._start: EpochStart | None = None
        self._file: DiskFile | None = None
        self._deleted_at_s = 0.0

    def open(self) -> None:
        """Lock the folder, repair what a killed process left, delete old segments, check the free space."""
        make_folder(self._folder)
        try:
            self._lock.acquire(timeout=_LOCK_S)
        except filelock.Timeout:
            raise SinkError(
                f"{self._folder}: another recording writes there; give each camera its own folder"
            ) from None
        except OSError as error:
            raise write_error(self._folder, error) from error
        self._drop_stale_locks()
        self._repair_newest()
        self._delete_old()
        check_free_space(self._folder, self._record.free_gb)

    def write(self, message: Message) -> None:
        """Add a packet; a keyframe may begin the next file."""
        if isinstance(message, EpochStart):
            self._end_file()
            self._start = message
        elif isinstance(message, Packet) and self._start is not None:
            if message.keyframe:
                check_free_space(self._folder, self._record.free_gb)
                if self._file is not None and self._is_full(self._file, message):
                    self._end_file()
                self._file = self._file or self._begin(self._start, message)
            if self._file is not None:
                self._file.write(message)

    def idle(self) -> None:
        """Delete segments that have become too old."""
        if time.monotonic() - self._deleted_at_s > _DELETE_EVERY_S:
            self._delete_old()

    def close(self) -> None:
        """Finish the file and unlock the folder."""
        try:
            self._end_file()
        finally:
            self._lock.release()

    def _is_full(self, file: DiskFile, keyframe: Packet) -> bool:
        seconds = (keyframe.pts - file.began_pts) * LIVE_TIME_BASE
        most = self._record.segment_mb * _MIB
        return seconds >= self._record.segment_s or (0 < most <= file.size)

    def _begin(self, start: EpochStart, keyframe: Packet) -> DiskFile:
        self._delete_old()
        age_s = time.monotonic() - keyframe.arrived_at_s if keyframe.arrived_at_s else 0.0
        began = datetime.fromtimestamp(time.time() - age_s, UTC)
        name = f"{began.strftime(_FORMAT)}Z{self._suffix}.{self._record.container}"
        file = DiskFile(unused_path(self._folder / name), start, keyframe)
        self.detail = f"writing {file.path.name}"
        return file

    def _end_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _drop_stale_locks(self) -> None:
        """Delete the lock files that other leases have left."""
        for path in self._folder.glob(_LOCK.format("-L*")):
            suffix = path.name.removeprefix(_LOCK.split("{")[0]).removesuffix(".lock")
            if suffix != self._suffix and not _is_locked(self._folder, suffix):
                path.unlink(missing_ok=True)

    def _repair_newest(self) -> None:
        """Repair what a killed process left, unless a machine that hangs may go on to write it."""
        left = segments(self._folder)
        if left and (_suffix(left[-1].path) == self._suffix or not left[-1].is_open):
            repair(left[-1].path)

    def _delete_old(self) -> None:
        """Delete segments by their age and by their total size, but never the one that is being written."""
        self._deleted_at_s = time.monotonic()
        rules, writing = self._record, self._file.path if self._file is not None else None
        total = 0
        for segment in reversed(segments(self._folder)):
            total += segment.size
            ended_at = segment.began_at + segment.seconds
            old = rules.keep_days and time.time() - ended_at > rules.keep_days * _DAY_S
            too_much = rules.keep_gb and total > rules.keep_gb * _GIB
            if (old or too_much) and segment.path != writing:
                with contextlib.suppress(OSError):  # the next call tries again
                    segment.path.unlink()


def _listed(folder: Path) -> Iterator[tuple[tuple[str, int, int], Path, float, os.stat_result]]:
    """Each segment's sort key by time and lease, path, beginning in Unix time (by its name) and stat."""
    try:
        paths = list(folder.iterdir())
    except OSError:
        return
    for path in paths:
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        with contextlib.suppress(OSError, ValueError):  # deleted meanwhile, or a date that does not exist
            began = datetime.strptime(match[1], _FORMAT).replace(tzinfo=UTC)
            order = match[1], int((match[2] or "-L0")[2:]), int((match[3] or "-1")[1:])
            yield order, path, began.timestamp(), path.stat()


def _suffix(path: Path) -> str:
    """The lease's suffix in a segment's name; empty if it was recorded without one."""
    match = _NAME.fullmatch(path.name)
    return (match[2] or "") if match is not None else ""


def _is_locked(folder: Path, suffix: str) -> bool:
    path = folder / _LOCK.format(suffix)
    if not path.exists():
        return False
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    except OSError:  # no permission to lock it
        return False
    lock.release()
    return False
