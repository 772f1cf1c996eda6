"""Frames -> file: the video encoded in its own codec, every other stream copied."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import av
from av.container import InputContainer, OutputContainer
from av.stream import Disposition

from stream.config import Encode
from stream.errors import EncodeError, HardwareError
from stream.media import codecs, hardware, quality_trial, remux
from stream.media.claim import OutputClaim
from stream.media.codecs import EncoderRecipe
from stream.media.container import Window, open_video, video_stream, window_pts
from stream.media.opening import Opening, is_needed
from stream.media.output import (
    Encoder,
    OutputFile,
    PictureDurations,
    create_container,
    movie_timescale,
    muxer_of,
    set_up_video,
)
from stream.media.partial_file import PartialFile, hidden_name
from stream.media.remux import Copier
from stream.media.segment_file import EncodedPacket
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


def claim_destination(source: Path, destination: Path, overwrite: bool) -> OutputClaim:
    """Claim an output for this run, which has to release it. Raises EncodeError as `check_destination` does.

    The check is repeated under the claim: the run that held it before may have written the file.
    """
    check_destination(source, destination, overwrite)
    claim = OutputClaim(destination)
    claim.acquire()
    try:
        check_destination(source, destination, overwrite)
    except EncodeError:
        claim.release()
        raise
    return claim


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """How a video file is written, apart from its encoding."""

    overwrite: bool = False
    allow_loss: bool = False
    """Whether streams and metadata that the container cannot hold may be left out."""
    start_s: float | None = None
    """Start of the part whose sound and other streams are copied; None: the input's beginning."""
    duration_s: float | None = None
    """How long that part is; None: up to the input's end."""
    restored_note: str = ""
    """Text that is added to the file's metadata."""
    upscale: int = 1
    """How many times as wide and high as the input's the frames are."""
    same_pictures: bool = True
    """Whether what the input's container says of its pictures (rotation, HDR) holds for the frames, too."""
    cut_short: Callable[[], bool] = _never
    """Asked at the end: was the source stopped early? The copied streams then end with the picture."""


class FileSink(Sink):
    """The last stage: encodes frames into a hidden partial file beside the destination.

    One thread opens, feeds and flushes it; `finish` or `discard` come afterwards. The caller holds the
    destination's `OutputClaim` from before `open` until then.
    """

    def __init__(
        self,
        info: StreamInfo,
        destination: Path,
        config: Encode,
        options: OutputOptions | None = None,
        recipe: EncoderRecipe | None = None,
    ) -> None:
        """`info`: the input's video, from whose file the other streams are copied. Raises EncodeError.

        recipe: how the video is encoded; None: chosen by the settings.
        """
        options = options or OutputOptions()
        self.info = info
        self.destination = Path(destination)
        self.partial = hidden_name(self.destination, "partial")
        self._file: PartialFile | None = None
        """What is written. Until it can be played it has another name than `partial`: see `Opening`."""
        self.frames_out = 0
        self._config, self._options = config, options
        self._shown = info.enlarged(options.upscale) if options.upscale > 1 else info
        """The video as it will be."""
        check_destination(Path(info.path), self.destination, options.overwrite)
        self.recipe = recipe or codecs.recipe(self._shown, config)
        if options.upscale > 1:
            codecs.check_size(self._shown, self.recipe)
        self.notes: list[str] = list(self.recipe.notes)
        start, end = window_pts(info, options.start_s, options.duration_s)
        self.first_pts = start or 0
        """The input's time that becomes 0."""
        self.end_pts = 0
        """Where the input's video ends, on the output's clock; 0: its container does not say."""
        self.copies_parameters = True
        """Whether what the input's container says of its pictures holds for the output."""
        unit = info.time_base
        self._window: Window = None if start is None else start * unit, None if end is None else end * unit
        self._output: OutputFile | None = None

    def open(self) -> None:
        """Open the input for the copied streams and create the partial file.

        The caller holds the destination's claim: what a killed run left is removed.
        """
        info, options = self.info, self._options
        with self._errors(), ExitStack() as opened:
            source = open_video(Path(info.path))
            opened.callback(_close, source)
            muxer = muxer_of(self.destination)
            self._file = self._created_file(muxer)
            output = create_container(self._file, muxer, info.time_base)
            opened.callback(_close, output)
            self._settle_quality()
            main = video_stream(source)
            metadata = remux.container_metadata(source)
            metadata = remux.with_note(muxer, metadata, options.restored_note)
            covers = any(s.disposition & Disposition.attached_pic for s in source.streams)
            # With free keys the muxer writes no cover picture (measured).
            keys = remux.needs_keys(muxer, metadata) and not covers
            if keys:
                output.container_options["movflags"] += "+use_metadata_tags"
            same_container = self.destination.suffix.lower() == Path(info.path).suffix.lower()
            shift = self.first_pts * info.time_base
            dynamic = quality_trial.dynamic_hdr(info)
            self.copies_parameters = options.same_pictures and not dynamic
            stream = self._add_video(
                output,
                main,
                copy_parameters=self.copies_parameters,
                same_container=same_container,
            )
            copier = Copier(
                source, main, output, same_container=same_container, window=self._window, shift=shift
            )
            copier.add_streams()
            self.notes.extend(copier.notes)
            tags = remux.unsupported_tags(source, muxer, metadata, keys)
            self._check_losses(copier.losses + dynamic + tags)
            if muxer in remux.MOV:
                origin = Path(info.path) if self._window[0] is None else None
                output.container_options["movie_timescale"] = str(movie_timescale(output, origin))
            output.metadata.update(metadata)
            output.set_chapters(remux.chapters(source, self._window, shift))
            output.start_encoding()
            self._file.check()  # the muxer has opened it
            opening = Opening(output, stream, self._file, self.partial)
            encoder = Encoder(stream, self._shown, self.recipe, self._config.threads)
            if main.duration is not None:
                self.end_pts = (main.start_time or 0) + main.duration - self.first_pts
            durations = PictureDurations(info, self.end_pts)
            self._output = OutputFile(output, encoder, copier, durations, opening, opened.pop_all())
        ordinary_priority()

    def _created_file(self, muxer: str) -> PartialFile:
        self.partial.unlink(missing_ok=True)
        path = hidden_name(self.destination, "begun") if is_needed(muxer) else self.partial
        return PartialFile(path, self.destination)

    def _settle_quality(self) -> None:
        """Choose the quality, and whether a hardware encoder does the work."""
        alternatives = codecs.hardware_alternatives(self.info, self.recipe, self._config)
        known = set(self.recipe.notes)
        self.recipe = quality_trial.settle(
            self.info, self.recipe, self._config.threads, self._window, alternatives
        )
        self.notes.extend(note for note in self.recipe.notes if note not in known)
        if self._config.hardware == "auto" and not alternatives:
            self.notes.append(f"{self.info.path}: encoded by {self.recipe.encoder}, no hardware suits it")

    def _add_video(
        self, output: OutputContainer, main: av.VideoStream, *, copy_parameters: bool, same_container: bool
    ) -> av.VideoStream:
        recipe = self.recipe
        try:
            stream = output.add_stream(recipe.encoder, rate=self._shown.rate or 25)
        except ValueError:
            raise EncodeError(
                f"{self.destination}: a {output.format.name} file cannot hold {recipe.codec}; "
                "choose another ending or set encode.codec"
            ) from None
        assert isinstance(stream, av.VideoStream), "a recipe names an encoder of video"
        set_up_video(
            stream,
            main,
            self._shown,
            recipe,
            self._config.threads,
            copy_parameters=copy_parameters,
            same_container=same_container,
        )
        return stream

    def _check_losses(self, losses: list[str]) -> None:
        if not losses:
            return
        if not self._options.allow_loss:
            raise EncodeError(
                f"{self.destination}: would lose {', '.join(losses)} of {self.info.path}; "
                "choose another ending or add --allow-loss"
            )
        self.notes.append(f"{self.destination}: lost {', '.join(losses)}")

    def process(self, work: FrameWork) -> Iterable[None]:
        """Accept one frame; the one before it is encoded, its duration now being known."""
        output = self._opened()
        picture = work.frame.picture
        picture.pict_type = 0  # else the encoder would have to use the old stream's types
        with self._errors():
            output.write(picture, work.frame.time.pts - self.first_pts)
        self.frames_out += 1
        return ()

    def flush(self) -> Iterable[None]:
        """Drain the encoder, copy the rest of the other streams, write the file's end."""
        output = self._opened()
        if output.durations.moved:
            self.notes.append(f"{self.info.path}: times that do not rise were moved up")
        with self._errors():
            output.drain()
            output.end(output.durations.end() if self._options.cut_short() else None)
        return ()

    def write_encoded(self, packets: Iterable[EncodedPacket], *, up_to_end: bool) -> None:
        """Write a video that was encoded before, in place of `process` and `flush`.

        up_to_end: the other streams are copied up to their own end, not up to the video's.
        """
        output = self._opened()
        with self._errors():
            end = output.write_encoded(packets)
            output.end(None if up_to_end else end)

    @property
    def extradata(self) -> bytes:
        """The codec's headers, as the open encoder wrote them."""
        return self._opened().extradata

    def close(self) -> None:
        """Release both containers; the partial file stays."""
        if self._output is not None:
            self._output.close()
        self._output = None

    def finish(self, complete: bool) -> Path:
        """Give the file its name: NAME.EXT, or NAME.partial.EXT where the work was interrupted."""
        name = self.destination.name if complete else self.partial.name[1:]
        target = self.destination.with_name(name)
        file = self._file
        if file is None:
            raise RuntimeError(f"{self.destination}: nothing was written")
        with self._errors():
            file.rename(target)
        file.close()
        return target

    def discard(self) -> None:
        """Remove what was written, after an error."""
        self.close()
        if self._file is not None:
            if self._file.path != self.partial:
                self.partial.unlink(missing_ok=True)  # the opening
            self._file.discard()

    def _opened(self) -> OutputFile:
        if self._output is None:
            raise RuntimeError(f"{self.destination}: the sink accepts frames between open and close only")
        return self._output

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn FFmpeg's and the system's errors into one line."""
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            raise self._error_for(error) from error

    def _error_for(self, error: av.FFmpegError | OSError) -> EncodeError:
        return encode_error(error, self.destination, self.recipe, enlarged=self._shown is not self.info)


def encode_error(
    error: av.FFmpegError | OSError, destination: Path, recipe: EncoderRecipe, *, enlarged: bool
) -> EncodeError:
    """FFmpeg's or the system's error as one line that names the output."""
    if error.errno == errno.ENOSPC:
        return EncodeError(f"{destination}: the disk is full; free some space and run again")
    if error.errno == errno.EFBIG:
        return EncodeError(f"{destination}: the file grew beyond what is allowed; raise the limit")
    if not isinstance(error, av.FFmpegError):
        return EncodeError(f"{destination}: cannot be written ({error.strerror}); check the folder")
    failed = f"{recipe.encoder} failed ({hardware.reason(error)})"
    if recipe.is_hardware:
        return HardwareError(f"{destination}: {failed}; set encode.hardware to off")
    size = " or a smaller --upscale" if enlarged else ""
    return EncodeError(f"{destination}: {failed}; try encode.codec{size}")


def _close(container: InputContainer | OutputContainer) -> None:
    with suppress(av.FFmpegError, OSError):  # the error was reported where it happened
        container.close()
