"""The container of a video file: opened with clear errors, its main stream found, its pictures decoded."""

from __future__ import annotations

from collections.abc import Generator
from fractions import Fraction
from pathlib import Path

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.stream import Disposition

from stream.errors import SourceError
from stream.picture.frame import StreamInfo

Window = tuple[Fraction | None, Fraction | None]
"""A part of a file: (start, end) in seconds of its own clock. None: from its beginning, to its end."""

PtsWindow = tuple[int | None, int | None]
"""The same in units of the video's time base: its first pts, and the pts at which it ends."""

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".mxf", ".wmv",
    ".asf", ".flv", ".f4v", ".3gp", ".vob", ".ogv", ".dv", ".y4m", ".nut",
)  # fmt: skip
"""Endings of the names of video files."""
_GIVE_UP_AFTER = 250
"""Lost packets in a row after which the rest of the file counts as lost."""


def open_video(path: Path, hwaccel: HWAccel | None = None) -> InputContainer:
    """Open a container that holds a video stream. Raises SourceError.

    With `hwaccel` it also raises av.FFmpegError where the device fails, and RuntimeError where the device
    fits no stream.
    """
    if not path.exists():
        raise SourceError(f"{path}: no such file; check the path")
    if path.is_dir():
        raise SourceError(f"{path}: is a folder; name a file, or give a folder as OUTPUT too")
    if path.stat().st_size == 0:
        raise SourceError(f"{path}: is empty; copy it again")
    try:  # absolute: in a relative name FFmpeg would read the part before a colon as a protocol
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


def window_pts(info: StreamInfo, start_s: float | None = None, duration_s: float | None = None) -> PtsWindow:
    """The part of the video that begins `start_s` seconds after its first picture and lasts `duration_s`."""
    start = None if start_s is None else info.start_pts + round(start_s / info.time_base)
    first = info.start_pts if start is None else start
    return start, None if duration_s is None else first + round(duration_s / info.time_base)


def main_stream(container: InputContainer) -> av.VideoStream | None:
    """The video stream to restore: the default one, else the first. None where there is no such.

    Cover pictures do not count.
    """
    moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    usable = [s for s in moving if s.codec_context is not None]
    chosen = [s for s in usable if s.disposition & Disposition.default]
    return next(iter(chosen or usable), None)


def video_stream(container: InputContainer) -> av.VideoStream:
    """The video stream to restore of a container that `open_video` gave. Raises SourceError."""
    stream = main_stream(container)
    if stream is None:
        raise SourceError(f"{container.name}: holds no video stream; name a video")
    return stream


def _reason(error: av.FFmpegError) -> str:
    return (error.strerror or type(error).__name__).lower()


class Damage:
    """Counts of damaged packets."""

    def __init__(self) -> None:
        self.packets = 0
        """Packets that were lost or damaged."""
        self.lost_in_a_row = 0
        self.ended_early = False
        """Whether decoding stopped because too many packets in a row were lost."""

    def count_lost(self) -> None:
        """Count a packet that could not be decoded."""
        self.packets += 1
        self.lost_in_a_row += 1

    def count_damaged(self) -> None:
        """Count a packet that was marked as damaged, but could be decoded."""
        self.packets += 1


def decoded_pictures(
    container: InputContainer, stream: av.VideoStream, damage: Damage
) -> Generator[av.VideoFrame, None, None]:
    """Pictures in the decoder's order; a packet that cannot be decoded is counted and skipped."""
    packets = container.demux(stream)
    while damage.lost_in_a_row <= _GIVE_UP_AFTER:
        try:
            packet = next(packets, None)
        except av.EOFError:
            return
        except av.FFmpegError:  # ends the generator: a new one continues behind the damage
            damage.count_lost()
            packets = container.demux(stream)
            continue
        if packet is None:
            return
        try:
            pictures = packet.decode()
        except av.EOFError:
            return
        except av.FFmpegError:
            damage.count_lost()
            continue
        damage.lost_in_a_row = 0
        if packet.is_corrupt:
            damage.count_damaged()
        yield from pictures
    damage.ended_early = True
