"""Streams that are copied: everything beside the restored video, packet by packet."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from typing import TYPE_CHECKING

import av
from av.container import InputContainer, OutputContainer
from av.stream import Discard, Disposition, Stream
from av.subtitles.stream import SubtitleStream

from stream.media.container import Window
from stream.media.stream_converters import SoundConverter, TextConverter

if TYPE_CHECKING:
    from av.container.core import Chapter  # in the stubs only

MOV = ("mp4", "mov", "ipod", "3gp", "3g2", "psp", "ismv", "f4v")
"""Muxers of the QuickTime family, by FFmpeg's names."""
_UNTOUCHED = ("major_brand", "minor_version", "compatible_brands", "encoder", "software")
"""Container metadata that describes the old file's own making."""
_OF_OLD_PACKETS = ("BPS", "NUMBER_OF_", "_STATISTICS_", "DURATION")
"""Matroska's statistics tags, which the muxer and the new packets make stale."""
_ITUNES = {
    "title", "artist", "album_artist", "composer", "album", "date", "encoding_tool", "comment", "genre",
    "copyright", "grouping", "lyrics", "description", "synopsis", "show", "episode_id", "network", "keywords",
    "media_type", "hd_video", "gapless_playback", "compilation", "track", "disc", "tmpo", "season_number",
    "episode_sort", "creation_time", "location", "timecode", "sort_name", "sort_artist", "sort_album",
    "sort_album_artist", "sort_composer", "sort_show",
}  # fmt: skip
_QUICKTIME = {
    "title", "artist", "album", "date", "comment", "genre", "copyright", "creation_time", "location",
    "timecode", "composer", "author", "make", "model", "performers", "keywords",
}  # fmt: skip


def container_metadata(source: InputContainer) -> dict[str, str]:
    """What of a file's metadata goes into the new file."""
    kept = {key: value for key, value in source.metadata.items() if key.lower() not in _UNTOUCHED}
    for key in list(kept):
        base, dash, language = key.rpartition("-")
        if dash and len(language) == 3 and kept.get(base) == kept[key]:
            del kept[key]  # FFmpeg lists a mov tag twice, once with its language
    if source.format.name == "mpegts":
        kept |= program_metadata(source)
    return kept


def program_metadata(container: InputContainer) -> dict[str, str]:
    """Name and provider of a transport stream's service, which PyAV only prints."""
    level = av.logging.get_level()
    try:
        av.logging.set_level(av.logging.INFO)
        text = container.dumps_format()  # type: ignore[attr-defined]  # PyAV's stub leaves it out
    finally:
        av.logging.set_level(level)
    return dict(re.findall(r"^ *(service_name|service_provider) *: (.*)$", text, re.MULTILINE))


def stream_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """What of a stream's metadata goes into the new file."""
    kept = dict(metadata)
    if "name" in kept and "title" not in kept:
        kept["title"] = kept.pop(
            "name"
        )  # FFmpeg reads a mov track's title under one key and writes it from another
    return {key: value for key, value in kept.items() if not key.upper().startswith(_OF_OLD_PACKETS)}


def unheld(source: InputContainer, muxer: str, metadata: dict[str, str], keys: bool) -> list[str]:
    """What of chapters and metadata another container cannot hold, in words.

    keys: whether a mov or mp4 file stores free keys.
    """
    known = _TAGS.get(muxer)
    if muxer in MOV and not keys:
        known = _QUICKTIME if muxer == "mov" else _ITUNES
    lost = [] if known is None else sorted(key for key in metadata if key.lower() not in known)
    losses = [f"metadata ({', '.join(lost)})"] if lost else []
    if muxer in _NO_CHAPTERS and source.chapters():
        losses.append("the chapters")
    return losses


def needs_keys(muxer: str, metadata: dict[str, str]) -> bool:
    """Whether a mov or mp4 file must store tags as free keys, since its own set lacks one of them."""
    if muxer not in MOV:
        return False
    known = _QUICKTIME if muxer == "mov" else _ITUNES
    return any(key.lower() not in known for key in metadata)


def with_note(muxer: str, metadata: dict[str, str], note: str) -> dict[str, str]:
    """Metadata with the note under the first free of a few keys that the container keeps.

    Where none is free it stands behind the comment.
    """
    if not note or note in metadata.values():
        return metadata
    keys = ["comment"]
    if muxer in MOV and not needs_keys(muxer, metadata) and muxer != "mov":
        keys += ["description", "synopsis", "grouping"]
    elif muxer in (*MOV, "matroska", "webm"):
        keys += ["restored"]
    elif muxer == "mpegts":
        keys = ["service_provider"]
    taken = {key.lower(): key for key in metadata}
    free = next((key for key in keys if key not in taken), None)
    if muxer == "mpegts" and metadata.get("service_provider") == "FFmpeg":
        free = "service_provider"  # the muxer's own filling
    if free is not None:
        return metadata | {free: note}
    return metadata | {taken[keys[0]]: f"{metadata[taken[keys[0]]]}; {note}"}


_TAGS = {
    "avi": {
        "artist", "comment", "copyright", "date", "genre", "language", "title", "album", "track", "timecode",
        "encoded_by",
    },
    "mpegts": {"service_name", "service_provider"},
}  # fmt: skip
_NO_CHAPTERS = ("avi", "mpegts", "flv", "mxf", "3gp", "3g2", "mpeg", "vob", "svcd")
_STAND_INS = {
    "subtitle": ("dvb_subtitle", "mov_text", "ass"),
    "audio": ("mp2", "aac", "pcm_s16le"),
    "video": ("mpeg2video", "mpeg4"),
}
"""Names to make a stream with whose own PyAV does not tell."""


class Copier:
    """Reads the input a second time and hands on the packets of all streams but the main one.

    Packets outside the window are left out. shift: seconds taken off every timestamp. `losses` names
    what the output cannot hold, `notes` what was converted.
    """

    def __init__(
        self,
        source: InputContainer,
        main: av.VideoStream,
        output: OutputContainer,
        *,
        same: bool,
        window: Window,
        shift: Fraction,
    ) -> None:
        self.losses: list[str] = []
        self.notes: list[str] = []
        self._source, self._main, self._output = source, main, output
        self._same = same
        self._window, self._shift = window, shift
        self._copies: dict[int, Stream] = {}
        self._converters: dict[int, SoundConverter | TextConverter] = {}
        self._packets: Iterator[av.Packet[Stream]] = iter(())
        self._waiting: list[av.Packet[Stream]] = []

    def add_streams(self) -> None:
        """Make the output's streams; called once, after the video stream was made."""
        for stream in self._source.streams:
            if stream.index != self._main.index:
                self._add(stream)
        self._main.discard = Discard.all
        wanted = [self._source.streams[index] for index in (*self._copies, *self._converters)]
        if wanted:
            self._packets = self._source.demux(wanted)

    def until(self, limit: Fraction | None) -> Iterator[av.Packet[Stream]]:
        """Packets whose decoding time, in seconds of the output's clock, is below `limit`."""
        while True:
            if not self._waiting:
                self._waiting = self._next()
                if not self._waiting:
                    return
            packet = self._waiting[0]
            if limit is not None and packet.dts is not None and packet.dts * packet.time_base >= limit:
                return
            yield self._waiting.pop(0)

    def _add(self, stream: Stream) -> None:
        muxer = self._output.format.name
        if self._made_by_muxer(stream):
            return
        picture = bool(stream.disposition & Disposition.attached_pic)
        if picture and muxer == "matroska":
            self._attach(stream)
            return
        if self._holds(stream, picture):
            copy = self._make(self._output, stream)
            copy.metadata.update(stream_metadata(stream.metadata))
            copy.disposition = stream.disposition
            if muxer == "mpegts":
                copy.id = stream.id
            self._copies[stream.index] = copy
            return
        name = f"{stream.type} stream {stream.index} ({_codec_name(stream)})"
        converter: SoundConverter | TextConverter
        if isinstance(stream, av.AudioStream) and stream.codec_context is not None:
            converter = SoundConverter(stream, self._output, "libopus" if muxer == "webm" else "aac")
        elif (
            isinstance(stream, SubtitleStream) and TextConverter.reads(stream) and muxer in (*MOV, "matroska")
        ):
            converter = TextConverter(stream, self._output, "subrip" if muxer == "matroska" else "mov_text")
        else:
            self.losses.append(name)
            return
        self.notes.append(f"{self._source.name}: {name} becomes {converter.codec}")
        converter.copy.metadata.update(stream_metadata(stream.metadata))
        converter.copy.disposition = stream.disposition
        self._converters[stream.index] = converter

    def _made_by_muxer(self, stream: Stream) -> bool:
        """Chapter text and timecode tracks: the muxer makes its own from chapters and tags."""
        if stream.type != "data":
            return False
        return stream.discard == Discard.all or (
            "timecode" in stream.metadata and "timecode" in self._main.metadata
        )

    def _make(self, output: OutputContainer, stream: Stream) -> Stream:
        if stream.codec_context is not None and not self._same:
            return output.add_stream_from_template(stream, opaque=True)
        if stream.type in ("data", "attachment"):
            return output.add_stream_from_template(stream)
        # A stream without codec context keeps every parameter, side data and the codec's tag; where
        # FFmpeg has no decoder PyAV tells no name, and any that the container takes stands in.
        names: tuple[str, ...] = _STAND_INS.get(stream.type, ())
        if stream.codec_context is not None:
            names = (stream.codec_context.codec.canonical_name,)
        for name in names:
            with suppress(ValueError):
                copy = output.add_mux_stream(name)
                break
        else:
            raise ValueError(f"{output.format.name} takes no {stream.type} stream {stream.index}")
        av.BitStreamFilterContext("null", in_stream=stream, out_stream=copy)
        copy.time_base = stream.time_base
        return copy

    def _holds(self, stream: Stream, picture: bool) -> bool:
        """Whether the output's container takes the stream: a header is written to memory."""
        if stream.type == "attachment" and self._output.format.name != "matroska":
            return False
        if picture and self._output.format.name not in (*MOV, "mp3", "flac", "asf"):
            return False
        if self._same and self._output.format.name == "mxf":
            return True  # its muxer takes no sound without a video stream
        with io.BytesIO() as memory:
            trial = av.open(memory, "w", format=self._output.format.name)
            try:
                copy = self._make(trial, stream)
                copy.disposition = stream.disposition
                trial.start_encoding()
            except (av.FFmpegError, ValueError):
                return False
            finally:
                with suppress(av.FFmpegError, ValueError):
                    trial.close()  # only the header counts
        return True

    def _attach(self, stream: Stream) -> None:
        """A cover picture becomes an attachment, which is what Matroska shows as a cover."""
        with av.open(self._source.name, options={"protocol_whitelist": "file"}) as container:
            data = next((bytes(p) for p in container.demux(container.streams[stream.index]) if p.size), b"")
        kind = "png" if _codec_name(stream) == "png" else "jpeg"
        name = stream.metadata.get("filename", f"cover.{'png' if kind == 'png' else 'jpg'}")
        copy = self._output.add_attachment(name, stream.metadata.get("mimetype", f"image/{kind}"), data)
        copy.metadata.update(stream.metadata)

    def _next(self) -> list[av.Packet[Stream]]:
        """The next packets that belong into the output; empty at the end."""
        for packet in self._packets:
            index = packet.stream.index
            if index in self._converters:
                converter = self._converters[index]
                ready = converter.convert(packet if packet.size else None)
                if ready := [p for p in ready if self._in_window(p)]:
                    return ready
            elif (packet.size or packet.dts is not None) and self._in_window(packet):
                packet.stream = self._copies[index]
                return [packet]
        return []

    def _in_window(self, packet: av.Packet[Stream]) -> bool:
        """Cut to the window and shift, in place; False where the packet lies outside."""
        start, end = self._window
        unit = packet.time_base
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None:
            return True
        if end is not None and time * unit >= end:
            return False
        if start is not None and time * unit < start:
            first = -int(-start // unit)
            left = time + (packet.duration or 0) - first
            if packet.stream.type not in ("subtitle", "data") or left <= 0:
                return False
            packet.pts = packet.dts = first
            packet.duration = left
        move = round(self._shift / unit)
        if move:
            packet.pts = None if packet.pts is None else packet.pts - move
            packet.dts = None if packet.dts is None else packet.dts - move
        return True


def chapters(source: InputContainer, window: Window, shift: Fraction) -> list[Chapter]:
    """The input's chapters, cut to the window and shifted (seconds)."""
    start, end = window
    kept = []
    for chapter in source.chapters():
        unit = chapter["time_base"]
        assert unit is not None, "FFmpeg gives every chapter a time base"
        first, last = chapter["start"] * unit, chapter["end"] * unit
        if (start is not None and last <= start) or (end is not None and first >= end):
            continue
        first = first if start is None else max(first, start)
        last = last if end is None else min(last, end)
        begin, stop = round((first - shift) / unit), round((last - shift) / unit)
        kept.append(chapter | {"start": begin, "end": stop})
    return kept


def _codec_name(stream: Stream) -> str:
    context = stream.codec_context
    return context.codec.canonical_name if context is not None else getattr(stream, "name", None) or "unknown"
