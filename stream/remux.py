"""Streams that are copied: everything beside the restored video, packet by packet."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction

import av
from av.stream import Discard, Disposition

from stream.convert import SoundConverter, TextConverter

MOV = ("mp4", "mov", "ipod", "3gp", "3g2", "psp", "ismv", "f4v")
"""Muxers of the QuickTime family, by FFmpeg's names."""
_UNTOUCHED = ("major_brand", "minor_version", "compatible_brands", "encoder")
"""Container metadata that describes the old file's own making."""
_ITUNES = {
    "title", "artist", "album_artist", "composer", "album", "date", "encoding_tool", "comment", "genre",
    "copyright", "grouping", "lyrics", "description", "synopsis", "show", "episode_id", "network", "keywords",
    "media_type", "hd_video", "gapless_playback", "compilation", "track", "disc", "tmpo", "season_number",
    "episode_sort", "creation_time", "location", "timecode", "sort_name", "sort_artist", "sort_album",
    "sort_album_artist", "sort_composer", "sort_show",
}  # fmt: skip
_QUICKTIME = {"title", "artist", "album", "date", "comment", "genre", "copyright", "creation_time", "location",
              "timecode", "composer", "author", "make", "model", "performers", "keywords"}  # fmt: skip


def container_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """What of a file's metadata goes into the new file."""
    kept = {key: value for key, value in metadata.items() if key.lower() not in _UNTOUCHED}
    for key in list(kept):
        base, dash, language = key.rpartition("-")
        if dash and len(language) == 3 and kept.get(base) == kept[key]:
            del kept[key]  # FFmpeg lists a mov tag twice, once with its language
    return kept


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
    if free is not None:
        return metadata | {free: note}
    return metadata | {taken[keys[0]]: f"{metadata[taken[keys[0]]]}; {note}"}


class Copier:
    """Reads the input a second time and hands on the packets of all streams but the main one.

    window: (start, end) in seconds of the input's own clock; packets outside are left out.
    shift: seconds taken off every timestamp. `losses` names what the output cannot hold, `notes`
    what was converted.
    """

    def __init__(self, source, main, output, *, same: bool, window, shift: Fraction) -> None:
        self.losses: list[str] = []
        self.notes: list[str] = []
        self._source, self._main, self._output = source, main, output
        self._same = same
        self._window: tuple[Fraction | None, Fraction | None] = window
        self._shift = shift
        self._copies: dict[int, av.stream.Stream] = {}
        self._converters: dict[int, SoundConverter | TextConverter] = {}
        self._packets: Iterator[av.Packet] = iter(())
        self._waiting: list[av.Packet] = []

    def add_streams(self) -> None:
        """Make the output's streams; called once, after the video stream was made."""
        for stream in self._source.streams:
            if stream.index != self._main.index:
                self._add(stream)
        self._main.discard = Discard.all
        wanted = [self._source.streams[index] for index in (*self._copies, *self._converters)]
        if wanted:
            self._packets = self._source.demux(wanted)

    def until(self, limit: Fraction | None) -> Iterator[av.Packet]:
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

    def _add(self, stream) -> None:
        muxer = self._output.format.name
        if self._made_by_muxer(stream):
            return
        picture = bool(stream.disposition & Disposition.attached_pic)
        if picture and muxer == "matroska":
            self._attach(stream)
            return
        if self._holds(stream, picture):
            copy = self._make(self._output, stream)
            copy.metadata.update(stream.metadata)
            copy.disposition = stream.disposition
            if muxer == "mpegts":
                copy.id = stream.id
            self._copies[stream.index] = copy
            return
        name = f"{stream.type} stream {stream.index} ({_codec_name(stream)})"
        if stream.type == "audio" and stream.codec_context is not None:
            converter = SoundConverter(stream, self._output, "libopus" if muxer == "webm" else "aac")
        elif stream.type == "subtitle" and TextConverter.reads(stream) and muxer in (*MOV, "matroska"):
            converter = TextConverter(stream, self._output, "subrip" if muxer == "matroska" else "mov_text")
        else:
            self.losses.append(name)
            return
        self.notes.append(f"{self._source.name}: {name} becomes {converter.codec}")
        converter.copy.metadata.update(stream.metadata)
        converter.copy.disposition = stream.disposition
        self._converters[stream.index] = converter

    def _made_by_muxer(self, stream) -> bool:
        """Chapter text and timecode tracks: the muxer makes its own from chapters and tags."""
        if stream.type != "data":
            return False
        return stream.discard == Discard.all or (
            "timecode" in stream.metadata and "timecode" in self._main.metadata
        )

    def _make(self, output, stream):
        if stream.codec_context is None or not self._same:
            return output.add_stream_from_template(stream, opaque=True)
        # A stream without codec context keeps every parameter, side data and the codec's tag.
        copy = output.add_mux_stream(stream.codec_context.codec.canonical_name)
        av.bitstream.BitStreamFilterContext("null", in_stream=stream, out_stream=copy)
        copy.time_base = stream.time_base
        return copy

    def _holds(self, stream, picture: bool) -> bool:
        """Whether the output's container takes the stream: a header is written to memory."""
        if stream.type == "attachment" and self._output.format.name != "matroska":
            return False
        if picture and self._output.format.name not in (*MOV, "mp3", "flac", "asf"):
            return False
        with io.BytesIO() as memory:
            trial = av.open(memory, "w", format=self._output.format.name)
            try:
                copy = self._make(trial, stream)
                copy.disposition = stream.disposition
                trial.start_encoding()
            except (av.FFmpegError, ValueError):
                return False
            finally:
                try:
                    trial.close()
                except (av.FFmpegError, ValueError):
                    pass  # only the header counts
        return True

    def _attach(self, stream) -> None:
        """A cover picture becomes an attachment, which is what Matroska shows as a cover."""
        with av.open(self._source.name, options={"protocol_whitelist": "file"}) as container:
            data = next((bytes(p) for p in container.demux(container.streams[stream.index]) if p.size), b"")
        kind = "png" if _codec_name(stream) == "png" else "jpeg"
        name = stream.metadata.get("filename", f"cover.{'png' if kind == 'png' else 'jpg'}")
        copy = self._output.add_attachment(name, stream.metadata.get("mimetype", f"image/{kind}"), data)
        copy.metadata.update(stream.metadata)

    def _next(self) -> list[av.Packet]:
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

    def _in_window(self, packet: av.Packet) -> bool:
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


def chapters(source, window, shift: Fraction) -> list[dict]:
    """The input's chapters, cut to the window and shifted (seconds)."""
    start, end = window
    kept = []
    for chapter in source.chapters():
        unit = chapter["time_base"]
        first, last = chapter["start"] * unit, chapter["end"] * unit
        if (start is not None and last <= start) or (end is not None and first >= end):
            continue
        first = first if start is None else max(first, start)
        last = last if end is None else min(last, end)
        begin, stop = round((first - shift) / unit), round((last - shift) / unit)
        kept.append(chapter | {"start": begin, "end": stop})
    return kept


def _codec_name(stream) -> str:
    context = stream.codec_context
    return context.codec.canonical_name if context is not None else getattr(stream, "name", None) or "unknown"
