"""A video file that is being written: pictures are encoded, other streams are copied in step with them."""

from __future__ import annotations

from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av
from av.container import OutputContainer
from av.stream import Disposition, Stream
from av.video.reformatter import VideoReformatter

from stream.media import codecs, mov_boxes, remux
from stream.media.codecs import EncoderRecipe
from stream.media.remux import Copier
from stream.picture.frame import StreamInfo


class Output:
    """The partial file while it is open. `opened` holds what `close` has to close: input and output.

    Raises av.FFmpegError and OSError as they come.
    """

    def __init__(
        self, container: OutputContainer, encoder: Encoder, copier: Copier, opened: ExitStack
    ) -> None:
        self.copier = copier
        self._container, self._encoder, self._opened = container, encoder, opened

    def write(self, picture: av.VideoFrame, pts: int) -> None:
        """Encode a picture whose duration is set; `pts` in units of the video's time base."""
        self._mux(self._encoder.encode(picture, pts))

    def drain(self) -> None:
        """Write what the encoder holds back; no picture follows."""
        self._mux(self._encoder.drain())

    def end(self, limit: Fraction | None) -> None:
        """Copy the rest of the other streams, as far as `limit` in seconds, and write the file's end."""
        container = self._container
        self._copy(limit)
        pictures = {s.index for s in container.streams if s.disposition & Disposition.attached_pic}
        container.close()
        if pictures and container.format.name in remux.MOV:
            mov_boxes.drop_empty_tracks(Path(container.name), pictures)

    def close(self) -> None:
        """Release both containers, whether or not the file has its end. Idempotent."""
        self._opened.close()

    def _mux(self, packets: list[av.Packet[Stream]]) -> None:
        for packet in packets:
            assert packet.dts is not None, "FFmpeg's encoders time every packet"
            self._copy(packet.dts * packet.time_base)
            self._container.mux_one(packet)

    def _copy(self, limit: Fraction | None) -> None:
        for packet in self.copier.until(limit):
            self._container.mux_one(packet)


class Encoder:
    """Pictures -> packets of the video stream. Times are in the input's time base, which the stream has too.

    recipe: the settled one, by which the stream was configured. shown: the pictures that come.
    Raises av.FFmpegError.
    """

    def __init__(
        self, stream: av.VideoStream, shown: StreamInfo, recipe: EncoderRecipe, threads: int
    ) -> None:
        self.recipe = recipe
        self._stream, self._colour, self._unit = stream, shown.colour, shown.time_base
        self._threads = threads
        self._reformatter = VideoReformatter()
        self._counts = recipe.encoder in codecs.COARSE_TIME
        """Whether the encoder counts frames instead of taking their times."""
        self._times: list[tuple[int, int]] = []
        """With such an encoder: pts and duration of every picture so far."""

    def encode(self, picture: av.VideoFrame, pts: int) -> list[av.Packet[Stream]]:
        """The packets that a picture makes ready; its duration is set, `pts` is in units of the time base."""
        if picture.format.name != self.recipe.pix_fmt:
            picture = self._converted(picture)
        if self._counts:
            picture.pts, picture.time_base = len(self._times), self._stream.codec_context.time_base
            self._times.append((pts, picture.duration))
            picture.duration = 1
        return self._timed(self._stream.encode(picture))

    def drain(self) -> list[av.Packet[Stream]]:
        """The packets that are left after the last picture."""
        return self._timed(self._stream.encode(None))

    def _converted(self, picture: av.VideoFrame) -> av.VideoFrame:
        """In the encoder's pixel format; matrix and range change only where they must."""
        context = self._stream.codec_context
        old = self._colour
        matrix = old.matrix or 2  # 0 is RGB itself
        result = self._reformatter.reformat(
            picture,
            format=self.recipe.pix_fmt,
            src_colorspace=matrix,
            dst_colorspace=context.colorspace or matrix,
            src_color_range=2 if old.range_full else 1,
            dst_color_range=context.color_range or 1,
            threads=self._threads,
        )
        result.pts, result.time_base, result.duration = picture.pts, picture.time_base, picture.duration
        return result

    def _timed(self, packets: list[av.Packet[Stream]]) -> list[av.Packet[Stream]]:
        """The packets with their true times, where the encoder counted frames."""
        if self._counts:
            for packet in packets:
                assert packet.pts is not None and packet.dts is not None, "it counts every frame"
                duration = self._times[packet.pts][1]
                pts, dts = self._true_time(packet.pts), self._true_time(packet.dts)
                packet.time_base = self._unit
                packet.pts, packet.dts, packet.duration = pts, dts, duration
        return packets

    def _true_time(self, index: int) -> int:
        if index >= 0:
            return self._times[index][0]
        return self._times[0][0] + index * self._times[0][1]
