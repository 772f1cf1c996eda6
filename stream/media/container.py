"""A video file's container, opened with care; shared by the decoder and the encoder."""

from __future__ import annotations

from collections.abc import Generator
from fractions import Fraction
from pathlib import Path

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.stream import Disposition

from stream.errors import SourceError

Window = tuple[Fraction | None, Fraction | None]
"""A part of a file: (start, end) in seconds of its own clock. None: from its beginning, to its end."""

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".mxf", ".wmv",
    ".asf", ".flv", ".f4v", ".3gp", ".vob", ".ogv", ".dv", ".y4m", ".nut",
)  # fmt: skip
"""What the names of videos end like."""
_GIVE_UP_AFTER = 250
"""Damaged packets in a row after which the rest of the file is taken as lost."""


def open_video(path: Path, hwaccel: HWAccel | None = None) -> InputContainer:
    """Open a container that holds a video stream; SourceError, in one line, says why not.

    With `hwaccel` its errors come as they are: av.FFmpegError, or RuntimeError where it fits no stream.
    """
    if not path.exists():
        raise SourceError(f"{path}: no such file; check the path")
    if path.is_dir():
        raise SourceError(f"{path}: is a folder; name a file, or give a folder as OUTPUT too")
    if path.stat().st_size == 0:
        raise SourceError(f"{path}: is empty; copy it again")
    try:  # absolute: in a relative name FFmpeg would take what stands before a colon as a protocol
        container = av.open(
            str(path.absolute()),
            metadata_errors="replace",
            options={"protocol_whitelist": "file"},
            hwaccel=hwaccel,
        )
    except av.FFmpegError as error:
        if hwaccel is not None:
            raise
        reason = "cannot be read" if isinstance(error, av.PermissionError) else "not a video that can be read"
        raise SourceError(f"{path}: {reason} ({_reason(error)}); is it whole?") from error
    if container.format.name == "tty":  # FFmpeg would film a text file
        container.close()
        raise SourceError(f"{path}: is a text file; name a video")
    if main_stream(container) is None:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        container.close()
        raise SourceError(f"{path}: holds no video stream, only {kinds}; name a video")
    return container


def main_stream(container: InputContainer) -> av.VideoStream | None:
    """The video stream to restore: the default one, else the first, cover pictures aside; None: no such."""
    moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    usable = [s for s in moving if s.codec_context is not None]
    chosen = [s for s in usable if s.disposition & Disposition.default]
    return next(iter(chosen or usable), None)


def video_stream(container: InputContainer) -> av.VideoStream:
    """The video stream to restore of a container from `open_video`. Raises SourceError where it has none."""
    stream = main_stream(container)
    if stream is None:
        raise SourceError(f"{container.name}: holds no video stream; name a video")
    return stream


def _reason(error: av.FFmpegError) -> str:
    return (error.strerror or type(error).__name__).lower()


class Damage:
    """Counts of what could not be decoded."""

    def __init__(self) -> None:
        self.packets = 0
        self.in_a_row = 0
        self.ended_early = False

    def count(self) -> None:
        """One more packet is lost."""
        self.packets += 1
        self.in_a_row += 1

    def mark(self) -> None:
        """One more packet came damaged, and was decoded all the same."""
        self.packets += 1


def pictures(
    container: InputContainer, stream: av.VideoStream, damage: Damage
) -> Generator[av.VideoFrame, None, None]:
    """Decoded pictures; a packet that fails is counted and skipped."""
    packets = container.demux(stream)
    while damage.in_a_row <= _GIVE_UP_AFTER:
        try:
            packet = next(packets, None)
        except av.EOFError:
            return
        except av.FFmpegError:  # ends the generator: a new one goes on behind the damage
            damage.count()
            packets = container.demux(stream)
            continue
        if packet is None:
            return
        try:
            pictures = packet.decode()
        except av.EOFError:
            return
        except av.FFmpegError:
            damage.count()
            continue
        damage.in_a_row = 0
        if packet.is_corrupt:
            damage.mark()
        yield from pictures
    damage.ended_early = True
