"""RTSP and RTMP: the picture published to a server."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

import av

from stream.live.packets import Message, Packet, Start
from stream.live.sinks import SinkSpec
from stream.live.sinks.muxer import Muxer
from stream.live.sinks.sink import SinkError, same_coding
from stream.live.status import ConnectionState

_TIMEOUT_S = 5.0
_PORTS = {"rtsp": 554, "rtsps": 322, "rtmp": 1935, "rtmps": 443}
_REASONS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], ConnectionState, str], ...] = (
    (ConnectionRefusedError, ConnectionState.REFUSED, "nobody listens there; check host and port"),
    (av.HTTPUnauthorizedError, ConnectionState.UNAUTHORISED, "wants another user name or password"),
    (av.HTTPForbiddenError, ConnectionState.UNAUTHORISED, "forbids publishing; check the user's rights"),
    (av.HTTPNotFoundError, ConnectionState.REFUSED, "knows no such path; check it"),
    (av.HTTPTooManyRequestsError, ConnectionState.RETRYING, "is asked too often"),
    (av.HTTPServerError, ConnectionState.RETRYING, "has trouble of its own (5xx); see its log"),
    (PermissionError, ConnectionState.REFUSED, "lets nobody publish under this name now; is it taken?"),
    (TimeoutError, ConnectionState.RETRYING, "does not answer"),
    ((BrokenPipeError, ConnectionResetError), ConnectionState.RETRYING, "closed the connection"),
)

_REFUSES_SILENT = "refuses H.264 without sound (4xx); it may want sound"
_REFUSES_SOUND = "refuses H.264 with AAC sound (4xx); it may want none: set source.audio to false"


class Publisher:
    """Connects with the first keyframe, and again where an epoch is coded otherwise.

    A server that accepts and falls silent blocks `write` (RTMP has no time-out in FFmpeg): then the
    sink's process hangs and is replaced by whoever watches it.
    """

    format: str
    """FFmpeg's muxer."""
    options: Mapping[str, str] = {}
    wanted = True
    detail = ""

    def __init__(self, spec: SinkSpec) -> None:
        self._url, self._shown = spec.target, spec.shown
        self._start: Start | None = None
        self._muxer: Muxer | None = None

    def open(self) -> None:
        """See that somebody listens there: this attempt ends in time, FFmpeg's own may not."""
        parts = urlsplit(self._url)
        try:
            port = parts.port or _PORTS[parts.scheme.lower()]
            socket.create_connection((parts.hostname, port), _TIMEOUT_S).close()
        except socket.gaierror as error:
            raise SinkError(
                f"{self._shown}: no such host; check the name", ConnectionState.REFUSED
            ) from error
        except (OSError, ValueError) as error:
            raise self._reason(error) from error

    def write(self, message: Message) -> None:
        """Send a packet."""
        if isinstance(message, Start):
            if not same_coding(self._start, message):
                self.close()
            self._start = message
        elif isinstance(message, Packet):
            try:
                if self._muxer is None and message.keyframe and self._start is not None:
                    self._muxer = self._connect(self._start, message)
                if self._muxer is not None:
                    self._muxer.write(message)
            except (av.FFmpegError, OSError) as error:
                raise self._reason(error) from error

    def idle(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Leave the server; where it is gone already, nothing is lost."""
        muxer, self._muxer = self._muxer, None
        if muxer is not None:
            with contextlib.suppress(av.FFmpegError, OSError):
                muxer.close()

    def _connect(self, start: Start, keyframe: Packet) -> Muxer:
        limits = _TIMEOUT_S, _TIMEOUT_S
        return Muxer(self._url, start, keyframe, format=self.format, options=self.options, timeout_s=limits)

    def _reason(self, error: Exception) -> SinkError:
        """Why it failed, in one line without FFmpeg's own words, which hold the address."""
        for kind, state, words in _REASONS:
            if isinstance(error, kind):
                return SinkError(f"{self._shown}: {words}", state)
        if isinstance(error, av.HTTPClientError):
            silent = self._start is None or self._start.audio is None
            words = _REFUSES_SILENT if silent else _REFUSES_SOUND
            return SinkError(f"{self._shown}: {words}", ConnectionState.REFUSED)
        if self._muxer is not None:
            return SinkError(f"{self._shown}: closed the connection")
        return SinkError(f"{self._shown}: {self._no_answer}", ConnectionState.REFUSED)

    _no_answer = "gives no answer that makes sense; check the address"


class RtspSink(Publisher):
    """ANNOUNCE and RECORD, packets inside the same connection."""

    format = "rtsp"
    options: Mapping[str, str] = {"rtsp_transport": "tcp", "timeout": str(round(_TIMEOUT_S * 1e6))}


class RtmpSink(Publisher):
    """H.264 and AAC in FLV."""

    format = "flv"
    options: Mapping[str, str] = {"flvflags": "no_duration_filesize"}
    _no_answer = "refused the stream; check the application's name and the key"
