"""Everything in a file except the restored video, copied packet by packet: streams, metadata, chapters."""

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
"""Container metadata about how the old file was written."""
_OF_OLD_PACKETS = ("BPS", "NUMBER_OF_", "_STATISTICS_", "DURATION")
"""Beginnings of Matroska's statistics tags, which do not hold for the new packets."""
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
    """The part of a file's metadata that belongs into the new file."""
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
    """The part of a stream's metadata that belongs into the new file."""
    kept = dict(metadata)
    if "name" in kept and "title" not in kept:
        # FFmpeg reads a mov track's title under one key and writes it from another.
        kept["title"] = kept.pop("name")
    return {key: value for key, value in kept.items() if not key.upper().startswith(_OF_OLD_PACKETS)}


def unsupported_tags(source: InputContainer, muxer: str, metadata: dict[str, str], keys: bool) -> list[str]:
    """The chapters and metadata that the muxer's container cannot hold, in words.

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
    """Whether a mov or mp4 file must store tags as free keys, because its fixed set lacks one of them."""
    if muxer not in MOV:
        return False
    known = _QUICKTIME if muxer == "mov" else _ITUNES
    return any(key.lower() not in known for key in metadata)


def with_note(muxer: str, metadata: dict[str, str], note: str) -> dict[str, str]:
    """Metadata with the note under the first free one of a few keys that the container keeps.

    If none is free, the note is appended to the comment.
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
    used = {key.lower(): key for key in metadata}
    free = next((key for key in keys if key not in used), None)
    if muxer == "mpegts" and metadata.get("service_provider") == "FFmpeg":
        free = "service_provider"  # the muxer wrote this itself
    if free is not None:
        return metadata | {free: note}
    return metadata | {used[keys[0]]: f"{metadata[used[keys[0]]]}; {note}"}


_TAGS = {
    "avi": {
        "artist", "comment", "copyright", "date", "genre", "language", "title", "album", "track", "timecode",
        "encoded_by",
    },
    "mpegts": {"service_name", "service_provider"},
}  # fmt: skip
_NO_CHAPTERS = ("avi", "mpegts", "flv", "mxf", "3gp", "3g2", "mpeg", "vob", "svcd")
_SUBSTITUTE_CODECS = {
    "subtitle": ("dvb_subtitle", "mov_text", "ass"),
    "audio": ("mp2", "aac", "pcm_s16le"),
    "video": ("mpeg2video", "mpeg4"),
}
"""Codecs with which a stream is created when PyAV does not tell its own."""


class Copier:
    """Reads the input a second time and returns the packets of all streams but the main one.

    Packets outside the window are left out. shift: seconds that are subtracted from every timestamp.
    same_container: the output is of the input's kind. `losses` names what the output cannot hold, `notes`
    what was converted.
    """

    def __init__(
        self,
        source: InputContainer,
        main: av.VideoStream,
        output: OutputContainer,
        *,
        same_container: bool,
        window: Window,
        shift: Fraction,
    ) -> None:
        self.losses: list[str] = []
        self.notes: list[str] = []
        self._source, self._main, self._output = source, main, output
        self._same_container = same_container
        self._window, self._shift = window, shift
        self._copies: dict[int, Stream] = {}
        self._converters: dict[int, SoundConverter | TextConverter] = {}
        self._packets: Iterator[av.Packet[Stream]] = iter(())
        self._waiting: list[av.Packet[Stream]] = []

    def add_streams(self) -> None:
        """Create the output's streams; called once, after the video stream was created."""
        for stream in self._source.streams:
            if stream.index != self._main.index:
                self._add(stream)
        self._main.discard = Discard.all
        wanted = [self._source.streams[index] for index in (*self._copies, *self._converters)]
        if wanted:
            self._packets = self._source.demux(wanted)

    def packets_until(self, limit: Fraction | None) -> Iterator[av.Packet[Stream]]:
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
        if self._comes_from_muxer(stream):
            return
        picture = bool(stream.disposition & Disposition.attached_pic)
        if picture and muxer == "matroska":
            self._attach(stream)
            return
        if self._is_accepted(stream, picture):
            copy = self._create(self._output, stream)
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
        converter.target.metadata.update(stream_metadata(stream.metadata))
        converter.target.disposition = stream.disposition
        self._converters[stream.index] = converter

    def _comes_from_muxer(self, stream: Stream) -> bool:
        """Whether it is a chapter or timecode track, which the muxer writes from chapters and tags."""
        if stream.type != "data":
            return False
        return stream.discard == Discard.all or (
            "timecode" in stream.metadata and "timecode" in self._main.metadata
        )

    def _create(self, output: OutputContainer, stream: Stream) -> Stream:
        if stream.codec_context is not None and not self._same_container:
            return output.add_stream_from_template(stream, opaque=True)
        if stream.type in ("data", "attachment"):
            return output.add_stream_from_template(stream)
        # A stream without codec context keeps every parameter, side data and the codec's tag. PyAV tells
        # no name where FFmpeg has no decoder; any codec that the container accepts serves then.
        names: tuple[str, ...] = _SUBSTITUTE_CODECS.get(stream.type, ())
        if stream.codec_context is not None:
            names = (stream.codec_context.codec.canonical_name,)
        for name in names:
            with suppress(ValueError):
                copy = output.add_mux_stream(name)
                break
        else:
            raise ValueError(f"{output.format.name} accepts no {stream.type} stream {stream.index}")
        av.BitStreamFilterContext("null", in_stream=stream, out_stream=copy)
        copy.time_base = stream.time_base
        return copy

    def _is_accepted(self, stream: Stream, picture: bool) -> bool:
        """Whether the output's container accepts the stream: a header is written to memory."""
        if stream.type == "attachment" and self._output.format.name != "matroska":
            return False
        if picture and self._output.format.name not in (*MOV, "mp3", "flac", "asf"):
            return False
        if self._same_container and self._output.format.name == "mxf":
            return True  # its muxer accepts no sound without a video stream
        with io.BytesIO() as memory:
            trial = av.open(memory, "w", format=self._output.format.name)
            try:
                copy = self._create(trial, stream)
                copy.disposition = stream.disposition
                trial.start_encoding()
            except (av.FFmpegError, ValueError):
                return False
            finally:
                with suppress(av.FFmpegError, ValueError):
                    trial.close()  # only the header counts
        return True

    def _attach(self, stream: Stream) -> None:
        """Add a cover picture as an attachment, which Matroska shows as a cover."""
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
                if ready := [p for p in ready if self._fit_to_window(p)]:
                    return ready
            elif (packet.size or packet.dts is not None) and self._fit_to_window(packet):
                packet.stream = self._copies[index]
                return [packet]
        return []

    def _fit_to_window(self, packet: av.Packet[Stream]) -> bool:
        """Cut a packet to the window and shift it, in place. False: it lies outside."""
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
        shift = round(self._shift / unit)
        if shift:
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts = None if packet.dts is None else packet.dts - shift
        return True


def chapters(source: InputContainer, window: Window, shift: Fraction) -> list[Chapter]:
    """The input's chapters, cut to the window. `shift` seconds are subtracted from their times."""
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
