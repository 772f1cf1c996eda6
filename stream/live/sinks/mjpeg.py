"""A sink that serves MJPEG over HTTP: any browser shows the picture, and always the newest one."""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import ipaddress
import os
import socket
from collections.abc import Callable, Mapping
from http import HTTPStatus

from stream.live.packets import JpegPicture, Message
from stream.live.sinks import SinkSpec
from stream.live.sinks.sink import LiveSink, SinkError
from stream.live.status import ConnectionState
from stream.pipeline.processes import start_thread

MAX_VIEWERS = 32
_REQUEST_S, _MAX_REQUEST = 10.0, 16384
"""Seconds and bytes within which a request must be complete."""
_SNAPSHOT_S = 5.0
"""How long a request for one picture waits for it."""
_STALLED_S = 10.0
"""A viewer that does not read one picture within this time is disconnected."""
_MAX_UNSENT = 16384
"""Bytes that the system's socket may hold unsent: less than a picture."""
_SEND_BUFFER = 65536
_BOUNDARY = "gpen-stream-picture"
_STYLE = "html,body{margin:0;height:100%;background:#111}img{width:100%;height:100%;object-fit:contain}"
_PAGE = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
    "<title>gpen-stream</title>"
    f'<style>{_STYLE}</style></head><body><img src="/stream" alt="Live picture"></body></html>'
).encode()
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "Cache-Control": "no-store",
    "Connection": "close",
    "Content-Security-Policy": (
        f"default-src 'none'; img-src 'self' data:; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class MjpegSink(LiveSink):
    """Serves `/` (a page), `/stream` and `/snapshot.jpg` from one thread.

    Only the newest picture is kept. A viewer gets it as soon as it has read the one before. A slow viewer
    therefore skips pictures, and delays no other viewer.
    """

    def __init__(self, spec: SinkSpec) -> None:
        host, _, port = spec.target.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._url = ""
        self._server: _Server | None = None
        self.wanted = False

    def open(self) -> None:
        """Bind the port. Raises SinkError where the port is taken or the host is not this machine."""
        address_shown = f"{self._host}:{self._port}"
        try:
            family, _, _, _, address = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)[0]
            listener = socket.create_server(address[:2], family=family, backlog=MAX_VIEWERS)
        except OSError as error:
            code = error.errno or 0
            reason = os.strerror(code).lower() if code in errno.errorcode else "no such host"
            raise SinkError(
                f"mjpeg:{address_shown}: {reason}; choose another port or host", ConnectionState.REFUSED
            ) from error
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._url = f"http://{host}:{listener.getsockname()[1]}/"
        self._set_viewers(0)
        self._server = _Server(listener, self._host, self._set_viewers)

    def write(self, message: Message) -> None:
        """Make this the newest picture; returns at once."""
        if isinstance(message, JpegPicture) and self._server is not None:
            self._server.show(message.data)

    def idle(self) -> None:
        """Check that the server still runs. Raises SinkError."""
        if self._server is not None and not self._server.is_alive:
            raise SinkError(f"mjpeg:{self._host}:{self._port}: the server ended; it is started again")

    def close(self) -> None:
        """Disconnect all viewers and free the port. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()
        self.wanted, self.detail = False, ""

    def _set_viewers(self, count: int) -> None:
        """Called by the server, in its thread."""
        self.wanted, self.detail = count > 0, f"{self._url}, {count} viewers"


class _Server:
    """An HTTP server with an event loop in a thread of its own, which the constructor starts.

    The public methods are for other threads. `on_viewers(count)` is called in the server's thread whenever
    the number of connections that wait for pictures has changed.
    """

    def __init__(self, listener: socket.socket, host: str, on_viewers: Callable[[int], None]) -> None:
        self._listener, self._names, self._on_viewers = listener, _names(host), on_viewers
        self._viewers = 0
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._newest: bytes | None = None
        self._next: asyncio.Future[bytes] = self._loop.create_future()
        """Gets the next picture as its result."""
        self._thread = start_thread("mjpeg server", self._run)

    @property
    def is_alive(self) -> bool:
        """Whether the server's thread still runs."""
        return self._thread.is_alive()

    def show(self, picture: bytes) -> None:
        """Make this JPEG the newest picture."""
        self._loop.call_soon_threadsafe(self._replace, picture)

    def stop(self) -> None:
        """Disconnect all viewers, free the port and wait for the thread to end."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        """Serve until `stop`; this is the thread's body."""
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()
            self._listener.close()

    def _replace(self, picture: bytes) -> None:
        if self._viewers:
            self._newest = picture
            upcoming, self._next = self._next, self._loop.create_future()
            upcoming.set_result(picture)

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._handle, sock=self._listener, limit=_MAX_REQUEST)
        await self._stopping.wait()
        server.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection: one request and its answer."""
        try:
            async with asyncio.timeout(_REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
            _limit_buffers(writer)
            await self._answer(reader, writer, *_request(head))
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # the viewer has left, sent no valid request or stalled; or the server stops
        finally:
            writer.transport.abort()  # what the viewer has not read is old

    async def _answer(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        method: str,
        path: str,
        headers: Mapping[str, str],
    ) -> None:
        if not self._is_own_name(headers.get("host", "")):
            await _send(writer, HTTPStatus.MISDIRECTED_REQUEST, b"This host name is not served here.\n")
        elif method not in ("GET", "HEAD"):
            await _send(writer, HTTPStatus.METHOD_NOT_ALLOWED, b"GET only.\n")
        elif path not in ("/", "/stream", "/snapshot.jpg"):
            await _send(writer, HTTPStatus.NOT_FOUND, b"There is /, /stream and /snapshot.jpg.\n")
        elif path == "/":
            await _send(writer, HTTPStatus.OK, _PAGE, "text/html; charset=utf-8", method == "HEAD")
        elif method == "HEAD":
            await _send(writer, HTTPStatus.OK, b"", _STREAM if path == "/stream" else "image/jpeg")
        elif self._viewers >= MAX_VIEWERS:
            await _send(writer, HTTPStatus.SERVICE_UNAVAILABLE, b"Too many viewers; try again later.\n")
        else:
            accepted = headers.get("accept", "")
            is_browser = "image/" in accepted or "text/html" in accepted
            await self._serve_viewer(reader, writer, path, is_browser)

    async def _serve_viewer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, is_browser: bool
    ) -> None:
        self._count_viewer(1)
        try:
            if path == "/stream":
                await self._stream(reader, writer, is_browser)
            else:
                await self._snapshot(writer)
        finally:
            self._count_viewer(-1)
            if not self._viewers:
                self._newest = None  # it becomes old, since no new pictures are made without viewers

    def _count_viewer(self, change: int) -> None:
        self._viewers += change
        self._on_viewers(self._viewers)

    async def _snapshot(self, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_SNAPSHOT_S):
                picture = await asyncio.shield(self._next)  # other viewers wait for it too
        except TimeoutError:
            await _send(writer, HTTPStatus.SERVICE_UNAVAILABLE, b"There is no picture now; try again.\n")
            return
        await _send(writer, HTTPStatus.OK, picture, "image/jpeg")

    async def _stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_browser: bool
    ) -> None:
        # A browser (Chromium, measured) shows a picture once it has read the head of the next part, so it
        # gets that head at once, and hence without a length. FFmpeg needs the length: without one it
        # waits for the next picture.
        boundary = f"--{_BOUNDARY}\r\n" + ("Content-Type: image/jpeg\r\n\r\n" if is_browser else "")
        writer.write(_head(HTTPStatus.OK, _STREAM) + boundary.encode())
        left = asyncio.ensure_future(reader.read(1))  # completes when the viewer leaves
        sent = None
        try:
            while not left.done():
                if self._newest is None or self._newest is sent:
                    await asyncio.wait((self._next, left), return_when=asyncio.FIRST_COMPLETED)
                    continue
                sent = self._newest
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(sent)}\r\n\r\n"
                writer.writelines((b"" if is_browser else head.encode(), sent, f"\r\n{boundary}".encode()))
                async with asyncio.timeout(_STALLED_S):
                    await writer.drain()
        finally:
            left.cancel()

    def _is_own_name(self, host: str) -> bool:
        """Whether a Host header names this machine: another site's name could point here (DNS rebinding)."""
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        name = name.strip("[]").lower()
        try:
            ipaddress.ip_address(name)
            return True
        except ValueError:
            return name in self._names


_STREAM = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"


def _names(host: str) -> frozenset[str]:
    """Host names under which the server answers; it answers under every address."""
    try:
        is_local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = host == "localhost"
    machine = () if is_local else (socket.gethostname().lower(), socket.getfqdn().lower())
    return frozenset(("localhost", host.lower(), *machine))


def _limit_buffers(writer: asyncio.StreamWriter) -> None:
    """Let the socket hold less than a picture, and the transport nothing but the current picture."""
    writer.transport.set_write_buffer_limits(high=0)
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _MAX_UNSENT)


def _request(head: bytes) -> tuple[str, str, dict[str, str]]:
    """Method, path without its query, and headers, whose names are in lower case."""
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, *_ = [*first.split(" "), "", ""]
    pairs = (line.partition(":") for line in lines)
    return method, target.partition("?")[0], {name.strip().lower(): value.strip() for name, _, value in pairs}


def _head(status: HTTPStatus, kind: str, length: int | None = None) -> bytes:
    headers = {"Content-Type": kind} | _HEADERS
    if length is not None:
        headers["Content-Length"] = str(length)
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


async def _send(
    writer: asyncio.StreamWriter,
    status: HTTPStatus,
    body: bytes,
    kind: str = "text/plain; charset=utf-8",
    head_only: bool = False,
) -> None:
    """Send a complete answer and end the connection."""
    writer.write(_head(status, kind, len(body)) + (b"" if head_only else body))
    async with asyncio.timeout(_STALLED_S):
        await writer.drain()
        writer.write_eof()
        await asyncio.sleep(0)
