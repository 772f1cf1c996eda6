"""A web server on loopback that misbehaves on request, and records what it sent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

from waiting import LIMIT_S


@dataclass
class File:
    """How the server answers for one path."""

    data: bytes = b""
    ranges: bool = True
    """Whether the server understands Range."""
    etag: str = '"1"'
    """The validator; empty: none."""
    cuts: list[int] = field(default_factory=list)
    """Bytes of the body after which the connection is closed, for one request after another."""
    stall: bool = False
    """Whether the server stops sending instead of closing the connection."""
    longer: int = 0
    """How many bytes more than there are the server announces (negative: fewer)."""
    announce: bool = True
    """Whether the server announces a length."""
    statuses: list[int] = field(default_factory=list)
    """Statuses of the first requests, one for each; the file follows after them."""
    location: str = ""
    """Address to which the server redirects; empty: it does not."""
    pause_s: float = 0.0
    """Pause before each 16 KiB, seconds."""


@dataclass
class Request:
    """One request as the server saw it."""

    path: str
    range: str | None
    sent: int = 0


class Server:
    """`files` may be changed while it runs; `requests` grows."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.requests: list[Request] = []
        self.url = ""
        self.closing = Event()

    @property
    def sent(self) -> int:
        return sum(request.sent for request in self.requests)

    @property
    def ranges(self) -> list[str | None]:
        return [request.range for request in self.requests]


@contextmanager
def serve() -> Iterator[Server]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _answer(server, self)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = False
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        http.shutdown()
        http.server_close()
        thread.join()


def _answer(server: Server, handler: BaseHTTPRequestHandler) -> None:
    name = handler.path.rsplit("/", 1)[-1]
    request = Request(handler.path, handler.headers.get("Range"))
    server.requests.append(request)
    file = server.files.get(name)
    if file is None or file.statuses:
        status = 404 if file is None else file.statuses.pop(0)
        handler.send_error(status)
        return
    if file.location:
        handler.send_response(302)
        handler.send_header("Location", file.location)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    begin = 0
    same = handler.headers.get("If-Range", file.etag) == file.etag
    if file.ranges and request.range and same:
        begin = int(request.range.removeprefix("bytes=").removesuffix("-"))
    if begin and begin >= len(file.data):
        handler.send_error(416)
        return
    body = file.data[begin:]
    handler.send_response(206 if begin else 200)
    if begin:
        handler.send_header(
            "Content-Range", f"bytes {begin}-{len(file.data) - 1}/{len(file.data) + file.longer}"
        )
    if file.announce:
        handler.send_header("Content-Length", str(len(body) + file.longer))
    if file.etag:
        handler.send_header("ETag", file.etag)
    handler.end_headers()
    cut = file.cuts.pop(0) if file.cuts else None
    try:
        for start in range(0, len(body[:cut]), 16384):
            time.sleep(file.pause_s)
            part = body[:cut][start : start + 16384]
            handler.wfile.write(part)
            request.sent += len(part)
        if cut is not None and file.stall:
            server.closing.wait(LIMIT_S)
    except ConnectionError:  # the client closed the connection
        pass
