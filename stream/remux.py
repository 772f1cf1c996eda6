"""Streams that are copied: everything beside the restored video, packet by packet."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av

from stream.errors import EncodeError


class Copier:
    """Reads the input a second time and hands on the packets of all streams but the main one.

    window: (start, end) in seconds of the input's own clock; packets outside are left out.
    shift: seconds taken off every timestamp.
    """

    def __init__(self, source, main, output, *, window, shift: Fraction) -> None:
        self._source = source
        self._output = output
        self._window: tuple[Fraction | None, Fraction | None] = window
        self._shift = shift
        self._main = main
        self._streams: dict[int, av.stream.Stream] = {}
        self._packets: Iterator[av.Packet] = iter(())
        self._waiting: av.Packet | None = None

    def add_streams(self, same_container: bool) -> None:
        """Make the output's streams; called once, after the video stream was made."""
        for stream in self._source.streams:
            if stream.index == self._main.index:
                continue
            self._streams[stream.index] = self._add(stream, same_container)
        self._main.discard = av.stream.Discard.all
        self._packets = self._source.demux([self._source.streams[i] for i in self._streams]) if self._streams else iter(())

    def _add(self, stream, same_container: bool):
        if stream.codec_context is None or not same_container:
            copy = self._output.add_stream_from_template(stream, opaque=True)
        else:
            copy = self._output.add_mux_stream(stream.codec_context.codec.canonical_name)
            av.bitstream.BitStreamFilterContext("null", in_stream=stream, out_stream=copy)
            copy.time_base = stream.time_base
        copy.metadata.update(stream.metadata)
        copy.disposition = stream.disposition
        copy.id = stream.id
        return copy

    def until(self, limit: Fraction | None) -> Iterator[av.Packet]:
        """Packets whose decoding time, in seconds of the output's clock, is at most `limit`."""
        while True:
            packet = self._waiting or self._next()
            self._waiting = None
            if packet is None:
                return
            if limit is not None and packet.dts is not None and packet.dts * packet.time_base > limit:
                self._waiting = packet
                return
            yield packet

    def _next(self) -> av.Packet | None:
        start, end = self._window
        for packet in self._packets:
            if packet.size == 0 and packet.dts is None:
                continue
            copy = self._streams[packet.stream.index]
            time = packet.pts if packet.pts is not None else packet.dts
            if time is not None:
                at = time * packet.time_base
                if (start is not None and at < start) or (end is not None and at >= end):
                    continue
                move = round(self._shift / packet.time_base)
                if move:
                    packet.pts = None if packet.pts is None else packet.pts - move
                    packet.dts = None if packet.dts is None else packet.dts - move
            packet.stream = copy
            return packet
        return None
