"""WebRTC out by WHIP: to a media server, which hands the picture to browsers within moments.

By aiortc, an extra, and not by FFmpeg's muxer of this name: with the TLS of PyAV's wheel its handshake
fails, and it answers no consent checks, so that a peer gives it up after 15 s (measured: av 18.1).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Coroutine
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urljoin, urlsplit

import av
from av.stream import Stream

from stream.live.packets import LIVE_TIME_BASE, Message, Packet, Start
from stream.live.sinks import SinkSpec
from stream.live.sinks.sink import SinkError
from stream.live.status import ConnectionState
from stream.pipeline.processes import start_thread

if TYPE_CHECKING:
    import aiortc

Result = TypeVar("Result")
_HTTP_S, _CONNECT_S, _CLOSE_S = 5.0, 10.0, 2.0
_MOST_ANSWER = 1 << 16
_WAITING = 50
"""Packets on their way to the sender; sending never blocks, so that more means that it is stuck."""
_REASONS = {
    401: (ConnectionState.UNAUTHORISED, "wants a token; write whip:https://TOKEN@HOST/PATH"),
    403: (ConnectionState.UNAUTHORISED, "forbids publishing; check the token's rights"),
    404: (ConnectionState.REFUSED, "knows no such path; check it"),
    409: (ConnectionState.REFUSED, "lets nobody publish there now; is it taken?"),
}


class WhipSink:
    """Connects with the first keyframe. H.264 goes out as it was encoded; sound is left out."""

    wanted = True

    def __init__(self, spec: SinkSpec) -> None:
        self.detail = "without sound"
        self._shown = spec.shown
        self._url, self._headers = _address(spec.target)
        self._start: Start | None = None
        self._loop: _Loop | None = None
        """From `open` to `close`."""
        self._peer: _Peer | None = None
        """From the first keyframe to `close`."""
        self._resource = ""

    def open(self) -> None:
        """See that the library is there, start its thread. Raises SinkError."""
        try:
            import aiortc  # noqa: F401
        except ImportError as error:
            raise SinkError(
                f"{self._shown}: pip install 'gpen-stream[whip]' first", ConnectionState.REFUSED
            ) from error
        self._loop = _Loop()

    def write(self, message: Message) -> None:
        """Send a packet. Raises SinkError where the server is not there or the connection is lost."""
        if isinstance(message, Start):
            self._start = message
        elif isinstance(message, Packet) and message.is_video and self._start is not None:
            if self._peer is None and message.keyframe and self._loop is not None:
                self._connect(self._loop)
            if self._peer is not None:
                self._check(self._peer)
                self._peer.send(_coded(message, self._start))

    def idle(self) -> None:
        """Notice that the connection is lost."""
        if self._peer is not None:
            self._check(self._peer)

    def close(self) -> None:
        """Leave the server, end the thread. Idempotent."""
        peer, self._peer = self._peer, None
        resource, self._resource = self._resource, ""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        if resource:
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._request("DELETE", resource, None).close()
        if peer is not None:
            with contextlib.suppress(TimeoutError):
                loop.run(peer.close(), _CLOSE_S)
        loop.stop()

    def _connect(self, loop: _Loop) -> None:
        """Offer the picture to the server; returns once packets can be sent, or the connection failed."""
        from aiortc import InvalidStateError

        try:
            peer, offer = loop.run(_offering(), _CONNECT_S)
            self._peer = peer
            answer = self._exchange(offer)
            try:
                loop.run(peer.accept(answer), _CONNECT_S)
            except (ValueError, InvalidStateError, AssertionError) as error:
                raise SinkError(
                    f"{self._shown}: gave no WebRTC answer; check the address", ConnectionState.REFUSED
                ) from error
            loop.run(peer.settle(), _CONNECT_S)
        except TimeoutError as error:
            raise SinkError(f"{self._shown}: no WebRTC connection comes about; is UDP blocked?") from error

    def _exchange(self, offer: str) -> str:
        """The server's answer to an offer."""
        try:
            with self._request("POST", self._url, offer.encode()) as response:
                answer = response.read(_MOST_ANSWER).decode(errors="replace")
                self._resource = urljoin(self._url, response.headers.get("Location") or "")
        except urllib.error.HTTPError as error:
            state, words = _REASONS.get(
                error.code, (ConnectionState.REFUSED, f"answered {error.code} {error.reason}")
            )
            raise SinkError(f"{self._shown}: {words}", state) from error
        except TimeoutError as error:
            raise SinkError(f"{self._shown}: does not answer") from error
        except (OSError, http.client.HTTPException) as error:
            raise SinkError(
                f"{self._shown}: nobody answers there; check the address", ConnectionState.REFUSED
            ) from error
        return answer

    def _request(self, method: str, url: str, body: bytes | None) -> http.client.HTTPResponse:
        headers = self._headers | ({"Content-Type": "application/sdp"} if body else {})
        request = urllib.request.Request(url, body, headers, method=method)
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_HTTP_S)
        return response

    def _check(self, peer: _Peer) -> None:
        if not peer.is_connected:
            raise SinkError(f"{self._shown}: the WebRTC connection was lost")


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = start_thread("webrtc", self._loop.run_forever)

    def run(self, step: Coroutine[Any, Any, Result], timeout_s: float) -> Result:
        """What a coroutine returns. Raises what it raises, and TimeoutError."""
        return asyncio.run_coroutine_threadsafe(step, self._loop).result(timeout_s)

    def stop(self) -> None:
        """End the thread; to be called once."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Peer:
    """A WebRTC connection that sends H.264 packets.

    It is made, and its coroutines run, in the loop's thread; `is_connected` and `send` are for any.
    """

    def __init__(self) -> None:
        import aiortc

        self._loop = asyncio.get_running_loop()
        self._packets: asyncio.Queue[av.Packet[Stream]] = asyncio.Queue(_WAITING)
        self._behind = False
        """Packets were dropped: the next that can be shown is a keyframe."""
        # No STUN server is asked: the media server sees where the packets come from.
        self._connection = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        transceiver = self._connection.addTransceiver(_track(self._packets), direction="sendonly")
        codecs = aiortc.RTCRtpSender.getCapabilities("video").codecs
        transceiver.setCodecPreferences([codec for codec in codecs if codec.mimeType == "video/H264"])

    async def offer(self) -> str:
        """The SDP to be sent to the server."""
        await self._connection.setLocalDescription(await self._connection.createOffer())
        return self._connection.localDescription.sdp

    async def accept(self, answer: str) -> None:
        """Take the server's SDP. Raises ValueError, InvalidStateError or AssertionError where it is none."""
        from aiortc import RTCSessionDescription

        await self._connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    async def settle(self) -> None:
        """Wait until it is connected, or has failed."""
        while self._connection.connectionState in ("new", "connecting"):
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        """Leave the server."""
        await self._connection.close()

    @property
    def is_connected(self) -> bool:
        """Whether packets reach the server."""
        return self._connection.connectionState == "connected"

    def send(self, coded: av.Packet[Stream]) -> None:
        """Send a packet; drop it, and what follows up to a keyframe, where the sender is stuck."""
        self._loop.call_soon_threadsafe(self._put, coded)

    def _put(self, coded: av.Packet[Stream]) -> None:
        self._behind = self._packets.full() or (self._behind and not coded.is_keyframe)
        if not self._behind:
            self._packets.put_nowait(coded)


async def _offering() -> tuple[_Peer, str]:
    """A new connection, and its offer."""
    peer = _Peer()
    return peer, await peer.offer()


def _track(packets: asyncio.Queue[av.Packet[Stream]]) -> aiortc.MediaStreamTrack:
    """A track of coded packets: aiortc packs them as they are."""
    from aiortc import MediaStreamTrack

    class CodedTrack(MediaStreamTrack):
        kind = "video"

        async def recv(self) -> av.Packet[Stream]:
            return await packets.get()

    return CodedTrack()


def _coded(packet: Packet, start: Start) -> av.Packet[Stream]:
    """A packet as aiortc takes it."""
    # Parameter sets go with every keyframe: whoever begins to look has not seen the first.
    head = start.video.extradata if packet.keyframe else b""
    coded = av.Packet(head + packet.data)
    coded.pts, coded.time_base = packet.pts, Fraction(LIVE_TIME_BASE)
    coded.is_keyframe = packet.keyframe
    return coded


def _address(target: str) -> tuple[str, dict[str, str]]:
    """The address without its credentials, and the header that holds them: TOKEN@ or USER:PASSWORD@."""
    parts = urlsplit(target)
    user, _, host = parts.netloc.rpartition("@")
    if not user:
        return target, {}
    name, colon, password = user.partition(":")
    if colon:
        pair = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
        header = f"Basic {pair}"
    else:
        header = f"Bearer {unquote(user)}"
    return parts._replace(netloc=host).geturl(), {"Authorization": header}
