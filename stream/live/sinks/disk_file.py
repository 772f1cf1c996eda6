"""Container files on disk that can be played to their last second even after a crash or on a full disk."""

from __future__ import annotations

import contextlib
import errno
import shutil
from pathlib import Path

import av

from stream.live.packets import EpochStart, Packet
from stream.live.sinks.muxer import Muxer
from stream.live.sinks.sink import SinkError
from stream.media import mov_boxes

_OPTIONS = {
    # A growing file consists of fragments of a second; a closed one is an ordinary file with an index.
    ".mp4": {"movflags": "hybrid_fragmented+delay_moov+frag_keyframe+default_base_moof",
             "frag_duration": "1000000"},
    ".mkv": {"cluster_time_limit": "1000"},
}  # fmt: skip
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_GIB = 1 << 30


class DiskFile:
    """One file, which begins at a keyframe. Its methods raise SinkError, which names the file."""

    def __init__(self, path: Path, start: EpochStart, keyframe: Packet) -> None:
        self.path = path
        self.began_pts = keyframe.pts
        self.size = 0
        """Bytes of the packets written; the container adds a few per cent."""
        try:
            self._muxer = Muxer(str(path), start, keyframe, options=_OPTIONS[path.suffix.lower()])
        except (av.FFmpegError, OSError) as error:
            with contextlib.suppress(OSError):
                path.unlink()  # without a header nothing can be read
            raise write_error(path, error) from error

    def write(self, packet: Packet) -> None:
        """Add a packet."""
        try:
            self._muxer.write(packet)
        except (av.FFmpegError, OSError) as error:
            raise write_error(self.path, error) from error
        self.size += len(packet.data)

    def close(self) -> None:
        """Write the index; where that fails the file is cut behind its last whole second."""
        try:
            self._muxer.close()
        except (av.FFmpegError, OSError) as error:
            repair(self.path)
            raise write_error(self.path, error) from error


def repair(path: Path) -> None:
    """Cut an incomplete fragment off the end of an mp4 file; mkv needs no such repair."""
    if path.suffix.lower() == ".mp4":
        with contextlib.suppress(OSError):
            mov_boxes.drop_torn_end(path)


def make_folder(folder: Path) -> None:
    """Make sure that the folder exists. Raises SinkError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error


def unused_path(path: Path) -> Path:
    """The path itself or, where it exists, the first of NAME-2, NAME-3 ... that does not."""
    candidate, number = path, 2
    while candidate.exists():
        candidate, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
    return candidate


def check_free_space(folder: Path, free_gb: float) -> None:
    """Raises SinkError where the disk has less than `free_gb` GiB free."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise write_error(folder, error) from error
    if free < free_gb * _GIB:
        raise SinkError(
            f"{folder}: only {free / _GIB:.2f} GiB free, less than record.free_gb {free_gb:g}; "
            "recording goes on when there is room",
            event="disk_low",
        )


def write_error(path: Path, error: av.FFmpegError | OSError) -> SinkError:
    """The SinkError that says why a path cannot be written."""
    if error.errno in _FULL:
        return SinkError(f"{path}: the disk is full; recording goes on when there is room", event="disk_low")
    reason = (error.strerror or type(error).__name__).lower()
    return SinkError(f"{path}: cannot be written ({reason}); check the folder and its permissions")
