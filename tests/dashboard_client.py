"""A `gpen-stream serve` that runs for tests, and a client that sends exactly the headers it is given."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waiting import LIMIT_S
from websockets.sync.client import connect

ROOT = Path(__file__).parent.parent
OURS = {"X-Requested-With": "gpen-stream"}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A client of one server; it sends the token if there is one."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self.port, self.token = port, token

    def headers(self, more: dict[str, str] | None = None) -> dict[str, str]:
        own = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return OURS | own | (more or {})

    def open(self, method: str, path: str, body: bytes | None = None, **headers: str):
        """A connection and the answer to a request, whose body is not read yet."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        connection.request(method, path, body, self.headers(headers))
        return connection, connection.getresponse()

    def ask(self, method: str, path: str, data: Any = None, *, body: bytes | None = None, **headers: str):
        """The whole answer to a request; `data` is sent as JSON."""
        if data is not None:
            body, headers = json.dumps(data).encode(), {"Content-Type": "application/json"} | headers
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection, answer = self.open(method, path, body, **headers)
        try:
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def upload(self, path: Path) -> Answer:
        """Send a file as the form of the pages does."""
        head = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{path.name}"\r\n\r\n'
        body = head.encode() + path.read_bytes() + b"\r\n--x--\r\n"
        return self.ask("POST", "/api/files", body=body, Content_Type="multipart/form-data; boundary=x")

    def watch(self, path: str):
        """An open WebSocket."""
        return connect(f"ws://127.0.0.1:{self.port}{path}", additional_headers=self.headers(), max_size=None)

    def updates(self):
        """Server-Sent Events as (type, data), without an end."""
        connection, answer = self.open("GET", "/api/events/stream")
        kind = ""
        try:
            while line := answer.fp.readline():
                name, _, value = line.decode().strip().partition(": ")
                if name == "event":
                    kind = value
                elif name == "data":
                    yield kind, json.loads(value)
        finally:
            answer.close()
            connection.close()


class Server:
    """`gpen-stream serve` in a process of its own."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stream.cli", "serve", *arguments],
            cwd=cwd,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith("dashboard: "):
                self._listening.set()
        self._listening.set()

    @property
    def output(self) -> str:
        """The server's output so far."""
        return "".join(self.lines)

    def port(self) -> int:
        """The port that the server listens on, as soon as it does."""
        assert self._listening.wait(LIMIT_S)
        found = re.search(r"dashboard: http://[^ ]*?:(\d+)/", self.output)
        assert found, self.output
        return int(found[1])

    def stop(self, timeout_s: float = LIMIT_S, number: signal.Signals = signal.SIGTERM) -> int:
        """End the server by a signal; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout_s)
        finally:
            if self.process.poll() is None:
                self.process.kill()
            self._reader.join(timeout_s)


@contextmanager
def served(*arguments: str, cwd: Path):
    """A server that is stopped in any case."""
    server = Server(*arguments, cwd=cwd)
    try:
        yield server
    finally:
        server.stop()


def descendants(pid: int) -> list[int]:
    """A process and all its descendants."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def command_line(pid: int) -> str:
    """A process's command line in the list of processes; empty if it has ended or is a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
