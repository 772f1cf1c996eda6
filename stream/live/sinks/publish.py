"""Sinks that publish to a server by RTSP or RTMP."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

import av

from stream.live.packets import EpochStart, Message, Packet
from stream.live.sinks import SinkSpec
from stream.live.sinks.muxer import Muxer
from stream.live.sinks.sink import LiveSink, SinkError, same_coding
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

_REFUSES_WITHOUT_SOUND = "refuses H.264 without sound (4xx); it may want sound"
_REFUSES_WITH_SOUND = "refuses H.264 with AAC sound (4xx); it may want none: set source.audio to false"


class Publisher(LiveSink):
    """Connects with the first keyframe, and again where a new epoch is coded differently.

    A server that accepts the connection and then stops reading blocks `write`, because FFmpeg has no
    time-out for RTMP. The sink's process then hangs, and `SinkHandle` replaces it.
    """

    format: str
    """Name of FFmpeg's muxer."""
    options: Mapping[str, str] = {}
    """Options of the muxer."""
    unknown_failure = "gives no answer that makes sense; check the address"
    """The text for a connection that fails for an unknown reason."""

    def __init__(self, spec: SinkSpec) -> None:
        self._url, self._shown = spec.target, spec.shown
        self._start: EpochStart | None = None
        self._muxer: Muxer | None = None

    def open(self) -> None:
        """Check that a server listens there. This attempt has a time-out; FFmpeg's own may not end."""
        parts = urlsplit(self._url)
        try:
            port = parts.port or _PORTS[parts.scheme.lower()]
            socket.create_connection((parts.hostname, port), _TIMEOUT_S).close()
        except socket.gaierror as error:
            raise SinkError(
                f"{self._shown}: no such host; check the name", ConnectionState.REFUSED
            ) from error
        except (OSError, ValueError) as error:
            raise self._sink_error(error) from error

    def write(self, message: Message) -> None:
        """Send a packet."""
        if isinstance(message, EpochStart):
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
                raise self._sink_error(error) from error

    def close(self) -> None:
        """Leave the server; it does no harm if the server is gone already."""
        muxer, self._muxer = self._muxer, None
        if muxer is not None:
            with contextlib.suppress(av.FFmpegError, OSError):
                muxer.close()

    def _connect(self, start: EpochStart, keyframe: Packet) -> Muxer:
        limits = _TIMEOUT_S, _TIMEOUT_S
        return Muxer(self._url, start, keyframe, format=self.format, options=self.options, timeout_s=limits)

    def _sink_error(self, error: Exception) -> SinkError:
        """Why the connection failed, in one line. FFmpeg's own message is left out: it holds the address."""
        for kind, state, words in _REASONS:
            if isinstance(error, kind):
                return SinkError(f"{self._shown}: {words}", state)
        if isinstance(error, av.HTTPClientError):
            silent = self._start is None or self._start.audio is None
            words = _REFUSES_WITHOUT_SOUND if silent else _REFUSES_WITH_SOUND
            return SinkError(f"{self._shown}: {words}", ConnectionState.REFUSED)
        if self._muxer is not None:
            return SinkError(f"{self._shown}: closed the connection")
        return SinkError(f"{self._shown}: {self.unknown_failure}", ConnectionState.REFUSED)


class RtspSink(Publisher):
    """Publishes by RTSP (ANNOUNCE and RECORD), with the packets inside the same TCP connection."""

    format = "rtsp"
    options: Mapping[str, str] = {"rtsp_transport": "tcp", "timeout": str(round(_TIMEOUT_S * 1e6))}


class RtmpSink(Publisher):
    """Publishes by RTMP: H.264 and AAC in FLV."""

    format = "flv"
    options: Mapping[str, str] = {"flvflags": "no_duration_filesize"}
    unknown_failure = "refused the stream; check the application's name and the key"
