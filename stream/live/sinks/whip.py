"""A sink that publishes by WebRTC to a media server (WHIP), which passes the picture on to browsers.

It uses aiortc, an optional dependency. FFmpeg's own WHIP muxer does not work here: its handshake fails with
the TLS library of PyAV's wheel, and it answers no consent checks, so that a peer disconnects it after 15 s
(measured with av 18.1).
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

from stream.live.packets import LIVE_TIME_BASE, EpochStart, Message, Packet
from stream.live.sinks import SinkSpec
from stream.live.sinks.sink import LiveSink, SinkError
from stream.live.status import ConnectionState
from stream.pipeline.processes import start_thread

if TYPE_CHECKING:
    import aiortc

Result = TypeVar("Result")
_HTTP_S, _CONNECT_S, _CLOSE_S = 5.0, 10.0, 2.0
_MAX_ANSWER = 1 << 16
_MAX_WAITING = 50
"""Packets that wait for the sender. Sending does not block: when more wait, the sender is stuck."""
_REASONS = {
    401: (ConnectionState.UNAUTHORISED, "wants a token; write whip:https://TOKEN@HOST/PATH"),
    403: (ConnectionState.UNAUTHORISED, "forbids publishing; check the token's rights"),
    404: (ConnectionState.REFUSED, "knows no such path; check it"),
    409: (ConnectionState.REFUSED, "lets nobody publish there now; is it taken?"),
}


class WhipSink(LiveSink):
    """Connects with the first keyframe. It sends H.264 as it was encoded, and no sound."""

    def __init__(self, spec: SinkSpec) -> None:
        self.detail = "without sound"
        self._shown = spec.shown
        self._url, self._headers = _address(spec.target)
        self._start: EpochStart | None = None
        self._loop: _Loop | None = None
        """The event loop, which exists from `open` to `close`."""
        self._peer: _Peer | None = None
        """The connection, which exists from the first keyframe to `close`."""
        self._resource = ""

    def open(self) -> None:
        """Check that the library is installed, and start its thread. Raises SinkError."""
        try:
            import aiortc  # noqa: F401
        except ImportError as error:
            raise SinkError(
                f"{self._shown}: pip install 'gpen-stream[whip]' first", ConnectionState.REFUSED
            ) from error
        self._loop = _Loop()

    def write(self, message: Message) -> None:
        """Send a packet. Raises SinkError where the server does not answer or the connection is lost."""
        if isinstance(message, EpochStart):
            self._start = message
        elif isinstance(message, Packet) and message.is_video and self._start is not None:
            if self._peer is None and message.keyframe and self._loop is not None:
                self._connect(self._loop)
            if self._peer is not None:
                self._check(self._peer)
                self._peer.send(_av_packet(message, self._start))

    def idle(self) -> None:
        """Check the connection. Raises SinkError where it is lost."""
        if self._peer is not None:
            self._check(self._peer)

    def close(self) -> None:
        """Leave the server and end the thread. Idempotent."""
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
        """Connect to the server; returns once packets can be sent. Raises SinkError."""
        from aiortc import InvalidStateError

        try:
            peer, offer = loop.run(_create_peer(), _CONNECT_S)
            self._peer = peer
            answer = self._exchange(offer)
            try:
                loop.run(peer.accept(answer), _CONNECT_S)
            except (ValueError, InvalidStateError, AssertionError) as error:
                raise SinkError(
                    f"{self._shown}: gave no WebRTC answer; check the address", ConnectionState.REFUSED
                ) from error
            loop.run(peer.wait_until_connected(), _CONNECT_S)
        except TimeoutError as error:
            raise SinkError(f"{self._shown}: no WebRTC connection comes about; is UDP blocked?") from error

    def _exchange(self, offer: str) -> str:
        """Send the SDP offer and return the server's SDP answer. Raises SinkError."""
        try:
            with self._request("POST", self._url, offer.encode()) as response:
                answer = response.read(_MAX_ANSWER).decode(errors="replace")
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
        """Run a coroutine in the loop and return its result. Raises its exception, or TimeoutError."""
        return asyncio.run_coroutine_threadsafe(step, self._loop).result(timeout_s)

    def stop(self) -> None:
        """End the thread; may be called once only."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Peer:
    """A WebRTC connection that sends H.264 packets.

    The constructor and the coroutines run in the loop's thread; `is_connected` and `send` in any thread.
    """

    def __init__(self) -> None:
        import aiortc

        self._loop = asyncio.get_running_loop()
        self._packets: asyncio.Queue[av.Packet[Stream]] = asyncio.Queue(_MAX_WAITING)
        self._awaits_keyframe = False
        """Whether packets were dropped, so that the next one that can be decoded is a keyframe."""
        # No STUN server is needed: the media server sees the address from which the packets come.
        self._connection = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        transceiver = self._connection.addTransceiver(_track(self._packets), direction="sendonly")
        codecs = aiortc.RTCRtpSender.getCapabilities("video").codecs
        transceiver.setCodecPreferences([codec for codec in codecs if codec.mimeType == "video/H264"])

    async def offer(self) -> str:
        """The SDP offer for the server."""
        await self._connection.setLocalDescription(await self._connection.createOffer())
        return self._connection.localDescription.sdp

    async def accept(self, answer: str) -> None:
        """Apply the server's SDP answer.

        Raises ValueError, InvalidStateError or AssertionError where it is no valid answer.
        """
        from aiortc import RTCSessionDescription

        await self._connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    async def wait_until_connected(self) -> None:
        """Wait until the connection is established or has failed."""
        while self._connection.connectionState in ("new", "connecting"):
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    @property
    def is_connected(self) -> bool:
        """Whether packets reach the server."""
        return self._connection.connectionState == "connected"

    def send(self, coded: av.Packet[Stream]) -> None:
        """Send a packet. Where the sender is stuck, drop it and what follows up to the next keyframe."""
        self._loop.call_soon_threadsafe(self._put, coded)

    def _put(self, coded: av.Packet[Stream]) -> None:
        self._awaits_keyframe = self._packets.full() or (self._awaits_keyframe and not coded.is_keyframe)
        if not self._awaits_keyframe:
            self._packets.put_nowait(coded)


async def _create_peer() -> tuple[_Peer, str]:
    """A new connection and its SDP offer."""
    peer = _Peer()
    return peer, await peer.offer()


def _track(packets: asyncio.Queue[av.Packet[Stream]]) -> aiortc.MediaStreamTrack:
    """A track of encoded packets, which aiortc sends without encoding them again."""
    from aiortc import MediaStreamTrack

    class EncodedTrack(MediaStreamTrack):
        kind = "video"

        async def recv(self) -> av.Packet[Stream]:
            return await packets.get()

    return EncodedTrack()


def _av_packet(packet: Packet, start: EpochStart) -> av.Packet[Stream]:
    """A packet in the form that aiortc needs."""
    # Every keyframe carries the parameter sets, for viewers who have not seen the first one.
    head = start.video.extradata if packet.keyframe else b""
    coded = av.Packet(head + packet.data)
    coded.pts, coded.time_base = packet.pts, Fraction(LIVE_TIME_BASE)
    coded.is_keyframe = packet.keyframe
    return coded


def _address(target: str) -> tuple[str, dict[str, str]]:
    """The address without its credentials, and the header that holds them.

    Credentials are TOKEN@ or USER:PASSWORD@ before the host.
    """
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
