"""Live answers of the dashboard over real sockets: viewers that read nothing, log-outs, slow senders."""

from __future__ import annotations

import contextlib
import os
import socket
import threading

import pytest
import uvicorn
from dashboard_client import Client
from waiting import LIMIT_S, until
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from stream.live.packets import JpegPicture
from stream.server.camera_config import CameraSettings, CamerasFile, ServerSettings
from stream.server.dashboard import live_pictures, security
from stream.server.dashboard.app import create_app
from stream.server.dashboard.jobs import JobQueue
from stream.server.events import Events
from stream.server.supervisor.supervisor import Supervisor

TOKEN = "a-token-of-some-length"
LARGE = os.urandom(1 << 20)


class Served:
    """The application on a free port, with one camera whose pictures the test makes."""

    def __init__(self, folder, token=None) -> None:
        server = ServerSettings(data=str(folder / "data"))
        server.files_folder.mkdir(parents=True)
        cameras = {"door": CameraSettings(source="test:", enabled=False)}
        self.supervisor = Supervisor(CamerasFile(server=server, cameras=cameras), None, Events())
        self.ending = False
        app = create_app(
            self.supervisor, JobQueue(server.files_folder), token=token, is_ending=lambda: self.ending
        )
        config = uvicorn.Config(app, "127.0.0.1", 0, log_level="critical", timeout_graceful_shutdown=1)
        self.web = uvicorn.Server(config)
        self._thread = threading.Thread(target=self.web.run)
        self._thread.start()
        until(lambda: self.web.started)
        self.port = self.web.servers[0].sockets[0].getsockname()[1]

    @property
    def viewers(self):
        return self.supervisor._cameras["door"].viewers

    @property
    def watching(self) -> int:
        return len(self.viewers._viewers)

    def show(self, number: int, size: int = len(LARGE)) -> None:
        """Show a picture that begins with its number."""
        self.viewers.show("pair", JpegPicture(number.to_bytes(4, "big") + LARGE[: size - 4], 0.0, 0))

    def stop(self) -> None:
        self.ending = self.web.should_exit = True
        self._thread.join()
        self.supervisor.stop()


@pytest.fixture
def serve(tmp_path):
    started = []

    def start(token=None) -> Served:
        started.append(Served(tmp_path, token))
        return started[-1]

    yield start
    for served in started:
        served.stop()


@contextlib.contextmanager
def one_who_does_not_read(port: int, path: str, websocket: bool):
    """A viewer that sends a request and reads nothing of the answer."""
    with socket.socket() as viewer:
        viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        viewer.connect(("127.0.0.1", port))
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "X-Requested-With: gpen-stream"]
        if websocket:
            lines += ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
            lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
        viewer.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        yield


@pytest.mark.parametrize(
    ("path", "websocket"),
    [("/api/cameras/door/live?kind=pair", True), ("/api/cameras/door/stream.mjpeg?kind=pair", False)],
)
def test_a_viewer_that_takes_nothing_is_dropped_and_the_other_one_sees_the_newest(
    serve, monkeypatch, path, websocket
):
    monkeypatch.setattr(live_pictures, "_SEND_S", 2.0)
    served = serve()
    with (
        one_who_does_not_read(served.port, path, websocket),
        Client(served.port).watch("/api/cameras/door/live?kind=pair") as good,
    ):
        until(lambda: served.watching == 2)
        number, seen = 0, 0
        while served.watching == 2:  # until the slow one is given up
            number += 1
            served.show(number)
            assert int.from_bytes(good.recv(timeout=LIMIT_S)[:4], "big") == number
            seen += 1
            assert seen < 100_000
        served.show(number + 1)
        assert int.from_bytes(good.recv(timeout=LIMIT_S)[:4], "big") == number + 1
    until(lambda: served.watching == 0)


def test_a_viewer_that_falls_behind_skips_to_the_newest_picture(serve):
    served = serve()
    with Client(served.port).watch("/api/cameras/door/live?kind=pair") as viewer:
        until(lambda: served.watching == 1)
        for number in range(1, 400):
            served.show(number)
        numbers = []
        while not numbers or numbers[-1] != 399:
            numbers.append(int.from_bytes(viewer.recv(timeout=LIMIT_S)[:4], "big"))
    assert numbers == sorted(numbers) and len(numbers) < 200


def test_who_leaves_is_not_worked_for_any_more(serve):
    served = serve()
    with Client(served.port).watch("/api/cameras/door/live?kind=pair"):
        connection, answer = Client(served.port).open("GET", "/api/cameras/door/stream.mjpeg?kind=pair")
        until(lambda: served.watching == 2)
    until(lambda: served.watching == 1)
    answer.close()
    connection.close()
    until(lambda: served.watching == 0)
    assert served.viewers.kinds == frozenset()


def test_streams_end_with_the_log_in_that_opened_them(serve):
    served = serve(TOKEN)
    client = Client(served.port)
    cookie = client.ask("POST", "/api/login", {"token": TOKEN}).headers["set-cookie"].partition(";")[0]
    origin = f"http://127.0.0.1:{served.port}"
    with connect(
        f"ws://127.0.0.1:{served.port}/api/cameras/door/live?kind=pair",
        origin=origin,
        additional_headers={"Cookie": cookie},
        max_size=None,
    ) as viewer:
        until(lambda: served.watching == 1)
        served.show(1)
        assert viewer.recv(timeout=LIMIT_S)
        connection, news = client.open("GET", "/api/events/stream", Cookie=cookie)
        assert news.readline() == b"retry: 2000\n"
        assert client.ask("POST", "/api/logout", {}, Cookie=cookie).status == 200
        with pytest.raises(ConnectionClosed):
            while True:
                served.show(2)
                viewer.recv(timeout=LIMIT_S)
        news.read()  # to its end
        connection.close()
    until(lambda: served.watching == 0)


def test_a_camera_that_is_removed_closes_its_streams(serve):
    served = serve()
    served.supervisor.start()
    with Client(served.port).watch("/api/cameras/door/live?kind=pair") as viewer:
        until(lambda: served.watching == 1)
        assert Client(served.port).ask("DELETE", "/api/cameras/door").status == 200
        with pytest.raises(ConnectionClosed):
            viewer.recv(timeout=LIMIT_S)


def test_an_end_of_the_server_waits_for_no_viewer(serve):
    served = serve()
    with (
        one_who_does_not_read(served.port, "/api/cameras/door/live?kind=pair", True),
        one_who_does_not_read(served.port, "/api/events/stream", False),
    ):
        until(lambda: served.watching == 1)
        for number in range(50):
            served.show(number)
        served.stop()  # would run into the test's limit if it waited for one of them


def test_a_body_that_does_not_come_is_not_waited_for(serve, monkeypatch):
    monkeypatch.setattr(security, "_BODY_S", 0.5)
    served = serve()
    with socket.create_connection(("127.0.0.1", served.port)) as sender:
        head = "POST /api/test HTTP/1.1\r\nHost: localhost\r\nX-Requested-With: gpen-stream\r\n"
        sender.sendall((head + "Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{").encode())
        sender.settimeout(LIMIT_S)
        assert sender.recv(100).startswith(b"HTTP/1.1 408 ")


def test_two_names_in_one_request_are_refused(serve):
    served = serve()
    with socket.create_connection(("127.0.0.1", served.port)) as sender:
        sender.sendall(b"GET /api/cameras HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        sender.settimeout(LIMIT_S)
        assert sender.recv(100).split()[1] in (b"400", b"421")


def test_guesses_that_come_all_at_once_are_counted_one_by_one(serve):
    served = serve(TOKEN)
    body = b'{"token": "guess"}'
    head = (
        "POST /api/login HTTP/1.1\r\nHost: localhost\r\nX-Requested-With: gpen-stream\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with contextlib.ExitStack() as opened:
        senders = [
            opened.enter_context(socket.create_connection(("127.0.0.1", served.port))) for _ in range(20)
        ]
        for sender in senders:
            sender.settimeout(LIMIT_S)
            sender.sendall(head.encode())
        assert Client(served.port).get("/healthz").status == 200  # all heads are in
        for sender in senders:
            sender.sendall(body)
        answers = [sender.recv(100).split()[1] for sender in senders]
    assert (answers.count(b"401"), answers.count(b"429")) == (5, 15)


class BusyProcess:
    """A camera's process that takes no message until it is released, as while it ends."""

    pid = 1

    def __init__(self) -> None:
        self.released = threading.Event()

    def send(self, message) -> None:
        assert self.released.wait(LIMIT_S)


def test_a_camera_that_does_not_listen_holds_up_no_other_request(serve, monkeypatch):
    served = serve()
    client = Client(served.port)
    busy = BusyProcess()
    monkeypatch.setattr(served.supervisor._cameras["door"], "_process", busy)
    opened = [
        threading.Thread(target=client.get, args=("/api/cameras/door/snapshot.jpg",)) for _ in "1234567"
    ]
    for thread in opened:
        thread.start()
    until(lambda: served.watching == len(opened))
    assert client.get("/api/cameras/door").status == client.get("/healthz").status == 200
    busy.released.set()
    served.viewers.show("restored", JpegPicture(b"jpeg", 0.0, 0))
    for thread in opened:
        thread.join()
    until(lambda: served.watching == 0)
    monkeypatch.undo()
