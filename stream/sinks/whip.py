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
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import av

from stream.packets import LIVE_TIME_BASE, Message, Packet, Start
from stream.sinks import SinkSpec
from stream.sinks.base import SinkError
from stream.status import State
from stream.workers import start_thread

_HTTP_S, _CONNECT_S, _CLOSE_S = 5.0, 10.0, 2.0
_MOST_ANSWER = 1 << 16
_WAITING = 50
"""Packets on their way to the sender; sending never blocks, so that more means that it is stuck."""
_REASONS = {
    401: (State.UNAUTHORISED, "wants a token; write whip:https://TOKEN@HOST/PATH"),
    403: (State.UNAUTHORISED, "forbids publishing; check the token's rights"),
    404: (State.REFUSED, "knows no such path; check it"),
    409: (State.REFUSED, "lets nobody publish there now; is it taken?"),
}


class WhipSink:
    """Connects with the first keyframe. H.264 goes out as it was encoded; sound is left out."""

    wanted = True

    def __init__(self, spec: SinkSpec) -> None:
        self.detail = "without sound"
        self._shown = spec.shown
        self._url, self._headers = _address(spec.target)
        self._start: Start | None = None
        self._loop = self._thread = self._library = None
        self._peer = self._packets = None
        self._resource = ""
        self._behind = False
        """Packets were dropped: the next that can be shown is a keyframe."""

    def open(self) -> None:
        """See that the library is there, start its thread. Raises SinkError."""
        try:
            import aiortc
        except ImportError as error:
            raise SinkError(f"{self._shown}: pip install 'gpen-stream[whip]' first", State.REFUSED) from error
        self._library = aiortc
        self._loop = asyncio.new_event_loop()
        self._thread = start_thread("webrtc", self._loop.run_forever)

    def write(self, message: Message) -> None:
        """Send a packet. Raises SinkError where the server is not there or the connection is lost."""
        if isinstance(message, Start):
            self._start = message
        elif isinstance(message, Packet) and message.is_video:
            if self._peer is None and message.keyframe:
                self._connect()
            if self._peer is not None:
                self._check()
                self._send(message)

    def idle(self) -> None:
        """Notice that the connection is lost."""
        if self._peer is not None:
            self._check()

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
                asyncio.run_coroutine_threadsafe(peer.close(), loop).result(_CLOSE_S)
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        loop.close()

    def _connect(self) -> None:
        rtc = self._library
        self._peer = self._run(self._create_peer(), _CONNECT_S)
        answer = self._exchange(self._peer.localDescription.sdp)
        description = rtc.RTCSessionDescription(answer, "answer")
        try:
            self._run(self._peer.setRemoteDescription(description), _CONNECT_S)
        except (ValueError, rtc.exceptions.InvalidStateError, AssertionError) as error:
            raise SinkError(
                f"{self._shown}: gave no WebRTC answer; check the address", State.REFUSED
            ) from error
        self._run(self._connected(), _CONNECT_S)

    async def _create_peer(self):
        rtc = self._library
        # No STUN server is asked: the media server sees where the packets come from.
        peer = rtc.RTCPeerConnection(rtc.RTCConfiguration(iceServers=[]))
        self._packets = asyncio.Queue(_WAITING)
        transceiver = peer.addTransceiver(_track(rtc, self._packets), direction="sendonly")
        codecs = rtc.RTCRtpSender.getCapabilities("video").codecs
        transceiver.setCodecPreferences([codec for codec in codecs if codec.mimeType == "video/H264"])
        await peer.setLocalDescription(await peer.createOffer())
        return peer

    async def _connected(self) -> None:
        while self._peer.connectionState in ("new", "connecting"):
            await asyncio.sleep(0.02)

    def _exchange(self, offer: str) -> str:
        """The server's answer to an offer."""
        try:
            with self._request("POST", self._url, offer.encode()) as response:
                answer = response.read(_MOST_ANSWER).decode(errors="replace")
                self._resource = urljoin(self._url, response.headers.get("Location") or "")
        except urllib.error.HTTPError as error:
            state, words = _REASONS.get(error.code, (State.REFUSED, f"answered {error.code} {error.reason}"))
            raise SinkError(f"{self._shown}: {words}", state) from error
        except TimeoutError as error:
            raise SinkError(f"{self._shown}: does not answer") from error
        except (OSError, http.client.HTTPException) as error:
            raise SinkError(
                f"{self._shown}: nobody answers there; check the address", State.REFUSED
            ) from error
        return answer

    def _request(self, method: str, url: str, body: bytes | None):
        headers = self._headers | ({"Content-Type": "application/sdp"} if body else {})
        request = urllib.request.Request(url, body, headers, method=method)
        return urllib.request.urlopen(request, timeout=_HTTP_S)

    def _run(self, step: Coroutine[Any, Any, Any], timeout_s: float) -> Any:
        try:
            return asyncio.run_coroutine_threadsafe(step, self._loop).result(timeout_s)
        except TimeoutError as error:
            raise SinkError(f"{self._shown}: no WebRTC connection comes about; is UDP blocked?") from error

    def _check(self) -> None:
        if self._peer.connectionState != "connected":
            raise SinkError(f"{self._shown}: the WebRTC connection was lost")

    def _send(self, packet: Packet) -> None:
        # Parameter sets go with every keyframe: whoever begins to look has not seen the first.
        head = self._start.video.extradata if packet.keyframe else b""
        coded = av.Packet(head + packet.data)
        coded.pts, coded.time_base = packet.pts, Fraction(LIVE_TIME_BASE)
        coded.is_keyframe = packet.keyframe
        self._loop.call_soon_threadsafe(self._put, coded)

    def _put(self, coded: av.Packet) -> None:
        self._behind = self._packets.full() or (self._behind and not coded.is_keyframe)
        if not self._behind:
            self._packets.put_nowait(coded)


def _track(rtc, packets: asyncio.Queue):
    """A track of coded packets: aiortc packs them as they are."""

    class CodedTrack(rtc.MediaStreamTrack):
        kind = "video"

        async def recv(self) -> av.Packet:
            return await packets.get()

    return CodedTrack()


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
