"""Frames -> file: the video encoded as it came, every other stream copied."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
from av.stream import Disposition

from stream import codecs, hardware, mov, remux, trial
from stream.config import Encode
from stream.container import main_stream, open_video
from stream.cores import ordinary_priority
from stream.errors import EncodeError, HardwareError
from stream.face import FrameWork
from stream.frame import StreamInfo
from stream.limits import check_size
from stream.remux import Copier
from stream.stage import Sink


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
        self._window = (None if start_s is None else self._from_pts * unit, end)
        self.partial = self.destination.with_name(
            f".{self.destination.stem}.partial{self.destination.suffix}"
        )
        self._source = self._output = self._stream = self._copier = None
        self._times: list[tuple[int, int]] = []
        self._last_pts: int | None = None
        self._end_pts: int | None = None
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._held: av.VideoFrame | None = None

    def open(self) -> None:
        """Open the input for the copied streams and make the partial file."""
        info = self.info
        with self._errors():
            self._output = self._open_output()
            self._settle()
            self._source = open_video(Path(info.path))
            main = main_stream(self._source)
            muxer = self._output.format.name
            if main.duration is not None:
                self._end_pts = (main.start_time or 0) + main.duration
            metadata = remux.container_metadata(self._source)
            metadata = remux.with_note(muxer, metadata, self._note)
            covers = any(s.disposition & Disposition.attached_pic for s in self._source.streams)
            # With free keys the muxer writes no cover picture (measured).
            keys = remux.needs_keys(muxer, metadata) and not covers
            if keys:
                self._output.container_options["movflags"] += "+use_metadata_tags"
            same = self.destination.suffix.lower() == Path(info.path).suffix.lower()
            shift = self._from_pts * info.time_base
            dynamic = trial.dynamic_hdr(info)
            self._stream = self._add_video(main, same, carry=self._carry and not dynamic)
            self._copier = Copier(
                self._source, main, self._output, same=same, window=self._window, shift=shift
            )
            self._copier.add_streams()
            self.notes.extend(self._copier.notes)
            tags = remux.unheld(self._source, muxer, metadata, keys)
            self._check_losses(self._copier.losses + dynamic + tags)
            if muxer in remux.MOV:
                self._output.container_options["movie_timescale"] = str(self._movie_timescale())
            self._output.metadata.update(metadata)
            self._output.set_chapters(remux.chapters(self._source, self._window, shift))
            self._output.start_encoding()
        ordinary_priority()

    def _settle(self) -> None:
        """Settle the quality, and whether a hardware encoder does the work."""
        rivals = codecs.rivals(self.info, self.recipe, self._config)
        known = set(self.recipe.notes)
        self.recipe = trial.settle(self.info, self.recipe, self._config.threads, self._window, rivals)
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

    def process(self, work: FrameWork) -> Iterable:
        """Take one frame; the one before it is encoded, its duration now being known."""
        picture = work.frame.picture
        pts = work.frame.time.pts - self._from_pts
        if self._last_pts is not None and pts <= self._last_pts:
            note = f"{self.info.path}: times that do not rise were moved up"
            if note not in self.notes:
                self.notes.append(note)
            pts = self._last_pts + 1
        picture.pts, picture.time_base = pts, self.info.time_base
        picture.pict_type = 0  # else the old stream's types would be forced on the encoder
        with self._errors():
            if self._held is not None:
                self._held.duration = pts - self._last_pts
                self._encode(self._held)
        self._held, self._last_pts = picture, pts
        self.frames_out += 1
        return ()

    def flush(self) -> Iterable:
        """Drain the encoder, copy the rest of the other streams, write the file's end."""
        with self._errors():
            if self._held is not None:
                self._held.duration = self._last_duration(self._held)
                self._encode(self._held)
                self._held = None
                self._write(self._stream.encode(None))
            self._output.mux(self._copier.until(self._end_of_video() if self._cut_short() else None))
            output, self._output = self._output, None
            pictures = {s.index for s in output.streams if s.disposition & Disposition.attached_pic}
            output.close()
            if pictures and output.format.name in remux.MOV:
                mov.drop_empty_tracks(self.partial, pictures)
        return ()

    def close(self) -> None:
        """Release both containers; the partial file stays."""
        for container in (self._output, self._source):
            if container is not None:
                try:
                    container.close()
                except (av.FFmpegError, OSError):
                    continue  # what went wrong was told when it did
        self._output = self._source = self._stream = self._copier = None

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

    def _end_of_video(self) -> Fraction:
        step = 1 / Fraction(self.info.rate) if self.info.rate else Fraction(1, 25)
        return (self._last_pts or 0) * self.info.time_base + step

    def _movie_timescale(self) -> int:
        """Units a second of the edit lists: the input's, else such that every start is held exactly."""
        if self._window[0] is None and (scale := mov.movie_timescale(Path(self.info.path))):
            return scale
        scale = 1000
        for stream in self._output.streams:
            finer = math.lcm(scale, stream.time_base.denominator) if stream.time_base else scale
            scale = finer if finer <= 10_000_000 else scale
        return scale

    def _open_output(self):
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

    def _add_video(self, main, same: bool, carry: bool):
        info, recipe = self._shown, self.recipe
        try:
            stream = self._output.add_stream(recipe.encoder, rate=info.rate or 25)
        except ValueError:
            raise EncodeError(
                f"{self.destination}: a {self._output.format.name} file cannot hold {recipe.codec}; "
                "choose another ending or set encode.codec"
            ) from None
        context = stream.codec_context
        if carry and recipe.codec == codecs.canonical(info.codec):
            # Copies all that the container knows of the stream: colour, aspect, rotation, HDR, spherical.
            av.bitstream.BitStreamFilterContext("null", in_stream=main, out_stream=stream)
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

    def _encode(self, picture: av.VideoFrame) -> None:
        if picture.format.name != self.recipe.pix_fmt:
            picture = self._converted(picture)
        if self.recipe.encoder in codecs.COARSE_TIME:
            picture.pts, picture.time_base = len(self._times), self._stream.codec_context.time_base
            self._times.append((self._last_pts, picture.duration))
            picture.duration = 1
        self._write(self._stream.encode(picture))

    def _converted(self, picture: av.VideoFrame) -> av.VideoFrame:
        """In the encoder's pixel format; matrix and range change only where they must."""
        context = self._stream.codec_context
        old = self._shown.colour
        matrix = old.matrix or 2  # 0 is RGB itself
        result = self._reformatter.reformat(
            picture,
            format=self.recipe.pix_fmt,
            src_colorspace=matrix,
            dst_colorspace=context.colorspace or matrix,
            src_color_range=2 if old.range_full else 1,
            dst_color_range=context.color_range or 1,
            threads=self._config.threads,
        )
        result.pts, result.time_base, result.duration = picture.pts, picture.time_base, picture.duration
        return result

    def _last_duration(self, picture: av.VideoFrame) -> int:
        """Of the last frame, by the stream's end where the container tells it."""
        info = self.info
        end = 0 if self._end_pts is None else self._end_pts - self._from_pts
        usual = round(1 / (info.rate * info.time_base)) if info.rate else picture.duration
        left = end - picture.pts
        return left if 0 < left <= 4 * usual else (picture.duration or usual)

    def _write(self, packets: list[av.Packet]) -> None:
        for packet in packets:
            if self.recipe.encoder in codecs.COARSE_TIME:
                self._restore_times(packet)
            self._output.mux(self._copier.until(packet.dts * packet.time_base))
            self._output.mux_one(packet)

    def _restore_times(self, packet: av.Packet) -> None:
        pts, dts = self._true_time(packet.pts), self._true_time(packet.dts)
        duration = self._times[packet.pts][1]
        packet.time_base = self.info.time_base
        packet.pts, packet.dts, packet.duration = pts, dts, duration

    def _true_time(self, index: int) -> int:
        if index >= 0:
            return self._times[index][0]
        return self._times[0][0] + index * self._times[0][1]

    def _errors(self):
        return _Errors(self)

    def _reason(self, error: BaseException) -> EncodeError:
        code = getattr(error, "errno", None)
        if code == errno.ENOSPC:
            return EncodeError(f"{self.destination}: the disk is full; free some space and run again")
        if code == errno.EFBIG:
            return EncodeError(f"{self.destination}: the file grew beyond what is allowed; raise the limit")
        failed = f"{self.recipe.encoder} failed ({hardware.why(error)})"
        if self.recipe.rival:
            return HardwareError(f"{self.destination}: {failed}; set encode.hardware to off")
        size = "" if self._shown is self.info else " or a smaller --upscale"
        return EncodeError(f"{self.destination}: {failed}; try encode.codec{size}")


class _Errors:
    """Turns FFmpeg's and the system's errors into one line."""

    def __init__(self, sink: FileSink) -> None:
        self._sink = sink

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, (av.FFmpegError, OSError)):
            raise self._sink._reason(error) from error
