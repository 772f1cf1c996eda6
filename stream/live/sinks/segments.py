"""A folder of segments: one file after the other, named by UTC time, old ones deleted."""

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

from stream.live.packets import LIVE_TIME_BASE, Message, Packet, Start
from stream.live.sinks import SinkSpec
from stream.live.sinks.disk_file import DiskFile, check_room, free_name, make_folder, mend
from stream.live.sinks.sink import SinkError

_NAME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d)Z(-\d+)?\.(mp4|mkv)")
_FORMAT = "%Y-%m-%dT%H-%M-%S"
_LOCK = ".recording.lock"
_LOCK_S = 1.0
"""Whoever lists the segments holds the lock for an instant."""
_TIDY_S = 60.0
_DAY_S = 86400.0
_MIB, _GIB = 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class Segment:
    """A file that was recorded, or is being."""

    path: Path
    began_at: float
    """Unix time by its name, s."""
    seconds: float
    """From there to the last time it was written."""
    size: int
    """Bytes."""
    is_open: bool
    """Whether it is being written."""


def segments(folder: Path) -> list[Segment]:
    """Segments in a folder, oldest first; other files are none of our business."""
    found = sorted(_listed(folder), key=lambda entry: entry[0])
    recording = bool(found) and _is_locked(folder)
    listed = []
    for _, path, began_at, stat in found:
        seconds = max(0.0, stat.st_mtime - began_at)
        listed.append(Segment(path, began_at, seconds, stat.st_size, recording and path == found[-1][1]))
    return listed


class SegmentSink:
    """Begins a file at a keyframe after `record.segment_s` or `segment_mb`, and with every epoch.

    Old segments are deleted by `record.keep_days` and `keep_gb`: when a file begins, and once a minute.
    One sink for each folder: a lock, which ends with the process, sees to it.
    """

    wanted = True

    def __init__(self, spec: SinkSpec) -> None:
        self.detail = ""
        self._folder, self._record = Path(spec.target), spec.record
        self._lock = filelock.FileLock(self._folder / _LOCK)
        self._start: Start | None = None
        self._file: DiskFile | None = None
        self._tidied_at_s = 0.0

    def open(self) -> None:
        """Take the folder, mend what a killed process left, delete by the rules, see that there is room."""
        make_folder(self._folder)
        try:
            self._lock.acquire(timeout=_LOCK_S)
        except filelock.Timeout:
            raise SinkError(
                f"{self._folder}: another recording writes there; give each camera its own folder"
            ) from None
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            raise SinkError(
                f"{self._folder}: cannot be written ({reason}); check the folder and its permissions"
            ) from error
        left = segments(self._folder)
        if left:
            mend(left[-1].path)
        self._tidy()
        check_room(self._folder, self._record.free_gb)

    def write(self, message: Message) -> None:
        """Add a packet; a keyframe may begin the next file."""
        if isinstance(message, Start):
            self._end_file()
            self._start = message
        elif isinstance(message, Packet) and self._start is not None:
            if message.keyframe:
                check_room(self._folder, self._record.free_gb)
                if self._file is not None and self._is_full(self._file, message):
                    self._end_file()
                self._file = self._file or self._begin(self._start, message)
            if self._file is not None:
                self._file.write(message)

    def idle(self) -> None:
        """Delete what is too old by now."""
        if time.monotonic() - self._tidied_at_s > _TIDY_S:
            self._tidy()

    def close(self) -> None:
        """Write the file's end, let the folder go."""
        try:
            self._end_file()
        finally:
            self._lock.release()

    def _is_full(self, file: DiskFile, keyframe: Packet) -> bool:
        seconds = (keyframe.pts - file.began_pts) * LIVE_TIME_BASE
        most = self._record.segment_mb * _MIB
        return seconds >= self._record.segment_s or (0 < most <= file.size)

    def _begin(self, start: Start, keyframe: Packet) -> DiskFile:
        self._tidy()
        age_s = time.monotonic() - keyframe.arrived_at_s if keyframe.arrived_at_s else 0.0
        began = datetime.fromtimestamp(time.time() - age_s, UTC)
        name = f"{began.strftime(_FORMAT)}Z.{self._record.container}"
        file = DiskFile(free_name(self._folder / name), start, keyframe)
        self.detail = f"writing {file.path.name}"
        return file

    def _end_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _tidy(self) -> None:
        """Delete segments by age and by the sum of their sizes, never the one that is being written."""
        self._tidied_at_s = time.monotonic()
        rules, writing = self._record, self._file.path if self._file is not None else None
        total = 0
        for segment in reversed(segments(self._folder)):
            total += segment.size
            ended_at = segment.began_at + segment.seconds
            old = rules.keep_days and time.time() - ended_at > rules.keep_days * _DAY_S
            beyond = rules.keep_gb and total > rules.keep_gb * _GIB
            if (old or beyond) and segment.path != writing:
                with contextlib.suppress(OSError):  # tried again with the next file
                    segment.path.unlink()


def _listed(folder: Path) -> Iterator[tuple[tuple[str, int], Path, float, os.stat_result]]:
    """Of each segment: its place in the order of time, its path, when it began by its name, its stat."""
    try:
        paths = list(folder.iterdir())
    except OSError:
        return
    for path in paths:
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        with contextlib.suppress(OSError, ValueError):  # deleted meanwhile; no such day
            began = datetime.strptime(match[1], _FORMAT).replace(tzinfo=UTC)
            yield (match[1], int((match[2] or "-1")[1:])), path, began.timestamp(), path.stat()


def _is_locked(folder: Path) -> bool:
    if not (folder / _LOCK).exists():
        return False
    lock = filelock.FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    except OSError:  # not ours to lock
        return False
    lock.release()
    return False
