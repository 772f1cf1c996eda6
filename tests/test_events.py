"""Events: what is kept, what the webhook is sent, and what happens where its server is not well."""

from __future__ import annotations

import base64
import json
import logging
import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stream import webhook
from stream.errors import ConfigError
from stream.events import Events
from stream.webhook import Webhook, parse_webhook

LOGIN = "rtsp://admin:s3cr3t@192.0.2.1/door"


class Receiver(ThreadingHTTPServer):
    """Takes posts and remembers them; `answers` are the statuses of the next ones, None: never answer."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        self.answers: list[int | None] = []
        self.posts: list[tuple[str, dict, dict]] = []
        self.done = threading.Event()
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def kinds(self) -> list[str]:
        return [body["kind"] for _, _, body in self.posts]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = self.server.answers.pop(0) if self.server.answers else 204
        if status is None:
            self.server.done.wait()
            return
        if status < 300:
            self.server.posts.append((self.path, dict(self.headers), body))
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def receiving(port=0):
    server = Receiver(port)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.done.set()
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def events_to(url, *settings):
    hook = parse_webhook(url, *settings)
    hook._first_pause_s = 0.02
    events = Events(hook)
    try:
        yield events, hook
    finally:
        events.close(0)
    assert "webhook" not in [thread.name for thread in threading.enumerate()]


def url_of(server, path="/hook"):
    return f"http://127.0.0.1:{server.server_address[1]}{path}"


def wait_for(condition, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def kinds_of(events):
    return [event["kind"] for event in events.since()]


def test_events_are_numbered_kept_up_to_a_bound_and_told_from_a_number_on():
    events = Events()
    for i in range(1200):
        events.add("door", "camera_up", f"live {i}", take=i)
    kept = events.since()
    assert (len(kept), kept[0]["id"], kept[-1]["id"]) == (1000, 201, 1200)
    assert [event["facts"] for event in events.since(1198)] == [{"take": 1198}, {"take": 1199}]
    assert abs(kept[-1]["at"] - time.time()) < 60
    events.close(0)


def test_each_event_is_a_line_of_the_log_and_no_credential_is_in_it_nor_in_what_is_kept(caplog):
    caplog.set_level(logging.INFO, "stream.events")
    events = Events()
    events.add("door", "camera_down", f"{LOGIN}\nstalled", source=LOGIN)
    assert caplog.messages == ["door: camera_down: rtsp://***@192.0.2.1/door stalled"]
    assert "s3cr3t" not in str(events.since())


def test_the_webhook_gets_events_as_json_with_its_secret_and_no_camera_s_credential(monkeypatch):
    monkeypatch.setenv("HOOK_SECRET", "tell-nobody")
    with receiving() as server, events_to(url_of(server, "/a?b=c"), "HOOK_SECRET") as (events, hook):
        events.add("door", "source_refused", f"{LOGIN}: unauthorised", source=LOGIN)
        wait_for(lambda: hook.delivered == 1)
        path, headers, body = server.posts[0]
        assert path == "/a?b=c"
        assert headers["Authorization"] == "Bearer tell-nobody"
        assert headers["Content-Type"] == "application/json"
        assert body.pop("time").endswith("Z")
        assert body == events.since()[0]
        assert "s3cr3t" not in json.dumps(body)


def test_a_user_in_the_webhook_s_address_goes_along_as_a_header():
    with receiving() as server:
        url = url_of(server).replace("//", "//me:p%40ss@")
        with events_to(url) as (events, hook):
            events.add("", "disk_low", "1 GiB left")
            wait_for(lambda: hook.delivered == 1)
        assert base64.b64decode(server.posts[0][1]["Authorization"].removeprefix("Basic ")) == b"me:p@ss"


def test_only_the_kinds_that_are_named_are_posted():
    with receiving() as server, events_to(url_of(server), None, ("disk_low",)) as (events, hook):
        events.add("door", "face_seen", "a face")
        events.add("", "disk_low", "1 GiB left")
        wait_for(lambda: hook.delivered == 1)
        assert server.kinds == ["disk_low"]


def test_a_server_that_is_not_there_is_tried_until_it_comes_and_gets_all_in_order():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with events_to(f"http://127.0.0.1:{port}/top-secret-path") as (events, hook):
        for kind in ("camera_down", "sink_failed", "camera_up"):
            events.add("door", kind, "x")
        wait_for(lambda: "webhook_failed" in kinds_of(events))
        text = next(event["text"] for event in events.since() if event["kind"] == "webhook_failed")
        assert text == f"http://127.0.0.1:{port}: connection refused; it is tried again"
        with receiving(port) as server:
            wait_for(lambda: hook.delivered == 3)
            assert server.kinds == ["camera_down", "sink_failed", "camera_up"]
        wait_for(lambda: kinds_of(events)[-1] == "webhook_works")
        assert kinds_of(events).count("webhook_failed") == 1
        assert hook.dropped == 0


def test_a_server_that_stalls_or_fails_is_tried_again_and_delays_nobody(monkeypatch):
    monkeypatch.setattr(webhook, "_TIMEOUT_S", 0.3)
    with receiving() as server, events_to(url_of(server)) as (events, hook):
        server.answers = [None, 503, 429, 204]
        events.add("door", "camera_down", "x")  # it returns at once: the server would never answer it
        wait_for(lambda: hook.delivered == 1)
        assert server.kinds == ["camera_down"]
        assert "does not answer" in events.since()[1]["text"]


@pytest.mark.parametrize("status", [401, 404, 302])
def test_what_the_server_refuses_is_dropped_and_said_and_no_redirection_gets_the_secret(status, monkeypatch):
    monkeypatch.setenv("HOOK_SECRET", "tell-nobody")
    with receiving() as server, events_to(url_of(server), "HOOK_SECRET") as (events, hook):
        server.answers = [status]
        events.add("door", "camera_down", "x")
        events.add("door", "camera_up", "y")
        wait_for(lambda: hook.delivered == 1)
        assert (hook.dropped, server.kinds) == (1, ["camera_up"])
        assert any(f"answers {status}; the event is dropped" in event["text"] for event in events.since())
        assert "tell-nobody" not in str(events.since())


def test_while_its_server_is_away_a_bounded_number_waits_the_newest_of_them():
    with receiving() as server, events_to(url_of(server)) as (events, hook):
        server.answers = [None]
        for i in range(300):
            events.add("door", "face_seen", f"{i}")
        assert hook.dropped == 100
        server.done.set()
        wait_for(lambda: hook.delivered >= 200)
        assert server.posts[-1][2]["text"] == "299"


def test_at_the_end_what_waits_is_posted_and_a_server_that_hangs_is_cut_off():
    with receiving() as server:
        with events_to(url_of(server)) as (events, hook):
            for _ in range(5):
                events.add("door", "camera_down", "x")
            events.close(60)
            assert hook.delivered == 5
            events.add("door", "camera_up", "too late for the webhook")
        with events_to(url_of(server)) as (events, hook):
            server.answers = [None]
            events.add("door", "camera_down", "x")
            wait_for(lambda: not server.answers)
            began = time.monotonic()
        assert time.monotonic() - began < webhook._TIMEOUT_S
        assert hook.dropped == 1


@pytest.mark.parametrize(
    ("url", "environment", "settings", "message"),
    [
        ("ftp://h/x", {}, (), "server.webhook.url: no http"),
        ("https://h/a b", {}, (), "server.webhook.url: no http"),
        ("https:///x", {}, (), "server.webhook.url: its host"),
        ("https://h:port/s3cr3t", {}, (), "server.webhook.url: its host"),
        ("${HOOK}", {}, (), "server.webhook.url: the environment holds no HOOK"),
        ("https://h", {}, ("HOOK",), "server.webhook.secret_env: the environment holds no HOOK"),
        ("https://h", {"HOOK": "s3cr3t\r\nX: y"}, ("HOOK",), "server.webhook.secret_env: HOOK holds more"),
        ("https://me:s3cr3t@h", {"HOOK": "a"}, ("HOOK",), "server.webhook: a user in the url"),
        ("https://h", {}, (None, ("camera_dwon",)), "server.webhook.kinds: camera_dwon is none"),
    ],
)
def test_wrong_settings_are_named_by_their_key_and_without_the_secret(
    url, environment, settings, message, monkeypatch
):
    monkeypatch.delenv("HOOK", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as error:
        parse_webhook(url, *settings)
    assert str(error.value).startswith(message)
    assert "s3cr3t" not in str(error.value)


def test_the_address_is_taken_from_the_environment_and_never_printed(monkeypatch):
    monkeypatch.setenv("HOOK", "https://me:s3cr3t@h:8443/s3cr3t?s3cr3t")
    hook = parse_webhook("${HOOK}")
    assert isinstance(hook, Webhook)
    assert hook._target.shown == "https://h:8443"
    assert "s3cr3t" not in repr(hook._target)
