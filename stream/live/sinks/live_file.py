"""A sink that records everything into one file."""

from __future__ import annotations

from pathlib import Path

from stream.live.packets import EpochStart, Message, Packet
from stream.live.sinks import SinkSpec
from stream.live.sinks.disk_file import DiskFile, check_free_space, make_folder, unused_path
from stream.live.sinks.sink import LiveSink, same_coding


class LiveFileSink(LiveSink):
    """Nothing is overwritten: NAME-2.mp4 where NAME.mp4 is there, or where an epoch is coded otherwise."""

    def __init__(self, spec: SinkSpec) -> None:
        path = Path(spec.target)
        self._path, self._free_gb = path.with_stem(path.stem + spec.suffix), spec.record.free_gb
        self._start: EpochStart | None = None
        self._file: DiskFile | None = None

    def open(self) -> None:
        """Make the folder and check the free space; the file is made for the first keyframe."""
        make_folder(self._path.parent)
        check_free_space(self._path.parent, self._free_gb)

    def write(self, message: Message) -> None:
        """Add a packet; each keyframe checks the free space first."""
        if isinstance(message, EpochStart):
            if not same_coding(self._start, message):
                self.close()
            self._start = message
        elif isinstance(message, Packet) and self._start is not None:
            if message.keyframe:
                check_free_space(self._path.parent, self._free_gb)
                self._file = self._file or self._begin(self._start, message)
            if self._file is not None:
                self._file.write(message)

    def close(self) -> None:
        """Write the file's end."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _begin(self, start: EpochStart, keyframe: Packet) -> DiskFile:
        path = unused_path(self._path)
        self.detail = f"writing {path.name}"
        return DiskFile(path, start, keyframe)
