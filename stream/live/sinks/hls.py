"""A sink that writes HLS, a playlist and segments of one second, into a folder for a web server."""

from __future__ import annotations

import re
import time
from pathlib import Path

import av

from stream.live.packets import EpochStart, Message, Packet
from stream.live.sinks import SinkSpec
from stream.live.sinks.disk_file import make_folder, write_error
from stream.live.sinks.muxer import Muxer
from stream.live.sinks.sink import LiveSink, same_coding

PLAYLIST = "live.m3u8"
_NAME = re.compile(r"live-(\d+)(?:-L\d+)?\.ts")
_LISTED, _UNLISTED = 6, 6
"""Segments in the playlist, and older ones that are kept because players may still be loading them."""
_STALE_S = 30.0
"""An older playlist is deleted, not continued: a player would begin with its old pictures."""
_END = "#EXT-X-ENDLIST\n"


class HlsSink(LiveSink):
    """Begins a segment with each second's keyframe.

    A new epoch, and a process that was restarted, continue the same playlist after a discontinuity. No
    segment number is used twice.
    """

    def __init__(self, spec: SinkSpec) -> None:
        self._folder, self._suffix = Path(spec.target), spec.suffix
        self._start: EpochStart | None = None
        self._muxer: Muxer | None = None
        self._failed = False

    def open(self) -> None:
        """Make the folder; delete a stale playlist with its segments."""
        make_folder(self._folder)
        playlist = self._folder / PLAYLIST
        try:
            if playlist.exists() and time.time() - playlist.stat().st_mtime > _STALE_S:
                playlist.unlink()
                for path in self._segments():
                    path.unlink()
        except OSError as error:
            raise write_error(self._folder, error) from error

    def write(self, message: Message) -> None:
        """Add a packet."""
        try:
            if isinstance(message, EpochStart):
                if not same_coding(self._start, message):
                    self._end_epoch()
                self._start = message
            elif isinstance(message, Packet):
                if self._muxer is None and message.keyframe and self._start is not None:
                    self._muxer = self._begin(self._start, message)
                if self._muxer is not None:
                    self._muxer.write(message)
                if message.keyframe:
                    self._prune()
        except (av.FFmpegError, OSError) as error:
            self._failed = True
            raise write_error(self._folder, error) from error

    def close(self) -> None:
        """End the last segment and, if nothing failed, mark the end of the playlist, where players stop."""
        playlist = self._folder / PLAYLIST
        try:
            self._end_epoch()
            if self._start is not None and not self._failed and playlist.exists():
                with playlist.open("a") as file:
                    file.write(_END)
        except (av.FFmpegError, OSError) as error:
            raise write_error(self._folder, error) from error

    def _begin(self, start: EpochStart, keyframe: Packet) -> Muxer:
        self.detail = f"writing {PLAYLIST}"
        options = {
            "hls_time": "1",
            "hls_list_size": str(_LISTED),
            "hls_flags": "append_list+independent_segments+omit_endlist+program_date_time+temp_file",
            "hls_segment_filename": str(self._folder).replace("%", "%%") + f"/live-%d{self._suffix}.ts",
            "hls_start_number_source": "epoch",
        }
        return Muxer(str(self._folder / PLAYLIST), start, keyframe, format="hls", options=options)

    def _end_epoch(self) -> None:
        muxer, self._muxer = self._muxer, None
        if muxer is not None:
            muxer.close()

    def _segments(self) -> list[Path]:
        """Paths of the segments in the folder, oldest first."""
        named = ((path, _NAME.fullmatch(path.name)) for path in self._folder.iterdir())
        numbered = [(int(match[1]), path) for path, match in named if match is not None]
        return [path for _, path in sorted(numbered)]

    def _prune(self) -> None:
        """Delete old segments. FFmpeg does not know those of earlier epochs and processes."""
        for path in self._segments()[: -_LISTED - _UNLISTED]:
            path.unlink(missing_ok=True)
