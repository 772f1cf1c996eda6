"""MJPEG over HTTP: always the newest picture, every viewer at its own pace, no foreign host names."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import av
import cv2
import numpy as np
import pytest
from flashes import wait_for
from playwright.sync_api import sync_playwright
from servers import free_port
from waiting import LIMIT_S

from stream.config import parse_config
from stream.live.packets import JpegPicture
from stream.live.sinks import create, mjpeg, parse_sink
from stream.live.sinks.handle import SinkHandle
from stream.live.sinks.mjpeg import MAX_VIEWERS, MjpegSink
from stream.live.sinks.sink import SinkError

CONFIG = parse_config({})
SIZE = (640, 360)


def drawn(number: int) -> bytes:
    """A JPEG of noise, 100 kB, that shows its number as the brightness of 16 fields."""
    noise = np.random.default_rng(number).integers(0, 256, (*SIZE[::-1], 3), np.uint8)
    for bit in range(16):
        noise[:40, 40 * bit : 40 * bit + 40] = 255 if number >> bit & 1 else 0
    return cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_QUALITY, 40])[1].tobytes()


def number_of(picture: bytes | np.ndarray) -> int:
    if isinstance(picture, bytes):
        picture = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_GRAYSCALE)
    fields = [picture[10:30, 40 * bit + 10 : 40 * bit + 30].mean() for bit in range(16)]
    return sum(int(field > 128) << bit for bit, field in enumerate(fields))


PICTURES = [drawn(number) for number in range(400)]


class Viewer:
    """An HTTP client that reads the stream part by part."""

    def __init__(self, address: str, path: str = "/stream", receive_buffer: int = 0) -> None:
        parts = urlsplit(address)
        self.connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=LIMIT_S)
        if receive_buffer:  # takes effect before the connection only
            self.connection.sock = socket.socket()
            self.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self.connection.sock.connect((parts.hostname, parts.port))
        self.connection.request("GET", path)
        self.answer = self.connection.getresponse()
        self.boundary = self.answer.headers.get_param("boundary")
        if self.boundary:
            assert self.answer.readline().strip().decode() == f"--{self.boundary}"

    def read(self) -> bytes:
        headers = http.client.parse_headers(self.answer)
        assert headers["Content-Type"] == "image/jpeg"
        data = self.answer.read(int(headers["Content-Length"]))
        assert self.answer.readline() == b"\r\n"
        assert self.answer.readline().strip().decode() == f"--{self.boundary}"
        return data

    def close(self) -> None:
        self.answer.close()
        self.connection.close()


@pytest.fixture
def sink():
    sink = create(parse_sink("mjpeg:0", CONFIG))
    sink.open()
    yield sink
    sink.close()


def address(sink: MjpegSink) -> str:
    return sink.detail.partition(",")[0]


def viewers(sink: MjpegSink) -> int:
    return int(sink.detail.split()[-2])


class Camera:
    """Shows picture after picture at 50 a second."""

    def __init__(self, sink: MjpegSink) -> None:
        self._sink, self._stop = sink, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        for number, picture in enumerate(PICTURES):
            if self._stop.wait(0.02):
                return
            self._sink.write(JpegPicture(picture, 0.0, number))

    def __enter__(self) -> Camera:
        self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        self._stop.set()
        self._thread.join()


def test_pictures_are_wanted_only_while_somebody_looks(sink):
    assert not sink.wanted
    viewer = Viewer(address(sink))
    wait_for(lambda: sink.wanted)
    sink.write(JpegPicture(PICTURES[7], 0.0, 0))
    assert viewer.read() == PICTURES[7]
    viewer.close()
    wait_for(lambda: not sink.wanted)
    sink.write(JpegPicture(PICTURES[8], 0.0, 0))
    late = Viewer(address(sink))
    wait_for(lambda: sink.wanted)
    sink.write(JpegPicture(PICTURES[9], 0.0, 0))
    assert late.read() == PICTURES[9]  # not the one from before, which is old by now
    late.close()


def test_a_viewer_reads_each_picture_before_the_next_one_comes(sink):
    viewer = Viewer(address(sink))
    wait_for(lambda: sink.wanted)
    for number in range(100):
        sink.write(JpegPicture(PICTURES[number], 0.0, number))
        assert number_of(viewer.read()) == number
    viewer.close()


def test_a_slow_viewer_skips_pictures_and_delays_nobody(sink):
    slow, quick = Viewer(address(sink), receive_buffer=4096), Viewer(address(sink))
    wait_for(lambda: viewers(sink) == 2)
    for number in range(50):
        sink.write(JpegPicture(PICTURES[number], 0.0, number))
        assert number_of(quick.read()) == number
    seen = [number_of(slow.read())]
    while seen[-1] < 49:
        seen.append(number_of(slow.read()))
    quick.close()
    slow.close()
    assert seen == sorted(set(seen)) and len(seen) <= 3, "what was in the sockets, and the newest"


def test_a_picture_is_shown_to_all_viewers_and_one_too_many_is_told_so(sink):
    clients = [Viewer(address(sink)) for _ in range(MAX_VIEWERS)]
    wait_for(lambda: viewers(sink) == MAX_VIEWERS)
    assert Viewer(address(sink)).answer.status == 503
    sink.write(JpegPicture(PICTURES[3], 0.0, 0))
    assert {number_of(client.read()) for client in clients} == {3}
    clients[0].close()
    wait_for(lambda: viewers(sink) == MAX_VIEWERS - 1)
    again = Viewer(address(sink))
    assert number_of(again.read()) == 3  # at once: the others' picture is fresh
    for client in [*clients[1:], again]:
        client.close()


def test_viewers_see_the_end_when_the_sink_closes():
    sink = create(parse_sink("mjpeg:0", CONFIG))
    sink.open()
    viewer = Viewer(address(sink))
    before = threading.active_count()
    sink.close()
    with pytest.raises((OSError, http.client.HTTPException, AssertionError)):
        viewer.read()
    viewer.close()
    assert threading.active_count() == before - 1
    sink.close()  # again: nothing


def request(sink: MjpegSink, path: str, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
    parts = urlsplit(address(sink))
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=LIMIT_S)
    connection.request(method, path, headers=headers)
    return connection.getresponse()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8090", "[::1]:8090", "192.168.1.20"])
def test_addresses_and_this_machine_are_answered(sink, host):
    assert request(sink, "/", Host=host).status == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8090", "localhost.evil.example", ""])
def test_another_name_that_points_here_is_refused(sink, host):
    assert request(sink, "/", Host=host).status == 421
    assert request(sink, "/stream", Host=host).status == 421


def test_what_is_not_there_or_no_request_at_all_is_refused(sink):
    assert request(sink, "/other").status == 404
    assert request(sink, "/", "POST").status == 405
    assert request(sink, "/", "HEAD").read() == b""
    parts = urlsplit(address(sink))
    for nonsense in (
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01" * 20 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a" * 40000,
    ):
        with socket.create_connection((parts.hostname, parts.port), 60) as client:
            client.sendall(nonsense)
            client.shutdown(socket.SHUT_WR)
            try:
                assert b" 200 " not in client.recv(1 << 16)
            except ConnectionResetError:
                continue
    assert request(sink, "/").status == 200


def test_the_page_allows_nothing_but_its_own_picture(sink):
    answer = request(sink, "/")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert answer.headers["Cache-Control"] == "no-store"
    assert b"http" not in answer.read()


def test_a_port_that_is_taken_is_told_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SinkError, match=rf"^mjpeg:127\.0\.0\.1:{port}: .*in use; choose another port"):
            create(parse_sink(f"mjpeg:{port}", CONFIG)).open()


def test_only_this_machine_is_served_unless_a_host_is_given():
    assert parse_sink("mjpeg:8090", CONFIG).target == "127.0.0.1:8090"
    sink = create(parse_sink("mjpeg:[::1]:0", CONFIG))
    sink.open()
    assert address(sink).startswith("http://[::1]:")
    assert request(sink, "/").status == 200
    sink.close()


def test_a_picture_can_be_fetched_alone_from_the_sinks_own_process():
    handle = SinkHandle(parse_sink(f"mjpeg:{free_port()}", CONFIG))
    handle.start()
    words = wait_for(lambda: "http" in handle.report()["words"] and handle.report()["words"])
    assert "0 viewers" in words and not handle.wants(JpegPicture)
    url = words[words.index("http") :].partition(",")[0]
    answers = []
    client = threading.Thread(target=lambda: answers.append(Viewer(url, "/snapshot.jpg").answer.read()))
    client.start()
    wait_for(lambda: handle.wants(JpegPicture))
    wait_for(lambda: answers, tick=lambda: handle.offer(JpegPicture(PICTURES[5], time.monotonic(), 0)))
    client.join()
    assert answers == [PICTURES[5]]
    wait_for(lambda: not handle.wants(JpegPicture))
    assert handle.report()["delay"]["median_ms"] < 1000
    handle.stop(60)
    assert handle.report()["state"] == "stopped"


def test_without_a_picture_every_request_for_one_is_told_so_and_the_next_picture_is_shown(sink, monkeypatch):
    monkeypatch.setattr(mjpeg, "_SNAPSHOT_S", 0.2)
    viewer = Viewer(address(sink))
    for _ in range(2):
        assert request(sink, "/snapshot.jpg").status == 503
    sink.write(JpegPicture(PICTURES[7], 0.0, 0))
    assert number_of(viewer.read()) == 7
    viewer.close()


def test_ffmpeg_reads_the_stream(sink):
    numbers = []
    with Camera(sink), av.open(address(sink) + "stream", timeout=LIMIT_S) as source:
        for frame in source.decode(video=0):
            numbers.append(number_of(frame.to_ndarray(format="gray")))
            if len(numbers) == 20:
                break
    assert numbers == sorted(set(numbers))


def test_a_browser_shows_each_picture_as_it_comes(sink, tmp_path):
    arguments = ["--no-sandbox", "--disable-quic", "--disable-background-networking"]
    said = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(address(sink), wait_until="commit")
        wait_for(lambda: sink.wanted, tick=lambda: page.wait_for_timeout(50))
        for number in (1, 2, 300):
            sink.write(JpegPicture(PICTURES[number], 0.0, number))  # no other follows until it is seen
            wait_for(lambda number=number: number_of(page.screenshot()) == number)
        Path(tmp_path / "page.png").write_bytes(page.screenshot())
        browser.close()
    assert said == []
