"""A video file that is being written: pictures are encoded, other streams are copied in step with them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av
from av.container import OutputContainer
from av.stream import Disposition, Stream
from av.video.reformatter import VideoReformatter

from stream.errors import EncodeError
from stream.media import codecs, encoder_setup, mov_boxes, remux
from stream.media.codecs import EncoderRecipe
from stream.media.encoder_traits import traits
from stream.media.opening import Opening
from stream.media.partial_file import PartialFile
from stream.media.remux import Copier
from stream.media.segment_file import EncodedPacket
from stream.picture.frame import StreamInfo

_FINEST_TIMESCALE = 10_000_000


class OutputFile:
    """The partial file while it is open. `opened` holds what `close` has to close: input and output.

    Raises av.FFmpegError and OSError as they come.
    """

    def __init__(
        self,
        container: OutputContainer,
        encoder: Encoder,
        copier: Copier,
        durations: PictureDurations,
        opening: Opening,
        opened: ExitStack,
    ) -> None:
        self.copier, self.durations = copier, durations
        self._container, self._encoder, self._opened = container, encoder, opened
        self._opening = opening

    def write(self, picture: av.VideoFrame, pts: int) -> None:
        """Accept the next picture, `pts` in units of the video's time base; the one before is encoded."""
        previous = self.durations.next(picture, pts)
        if previous is not None:
            self._mux(self._encoder.encode(*previous))

    def write_encoded(self, packets: Iterable[EncodedPacket]) -> Fraction | None:
        """Write a video that is encoded already; returns the end of its last picture, seconds."""
        end = None
        for encoded in packets:
            packet = av.Packet(encoded.data)
            packet.pts, packet.dts, packet.duration = encoded.pts, encoded.dts, encoded.duration
            packet.time_base, packet.is_keyframe = encoded.time_base, encoded.is_keyframe
            packet.stream = self._encoder.stream
            last = (encoded.pts + encoded.duration) * encoded.time_base
            end = last if end is None else max(end, last)
            self._mux([packet])
        return end

    def drain(self) -> None:
        """Encode the last picture and write what is left in the encoder."""
        last = self.durations.last()
        if last is not None:
            self._mux(self._encoder.encode(*last))
            self._mux(self._encoder.drain())

    def end(self, limit: Fraction | None) -> None:
        """Copy the rest of the other streams, up to `limit` seconds, and write the file's end."""
        container = self._container
        self._copy(limit)
        pictures = {s.index for s in container.streams if s.disposition & Disposition.attached_pic}
        container.close()
        self._opening.end()
        if pictures and container.format.name in remux.MOV:
            mov_boxes.drop_empty_tracks(self._opening.path, pictures)

    @property
    def extradata(self) -> bytes:
        """The codec's headers, as the open encoder wrote them."""
        return self._encoder.extradata

    def close(self) -> None:
        """Release both containers, whether or not the file has its end. Idempotent."""
        self._opened.close()

    def _mux(self, packets: list[av.Packet[Stream]]) -> None:
        for packet in packets:
            assert packet.dts is not None, "FFmpeg's encoders time every packet"
            self._copy(packet.dts * packet.time_base)
            self._mux_one(packet)

    def _copy(self, limit: Fraction | None) -> None:
        for packet in self.copier.packets_until(limit):
            self._mux_one(packet)

    def _mux_one(self, packet: av.Packet[Stream]) -> None:
        self._container.mux_one(packet)
        self._opening.add(packet)


class PictureDurations:
    """Sets the duration of every picture. It holds each back until the next one's time is known.

    end_pts: where the input's video ends, on the output's clock; 0: its container does not say.
    """

    def __init__(self, info: StreamInfo, end_pts: int) -> None:
        self.moved = False
        """Whether a time was not later than the one before, and was moved up by one unit."""
        self._info, self._end_pts = info, end_pts
        self._held: tuple[av.VideoFrame, int] | None = None

    def next(self, picture: av.VideoFrame, pts: int) -> tuple[av.VideoFrame, int] | None:
        """Hold `picture`; returns the one held before, with its duration, and its pts."""
        previous = self._held
        if previous is not None and pts <= previous[1]:
            self.moved = True
            pts = previous[1] + 1
        picture.pts, picture.time_base = pts, self._info.time_base
        if previous is not None:
            previous[0].duration = pts - previous[1]
        self._held = picture, pts
        return previous

    def last(self) -> tuple[av.VideoFrame, int] | None:
        """The last picture and its pts. It ends where the stream ends, if the container tells that."""
        if self._held is None:
            return None
        (picture, pts), info = self._held, self._info
        usual = round(1 / (info.rate * info.time_base)) if info.rate else picture.duration
        left = self._end_pts - pts
        picture.duration = left if 0 < left <= 4 * usual else (picture.duration or usual)
        return self._held

    def end(self) -> Fraction:
        """The end of the last picture by the frame rate, in seconds of the output's clock."""
        step = 1 / Fraction(self._info.rate) if self._info.rate else Fraction(1, 25)
        last_pts = 0 if self._held is None else self._held[1]
        return last_pts * self._info.time_base + step


class Encoder:
    """Pictures -> packets of the video stream. Times are in the input's time base, which the stream has too.

    recipe: the settled one, by which the stream was configured. shown: the pictures that come.
    Raises av.FFmpegError.
    """

    def __init__(
        self, stream: av.VideoStream, shown: StreamInfo, recipe: EncoderRecipe, threads: int
    ) -> None:
        self.recipe, self.stream = recipe, stream
        self._colour, self._unit = shown.colour, shown.time_base
        self._threads = threads
        self._reformatter = VideoReformatter()
        self._counts = traits(recipe.encoder).counts_frames
        """Whether the encoder counts frames instead of using their times."""
        self._times: list[tuple[int, int]] = []
        """Pts and duration of every picture so far, if the encoder counts frames."""

    def encode(self, picture: av.VideoFrame, pts: int) -> list[av.Packet[Stream]]:
        """The packets that a picture completes; its duration is set, `pts` is in units of the time base."""
        if picture.format.name != self.recipe.pix_fmt:
            picture = self._converted(picture)
        if self._counts:
            picture.pts, picture.time_base = len(self._times), self.stream.codec_context.time_base
            self._times.append((pts, picture.duration))
            picture.duration = 1
        return self._timed(self.stream.encode(picture))

    @property
    def extradata(self) -> bytes:
        """The codec's headers; empty before the encoder is open, and where they lie in the packets."""
        return bytes(self.stream.codec_context.extradata or b"")

    def drain(self) -> list[av.Packet[Stream]]:
        """The packets that are left after the last picture."""
        return self._timed(self.stream.encode(None))

    def _converted(self, picture: av.VideoFrame) -> av.VideoFrame:
        """The picture in the encoder's pixel format; matrix and range change only where they must."""
        context = self.stream.codec_context
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


def muxer_of(destination: Path) -> str:
    """FFmpeg's name of the muxer for a file's ending. Raises EncodeError where there is none."""
    try:
        with av.open(str(destination.absolute()), "w") as container:  # makes no file before it is started
            return container.format.name
    except ValueError:
        raise EncodeError(
            f"{destination}: the ending {destination.suffix or '(none)'} names no video "
            "container; use .mp4, .mkv or .mov"
        ) from None


def create_container(file: PartialFile, muxer: str, time_base: Fraction) -> OutputContainer:
    """The unfinished file with its muxer's options, nothing written yet.

    muxer: by FFmpeg's name. time_base: the video's. Raises av.FFmpegError.
    """
    options = {"flush_packets": "1", "max_interleave_delta": "1000000"}
    output = av.open(file.name_to_open, "w", format=muxer)
    if output.format.name in remux.MOV:
        options |= {
            "movflags": "hybrid_fragmented+delay_moov+frag_keyframe",
            "min_frag_duration": "900000",
            "avoid_negative_ts": "disabled",
            "use_editlist": "1",
            "video_track_timescale": str(time_base.denominator),
        }
    elif output.format.name == "mpegts":
        options |= {"mpegts_copyts": "1"}
    output.container_options.update(options)
    return output


def set_up_video(
    stream: av.VideoStream,
    main: av.VideoStream,
    info: StreamInfo,
    recipe: EncoderRecipe,
    threads: int,
    *,
    copy_parameters: bool,
    same_container: bool,
) -> None:
    """Set up the output's video stream and its encoder, which is not opened yet.

    main: the input's stream, whose metadata is copied. info: the pictures that will be encoded.
    copy_parameters: what the input's container says of its pictures holds for them, too. same_container:
    the output is of the input's kind, so that the codec's tag stays.
    """
    context = stream.codec_context
    if copy_parameters and recipe.codec == codecs.canonical(info.codec):
        # Copies all that the container knows of the stream: colour, aspect, rotation, HDR, spherical.
        av.BitStreamFilterContext("null", in_stream=main, out_stream=stream)
        context.extradata = None
        context.bit_rate = 0
        context.level = -99
        if not same_container:
            context.codec_tag = "\0\0\0\0"
    encoder_setup.configure(context, info, recipe, main.codec_context, threads)
    if len(info.display_matrix) >= 36:
        stream.set_display_matrix(memoryview(info.display_matrix[:36]).cast("i"))
    stream.time_base = info.time_base
    stream.metadata.update(remux.stream_metadata(main.metadata))
    stream.disposition = main.disposition
    stream.id = main.id


def movie_timescale(output: OutputContainer, source: Path | None) -> int:
    """Units a second of the edit lists: those of `source`, else such that every start is exact."""
    if source is not None and (scale := mov_boxes.movie_timescale(source)):
        return scale
    scale = 1000
    for stream in output.streams:
        finer = math.lcm(scale, stream.time_base.denominator) if stream.time_base else scale
        scale = finer if finer <= _FINEST_TIMESCALE else scale
    return scale
