"""Pictures -> a segment's file: encoded as for the output, kept without a container."""

from __future__ import annotations

import io
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import av
from av.container import OutputContainer
from av.stream import Stream

from stream.media.codecs import EncoderRecipe
from stream.media.container import open_video, video_stream
from stream.media.output import Encoder, PictureDurations, set_up_video
from stream.media.segment_file import PacketIndex, SegmentFile
from stream.picture.frame import StreamInfo
from stream.pipeline.cpu_budget import ordinary_priority


@dataclass(frozen=True, slots=True)
class SegmentEncoding:
    """How the pictures of every segment are encoded."""

    info: StreamInfo
    """The input's video."""
    shown: StreamInfo
    """The video as it will be."""
    destination: Path
    """The output: its container decides where the codec's headers go."""
    recipe: EncoderRecipe
    """The recipe, which is settled: it names its quality."""
    threads: int
    copy_parameters: bool
    """Whether what the input's container says of its pictures holds for the output."""


class SegmentEncoder:
    """Encodes one segment into a new file. Raises av.FFmpegError and OSError as they come."""

    def __init__(self, encoding: SegmentEncoding, path: Path, end_pts: int) -> None:
        """`end_pts`: where the last picture ends, as `PictureDurations`."""
        self._unit = encoding.info.time_base
        self._durations = PictureDurations(encoding.info, end_pts)
        self._file = SegmentFile(path)
        self._opened = ExitStack()
        self._opened.callback(self._file.close)
        try:
            self._encoder = _encoder(encoding, self._opened)
        except BaseException:
            self._opened.close()
            raise

    def write(self, picture: av.VideoFrame, pts: int) -> None:
        """Accept the next picture, its pts on the output's clock; the one before is encoded."""
        previous = self._durations.next(picture, pts)
        if previous is not None:
            self._store(self._encoder.encode(*previous))

    def finish(self) -> PacketIndex:
        """Encode what is left, have the file on disk, and return its index."""
        last = self._durations.last()
        if last is not None:
            self._store(self._encoder.encode(*last))
            self._store(self._encoder.drain())
        index = self._file.index(self._encoder.extradata)
        self._file.sync()
        self.close()
        return index

    def close(self) -> None:
        """Release the encoder and the file, which stays. Idempotent."""
        self._opened.close()

    def _store(self, packets: list[av.Packet[Stream]]) -> None:
        for packet in packets:
            if packet.time_base != self._unit and packet.pts is not None:
                packet.pts = round(packet.pts * packet.time_base / self._unit)
        self._file.write(packets)


def _encoder(encoding: SegmentEncoding, opened: ExitStack) -> Encoder:
    """The encoder that the output would have, set up on a container that is never written."""
    source = opened.enter_context(open_video(Path(encoding.info.path)))
    memory = io.BytesIO()
    memory.name = encoding.destination.name  # by it FFmpeg knows the container
    nowhere = av.open(memory, "w")
    opened.callback(_forget, nowhere)
    stream = nowhere.add_stream(encoding.recipe.encoder, rate=encoding.shown.rate or 25)
    assert isinstance(stream, av.VideoStream), "a recipe names an encoder of video"
    set_up_video(
        stream,
        video_stream(source),
        encoding.shown,
        encoding.recipe,
        encoding.threads,
        copy_parameters=encoding.copy_parameters,
        same_container=encoding.destination.suffix.lower() == Path(encoding.info.path).suffix.lower(),
    )
    encoder = Encoder(stream, encoding.shown, encoding.recipe, encoding.threads)
    ordinary_priority()
    return encoder


def _forget(container: OutputContainer) -> None:
    with suppress(av.FFmpegError, OSError, ValueError):  # nothing was to be written
        container.close()
