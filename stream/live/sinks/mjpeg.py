"""MJPEG over HTTP: a picture that any browser shows, and never an old one."""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import ipaddress
import os
import socket
from collections.abc import Mapping
from http import HTTPStatus

from stream.live.packets import Jpeg, Message
from stream.live.sinks import SinkSpec
from stream.live.sinks.sink import SinkError
from stream.live.status import ConnectionState
from stream.pipeline.processes import start_thread

MOST_VIEWERS = 32
_REQUEST_S, _MOST_REQUEST = 10.0, 16384
"""A request must be whole within so long and so many bytes."""
_SNAPSHOT_S = 5.0
_STALLED_S = 10.0
"""A viewer that has not taken one picture in so long is sent away."""
_UNSENT = 16384
"""Bytes that wait in the system's socket beyond what is on its way: less than a picture."""
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


class MjpegSink:
    """Serves `/` (a page), `/stream` and `/snapshot.jpg` from one thread.

    There is one slot, which holds the newest picture; each viewer takes from it when it has taken
    the one before, so that a slow one skips pictures and holds nobody up.
    """

    def __init__(self, spec: SinkSpec) -> None:
        host, _, port = spec.target.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._server: _Server | None = None

    @property
    def wanted(self) -> bool:
        """Whether somebody looks."""
        return self._server is not None and self._server.viewers > 0

    @property
    def detail(self) -> str:
        """Address, and how many look."""
        server = self._server
        return f"{server.address}, {server.viewers} viewers" if server is not None else ""

    def open(self) -> None:
        """Bind the port. Raises SinkError where it is taken or not ours."""
        place = f"{self._host}:{self._port}"
        try:
            family, _, _, _, address = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)[0]
            listener = socket.create_server(address[:2], family=family, backlog=MOST_VIEWERS)
        except OSError as error:
            code = error.errno or 0
            reason = os.strerror(code).lower() if code in errno.errorcode else "no such host"
            raise SinkError(
                f"mjpeg:{place}: {reason}; choose another port or host", ConnectionState.REFUSED
            ) from error
        self._server = _Server(listener, self._host)

    def write(self, message: Message) -> None:
        """Put a picture into the slot; returns at once."""
        if isinstance(message, Jpeg) and self._server is not None:
            self._server.show(message.data)

    def idle(self) -> None:
        """Raise what ended the server, should that have happened."""
        if self._server is not None and not self._server.is_alive:
            raise SinkError(f"mjpeg:{self._host}:{self._port}: the server ended; it is started again")

    def close(self) -> None:
        """Send all viewers away and free the port. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()


class _Server:
    """The loop, in a thread of its own from the start. All that is public is for other threads."""

    def __init__(self, listener: socket.socket, host: str) -> None:
        self.viewers = 0
        """Connections that wait for pictures."""
        host_shown = f"[{host}]" if ":" in host else host
        self.address = f"http://{host_shown}:{listener.getsockname()[1]}/"
        self._listener, self._names = listener, _names(host)
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._newest: bytes | None = None
        self._fresh: asyncio.Future[bytes] = self._loop.create_future()
        """The next picture."""
        self._thread = start_thread("mjpeg server", self._run)

    @property
    def is_alive(self) -> bool:
        """Whether it still serves."""
        return self._thread.is_alive()

    def show(self, picture: bytes) -> None:
        """The newest picture from now on."""
        self._loop.call_soon_threadsafe(self._replace, picture)

    def stop(self) -> None:
        """Send all viewers away, free the port and wait for the thread's end."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        """Serve until `stop`; the thread's body."""
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()
            self._listener.close()

    def _replace(self, picture: bytes) -> None:
        if self.viewers:
            self._newest = picture
            fresh, self._fresh = self._fresh, self._loop.create_future()
            fresh.set_result(picture)

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._talk, sock=self._listener, limit=_MOST_REQUEST)
        await self._stopping.wait()
        server.close()
        talks = asyncio.all_tasks() - {asyncio.current_task()}
        for talk in talks:
            talk.cancel()
        await asyncio.gather(*talks, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: one request, one answer."""
        try:
            async with asyncio.timeout(_REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
            _keep_short(writer)
            await self._answer(reader, writer, *_request(head))
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # a viewer that left, talks nonsense or stalled; or the end
        finally:
            writer.transport.abort()  # what it has not taken is old

    async def _answer(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        method: str,
        path: str,
        headers: Mapping[str, str],
    ) -> None:
        if not self._is_known(headers.get("host", "")):
            await _send(writer, HTTPStatus.MISDIRECTED_REQUEST, b"This host name is not served here.\n")
        elif method not in ("GET", "HEAD"):
            await _send(writer, HTTPStatus.METHOD_NOT_ALLOWED, b"GET only.\n")
        elif path not in ("/", "/stream", "/snapshot.jpg"):
            await _send(writer, HTTPStatus.NOT_FOUND, b"There is /, /stream and /snapshot.jpg.\n")
        elif path == "/":
            await _send(writer, HTTPStatus.OK, _PAGE, "text/html; charset=utf-8", method == "HEAD")
        elif method == "HEAD":
            await _send(writer, HTTPStatus.OK, b"", _STREAM if path == "/stream" else "image/jpeg")
        elif self.viewers >= MOST_VIEWERS:
            await _send(writer, HTTPStatus.SERVICE_UNAVAILABLE, b"Too many viewers; try again later.\n")
        else:
            kinds = headers.get("accept", "")
            await self._view(reader, writer, path, is_browser="image/" in kinds or "text/html" in kinds)

    async def _view(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, is_browser: bool
    ) -> None:
        self.viewers += 1
        try:
            if path == "/stream":
                await self._stream(reader, writer, is_browser)
            else:
                await self._snapshot(writer)
        finally:
            self.viewers -= 1
            if not self.viewers:
                self._newest = None  # it ages, and no others are made meanwhile

    async def _snapshot(self, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_SNAPSHOT_S):
                picture = await asyncio.shield(self._fresh)  # others wait for it too
        except TimeoutError:
            await _send(writer, HTTPStatus.SERVICE_UNAVAILABLE, b"There is no picture now; try again.\n")
            return
        await _send(writer, HTTPStatus.OK, picture, "image/jpeg")

    async def _stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_browser: bool
    ) -> None:
        # A browser shows a picture when it has read the next part's head (Chromium: measured): it gets
        # that head at once, hence without a length. FFmpeg without a length waits for the next picture.
        behind = f"--{_BOUNDARY}\r\n" + ("Content-Type: image/jpeg\r\n\r\n" if is_browser else "")
        writer.write(_head(HTTPStatus.OK, _STREAM) + behind.encode())
        left = asyncio.ensure_future(reader.read(1))  # noticed even while no picture comes
        sent = None
        try:
            while not left.done():
                if self._newest is None or self._newest is sent:
                    await asyncio.wait((self._fresh, left), return_when=asyncio.FIRST_COMPLETED)
                    continue
                sent = self._newest
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(sent)}\r\n\r\n"
                writer.writelines((b"" if is_browser else head.encode(), sent, f"\r\n{behind}".encode()))
                async with asyncio.timeout(_STALLED_S):
                    await writer.drain()
        finally:
            left.cancel()

    def _is_known(self, host: str) -> bool:
        """Whether a Host header may be answered: another site's name could point here (DNS rebinding)."""
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        name = name.strip("[]").lower()
        try:
            ipaddress.ip_address(name)
            return True
        except ValueError:
            return name in self._names


_STREAM = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"


def _names(host: str) -> frozenset[str]:
    """Host names that mean this machine; addresses are always known."""
    try:
        here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    machine = () if here else (socket.gethostname().lower(), socket.getfqdn().lower())
    return frozenset(("localhost", host.lower(), *machine))


def _keep_short(writer: asyncio.StreamWriter) -> None:
    """Let less than a picture wait in the socket, and none but the current one in the transport."""
    writer.transport.set_write_buffer_limits(high=0)
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)


def _request(head: bytes) -> tuple[str, str, dict[str, str]]:
    """Method, path without query, headers in lower case."""
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
    """A whole answer, and the connection's orderly end."""
    writer.write(_head(status, kind, len(body)) + (b"" if head_only else body))
    async with asyncio.timeout(_STALLED_S):
        await writer.drain()
        writer.write_eof()
        await asyncio.sleep(0)
