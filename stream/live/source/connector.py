"""Opens a live source again and again, and remembers what earlier attempts have shown."""

from __future__ import annotations

import threading

from stream.config_live import SourceSettings
from stream.live.source.address import Address
from stream.live.source.connection import (
    ANALYSE_S,
    NO_VIDEO,
    NOBODY_LISTENS,
    ConnectionFailure,
    FFmpegSource,
    OpenSource,
)
from stream.live.source.test_pattern import PatternSource
from stream.live.status import Drops


class Connector:
    """Opens a source by the transport, the length of analysis and the decoder that suit it.

    RTSP is tried by TCP and by UDP in turn until pictures come. FFmpeg looks longer for streams after
    it has found no video. Hardware that has failed once is not tried again.
    """

    def __init__(
        self,
        address: Address,
        source: SourceSettings,
        drops: Drops,
        stopping: threading.Event,
        *,
        threads: int,
        try_hardware: bool,
    ) -> None:
        self.notes: list[str] = []
        """Remarks for the user about the decoder, one line each."""
        self._address, self._source = address, source
        self._drops, self._stopping = drops, stopping
        self._threads, self._try_hardware = threads, try_hardware
        self._transport = "udp" if source.transport == "udp" else "tcp"
        self._transport_is_known = source.transport != "auto"
        self._analyse_s = ANALYSE_S[0]

    def open(self) -> OpenSource:
        """One attempt. Raises ConnectionFailure; SourceError for a file that cannot be read."""
        if self._address.kind == "test":
            return PatternSource(self._source, self._stopping)
        try:
            opened = FFmpegSource(
                self._address,
                self._source,
                self._drops,
                threads=self._threads,
                transport=self._transport,
                try_hardware=self._try_hardware,
                analyse_s=self._analyse_s,
            )
        except ConnectionFailure as failure:
            if failure.detail == NO_VIDEO:
                self._analyse_s = min(self._analyse_s * 4, ANALYSE_S[1])
            if not (self._transport_is_known or failure.slow or failure.detail == NOBODY_LISTENS):
                self._transport = "udp" if self._transport == "tcp" else "tcp"
            raise
        for note in opened.notes:
            self.use_software(note)  # hardware would fail, and cost time, at each reconnection
        return opened

    def keep_transport(self) -> None:
        """Use no other transport from now on: pictures have come by this one."""
        self._transport_is_known = True

    def use_software(self, reason: str) -> None:
        """Decode by software from now on; `reason` becomes a note."""
        self._try_hardware = False
        if reason not in self.notes:
            self.notes.append(reason)
