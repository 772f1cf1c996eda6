"""Frames -> file: the video encoded as it came, every other stream copied."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer, OutputContainer
from av.stream import Disposition

from stream.config import Encode
from stream.errors import EncodeError, HardwareError
from stream.media import codecs, hardware, mov_boxes, quality_trial, remux
from stream.media.container import Window, open_video, video_stream
from stream.media.limits import check_size
from stream.media.output import Encoder, Output
from stream.media.remux import Copier
from stream.picture.face import FrameWork
from stream.picture.frame import StreamInfo
from stream.pipeline.cpu_budget import ordinary_priority
from stream.pipeline.stage import Sink


def check_destination(source: Path, destination: Path, overwrite: bool) -> None:
    """Refuse an output that cannot be written, before any work is done. Raises EncodeError."""
    folder = destination.parent
    if not folder.is_dir():
        raise EncodeError(f"{destination}: the folder {folder} does not exist; make it first")
    if destination.is_dir():
        raise EncodeError(f"{destination}: is a folder; name a file")
    if destination.exists():
        if not destination.is_file():
            raise EncodeError(f"{destination}: is no regular file; name another output")
        if source.exists() and destination.samefile(source):
            raise EncodeError(f"{destination}: is the input itself; name another output")
        if not overwrite:
            raise EncodeError(f"{destination}: exists; name another output or add --overwrite")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise EncodeError(f"{destination}: no permission to write in {folder}; choose another folder")


class FileSink(Sink):
    """The last stage: encodes frames into a hidden partial file beside the destination.

    One thread opens, feeds and flushes it; `finish` or `discard` come afterwards. `notes` says in
    words what could not be kept as it was.
    """

    def __init__(
        self,
        info: StreamInfo,
        destination: Path,
        config: Encode,
        *,
        overwrite: bool = False,
        allow_loss: bool = False,
        start_s: float | None = None,
        duration_s: float | None = None,
        restored_note: str = "",
        upscale: int = 1,
        carry: bool = True,
        cut_short: Callable[[], bool] = lambda: False,
    ) -> None:
        """`carry`: what the input's stream says of its pictures holds for those that come, too.

        `cut_short` is asked at the end whether the source was left early: then the sound ends with the
        picture.
        """
        self.info = info
        self._shown = info.enlarged(upscale) if upscale > 1 else info
        self.destination = Path(destination)
        self.frames_out = 0
        self.notes: list[str] = []
        self._config = config
        self._allow_loss, self._carry = allow_loss, carry
        self._note, self._cut_short = restored_note, cut_short
        check_destination(Path(info.path), self.destination, overwrite)
        self.recipe = codecs.recipe(self._shown, config)
        if upscale > 1:
            check_size(self._shown, self.recipe)
        self.notes.extend(self.recipe.notes)
        unit = info.time_base
        self._from_pts = 0 if start_s is None else info.start_pts + round(start_s / unit)
        first = info.start_pts if start_s is None else self._from_pts
        end = None if duration_s is None else (first + round(duration_s / unit)) * unit
        self._window: Window = (None if start_s is None else self._from_pts * unit, end)
        self.partial = self.destination.with_name(
            f".{self.destination.stem}.partial{self.destination.suffix}"
        )
        self._output: Output | None = None
        self._end_pts = 0
        """Where the input's video ends, on the output's clock; 0: the container does not say."""
        self._held: tuple[av.VideoFrame, int] | None = None
        """The last picture and its pts: it is encoded once its duration is known."""

    def open(self) -> None:
        """Open the input for the copied streams and make the partial file."""
        info = self.info
        with self._errors(), ExitStack() as opened:
            source = open_video(Path(info.path))
            opened.callback(_close, source)
            output = self._create()
            opened.callback(_close, output)
            self._settle()
            main = video_stream(source)
            muxer = output.format.name
            if main.duration is not None:
                self._end_pts = (main.start_time or 0) + main.duration - self._from_pts
            metadata = remux.container_metadata(source)
            metadata = remux.with_note(muxer, metadata, self._note)
            covers = any(s.disposition & Disposition.attached_pic for s in source.streams)
            # With free keys the muxer writes no cover picture (measured).
            keys = remux.needs_keys(muxer, metadata) and not covers
            if keys:
                output.container_options["movflags"] += "+use_metadata_tags"
            same = self.destination.suffix.lower() == Path(info.path).suffix.lower()
            shift = self._from_pts * info.time_base
            dynamic = quality_trial.dynamic_hdr(info)
            stream = self._add_video(output, main, same, carry=self._carry and not dynamic)
            copier = Copier(source, main, output, same=same, window=self._window, shift=shift)
            copier.add_streams()
            self.notes.extend(copier.notes)
            tags = remux.unheld(source, muxer, metadata, keys)
            self._check_losses(copier.losses + dynamic + tags)
            if muxer in remux.MOV:
                output.container_options["movie_timescale"] = str(self._movie_timescale(output))
            output.metadata.update(metadata)
            output.set_chapters(remux.chapters(source, self._window, shift))
            output.start_encoding()
            encoder = Encoder(stream, self._shown, self.recipe, self._config.threads)
            self._output = Output(output, encoder, copier, opened.pop_all())
        ordinary_priority()

    def _settle(self) -> None:
        """Settle the quality, and whether a hardware encoder does the work."""
        rivals = codecs.rivals(self.info, self.recipe, self._config)
        known = set(self.recipe.notes)
        self.recipe = quality_trial.settle(self.info, self.recipe, self._config.threads, self._window, rivals)
        self.notes.extend(note for note in self.recipe.notes if note not in known)
        if self._config.hardware == "auto" and not rivals:
            self.notes.append(f"{self.info.path}: encoded by {self.recipe.encoder}, no hardware suits it")

    def _check_losses(self, losses: list[str]) -> None:
        if not losses:
            return
        if not self._allow_loss:
            raise EncodeError(
                f"{self.destination}: would lose {', '.join(losses)} of {self.info.path}; "
                "choose another ending or add --allow-loss"
            )
        self.notes.append(f"{self.destination}: lost {', '.join(losses)}")

    def process(self, work: FrameWork) -> Iterable[None]:
        """Take one frame; the one before it is encoded, its duration now being known."""
        output = self._opened()
        picture = work.frame.picture
        pts = work.frame.time.pts - self._from_pts
        if self._held is not None and pts <= self._held[1]:
            note = f"{self.info.path}: times that do not rise were moved up"
            if note not in self.notes:
                self.notes.append(note)
            pts = self._held[1] + 1
        picture.pts, picture.time_base = pts, self.info.time_base
        picture.pict_type = 0  # else the old stream's types would be forced on the encoder
        if self._held is not None:
            previous, its_pts = self._held
            previous.duration = pts - its_pts
            with self._errors():
                output.write(previous, its_pts)
        self._held = picture, pts
        self.frames_out += 1
        return ()

    def flush(self) -> Iterable[None]:
        """Drain the encoder, copy the rest of the other streams, write the file's end."""
        output = self._opened()
        with self._errors():
            if self._held is not None:
                last, its_pts = self._held
                last.duration = self._last_duration(last, its_pts)
                output.write(last, its_pts)
                output.drain()
            output.end(self._end_of_video() if self._cut_short() else None)
        return ()

    def close(self) -> None:
        """Release both containers; the partial file stays."""
        if self._output is not None:
            self._output.close()
        self._output = self._held = None

    def finish(self, complete: bool) -> Path:
        """Give the file its name: NAME.EXT, or NAME.partial.EXT where the work was interrupted."""
        name = self.destination.name if complete else self.partial.name[1:]
        target = self.destination.with_name(name)
        try:
            os.replace(self.partial, target)
        except OSError as error:
            raise self._reason(error) from error
        return target

    def discard(self) -> None:
        """Remove the partial file after an error."""
        self.close()
        self.partial.unlink(missing_ok=True)

    def _opened(self) -> Output:
        if self._output is None:
            raise RuntimeError(f"{self.destination}: the sink takes frames between open and close only")
        return self._output

    def _end_of_video(self) -> Fraction:
        """The end of the last picture that came, in seconds of the output's clock."""
        step = 1 / Fraction(self.info.rate) if self.info.rate else Fraction(1, 25)
        last_pts = 0 if self._held is None else self._held[1]
        return last_pts * self.info.time_base + step

    def _movie_timescale(self, output: OutputContainer) -> int:
        """Units a second of the edit lists: the input's, else such that every start is held exactly."""
        if self._window[0] is None and (scale := mov_boxes.movie_timescale(Path(self.info.path))):
            return scale
        scale = 1000
        for stream in output.streams:
            finer = math.lcm(scale, stream.time_base.denominator) if stream.time_base else scale
            scale = finer if finer <= 10_000_000 else scale
        return scale

    def _create(self) -> OutputContainer:
        """The partial file, nothing written yet, with its muxer's options."""
        options = {"flush_packets": "1", "max_interleave_delta": "1000000"}
        try:
            output = av.open(str(self.partial.absolute()), "w")
        except ValueError:
            raise EncodeError(
                f"{self.destination}: the ending {self.destination.suffix or '(none)'} names no video "
                "container; use .mp4, .mkv or .mov"
            ) from None
        name = output.format.name
        if name in remux.MOV:
            options |= {
                "movflags": "hybrid_fragmented+delay_moov+frag_keyframe",
                "min_frag_duration": "900000",
                "avoid_negative_ts": "disabled",
                "use_editlist": "1",
                "video_track_timescale": str(self.info.time_base.denominator),
            }
        elif name == "mpegts":
            options |= {"mpegts_copyts": "1"}
        output.container_options.update(options)
        return output

    def _add_video(
        self, output: OutputContainer, main: av.VideoStream, same: bool, carry: bool
    ) -> av.VideoStream:
        info, recipe = self._shown, self.recipe
        try:
            stream = output.add_stream(recipe.encoder, rate=info.rate or 25)
        except ValueError:
            raise EncodeError(
                f"{self.destination}: a {output.format.name} file cannot hold {recipe.codec}; "
                "choose another ending or set encode.codec"
            ) from None
        assert isinstance(stream, av.VideoStream), "a recipe names an encoder of video"
        context = stream.codec_context
        if carry and recipe.codec == codecs.canonical(info.codec):
            # Copies all that the container knows of the stream: colour, aspect, rotation, HDR, spherical.
            av.BitStreamFilterContext("null", in_stream=main, out_stream=stream)
            context.extradata = None
            context.bit_rate = 0
            context.level = -99
            if not same:
                context.codec_tag = "\0\0\0\0"
        codecs.configure(context, info, recipe, main.codec_context, self._config.threads)
        if len(info.display_matrix) >= 36:
            stream.set_display_matrix(memoryview(info.display_matrix[:36]).cast("i"))
        stream.time_base = info.time_base
        stream.metadata.update(remux.stream_metadata(main.metadata))
        stream.disposition = main.disposition
        stream.id = main.id
        return stream

    def _last_duration(self, picture: av.VideoFrame, pts: int) -> int:
        """Of the last frame, by the stream's end where the container tells it."""
        info = self.info
        usual = round(1 / (info.rate * info.time_base)) if info.rate else picture.duration
        left = self._end_pts - pts
        return left if 0 < left <= 4 * usual else (picture.duration or usual)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn FFmpeg's and the system's errors into one line."""
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            raise self._reason(error) from error

    def _reason(self, error: av.FFmpegError | OSError) -> EncodeError:
        code = error.errno
        if code == errno.ENOSPC:
            return EncodeError(f"{self.destination}: the disk is full; free some space and run again")
        if code == errno.EFBIG:
            return EncodeError(f"{self.destination}: the file grew beyond what is allowed; raise the limit")
        failed = f"{self.recipe.encoder} failed ({hardware.why(error)})"
        if self.recipe.rival:
            return HardwareError(f"{self.destination}: {failed}; set encode.hardware to off")
        size = "" if self._shown is self.info else " or a smaller --upscale"
        return EncodeError(f"{self.destination}: {failed}; try encode.codec{size}")


def _close(container: InputContainer | OutputContainer) -> None:
    with suppress(av.FFmpegError, OSError):  # what went wrong was told when it did
        container.close()
