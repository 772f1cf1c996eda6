"""One file: an ordinary mp4 once it is closed, playable to its last second when it never was."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Mapping
from pathlib import Path

import av

from stream.errors import StreamError
from stream.packets import Message, Packet, Start
from stream.sinks import SinkSpec
from stream.sinks.base import SinkError, same_coding
from stream.sinks.muxer import Muxer

_OPTIONS = {
    ".mp4": {"movflags": "hybrid_fragmented+delay_moov+frag_keyframe+default_base_moof",
             "frag_duration": "1000000"},
    ".mkv": {"cluster_time_limit": "1000"},
}  # fmt: skip


class FileSink:
    """Nothing is overwritten: NAME-2.mp4 where NAME.mp4 is there, or where a take is coded otherwise."""

    wanted = True

    def __init__(self, spec: SinkSpec) -> None:
        self.detail = ""
        self._path = Path(spec.target)
        self._start: Start | None = None
        self._muxer: Muxer | None = None

    def open(self) -> None:
        """See that there is a folder; the file begins with the first picture."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(self._path.parent, error) from error

    def write(self, message: Message) -> None:
        """Add a packet."""
        if isinstance(message, Start):
            if not same_coding(self._start, message):
                self.close()
            self._start = message
        elif isinstance(message, Packet):
            with WriteErrors(self._path):
                if self._muxer is None and message.keyframe:
                    self._muxer = self._begin(message)
                if self._muxer is not None:
                    self._muxer.write(message)

    def idle(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Write the file's end."""
        muxer, self._muxer = self._muxer, None
        if muxer is not None:
            with WriteErrors(self._path):
                muxer.close()

    def _begin(self, keyframe: Packet) -> Muxer:
        path = free_name(self._path)
        self.detail = f"writing {path.name}"
        return new_file(path, self._start, keyframe, _OPTIONS[path.suffix.lower()])


def new_file(path: Path, start: Start, keyframe: Packet, options: Mapping[str, str]) -> Muxer:
    """A container on disk; nothing is left behind where its header cannot be written."""
    try:
        return Muxer(str(path), start, keyframe, options=options)
    except (av.FFmpegError, OSError):
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def free_name(path: Path) -> Path:
    """The path itself, or the first of NAME-2, NAME-3 ... that is free."""
    candidate, number = path, 2
    while candidate.exists():
        candidate, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
    return candidate


class WriteErrors:
    """Turns FFmpeg's and the system's errors into one line about a path."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, (av.FFmpegError, OSError)) and not isinstance(error, StreamError):
            raise write_error(self._path, error) from error


def write_error(path: Path, error: Exception) -> SinkError:
    """Why a path cannot be written, in one line."""
    code = getattr(error, "errno", None)
    reason = (getattr(error, "strerror", None) or type(error).__name__).lower()
    if code in (errno.ENOSPC, errno.EDQUOT):
        return SinkError(f"{path}: the disk is full; recording goes on when there is room", event="disk_low")
    return SinkError(f"{path}: cannot be written ({reason}); check the folder and its permissions")
