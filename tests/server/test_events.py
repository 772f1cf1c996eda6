"""Events: their list, the log on stderr, and the webhook against a server that fails in many ways."""

import contextlib
import json
import subprocess
import sys
import threading
import time

import pytest
from servers import free_port
from waiting import LIMIT_S, until
from webhook_receiver import Receiver

from stream.errors import ConfigError
from stream.server.events import Events
from stream.server.webhook import SECRET_HEADER, Webhook

PATIENCE_S = LIMIT_S


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


@contextlib.contextmanager
def posting(port, path="/hook", secret_env=None, kinds=(), timeout_s=30.0):
    webhook = Webhook(
        f"http://127.0.0.1:{port}{path}",
        secret_env,
        kinds,
        retry_s=0.05,
        retry_most_s=0.2,
        timeout_s=timeout_s,
    )
    events = Events(webhook)
    events.start()
    try:
        yield events, webhook
    finally:
        events.stop()


def troubles(events):
    return [event.kind for event in events.since() if event.kind.startswith("webhook_")]


def test_events_are_numbered_dated_and_bounded():
    events = Events(capacity=3)
    before = time.time()
    for number in range(5):
        events.add("door", "camera_up", f"live {number}", size=[640, 360], rate=float("nan"))
    kept = events.since()
    assert [event.id for event in kept] == [3, 4, 5]
    assert [event.id for event in events.since(4)] == [5]
    assert set(kept[0].to_json()) == {"id", "at", "utc", "camera", "kind", "text", "facts"}
    assert before <= kept[0].at <= time.time()
    assert kept[0].utc.startswith("20") and kept[0].utc.endswith("Z")
    assert kept[0].facts == {"size": [640, 360], "rate": None}
    shown = [event.to_json() for event in kept]
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown


def test_no_credential_is_in_an_event_and_no_text_forges_a_line_of_the_log(caplog):
    caplog.set_level("INFO")
    events = Events()
    text = "rtsp://admin:hunter2@192.0.2.7/live?token=hunter3 said\n2026-01-01 door camera_up: live\x1b[2J"
    events.add("door", "camera_down", text, address=["http://u:hunter4@192.0.2.8/"], more={"a": text})
    assert "hunter" not in repr(events.since()) and "hunter" not in caplog.text
    assert "\n" not in events.since()[0].text and "\x1b" not in caplog.text
    assert len(caplog.records) == 1 and caplog.records[0].levelname == "WARNING"


def test_every_event_is_one_line_on_stderr_with_its_time_and_level():
    code = (
        "from stream.server.events import Events, log_to_stderr\n"
        "log_to_stderr(); log_to_stderr(); events = Events()\n"
        "events.add('door', 'camera_up', 'live'); events.add('', 'disk_low', '0.4 GiB free')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stderr.splitlines()
    assert first.endswith("Z INFO door camera_up: live") and first.startswith("20")
    assert second.endswith("Z WARNING server disk_low: 0.4 GiB free")


def test_the_webhook_gets_json_in_order_with_the_secret_from_the_environment(receiver, monkeypatch):
    monkeypatch.setenv("HOOK_SECRET", "s3cret-value")
    monkeypatch.setenv("HOOK_PATH", "T0/B1")
    with posting(receiver.port, "/services/${HOOK_PATH}?a=b", "HOOK_SECRET") as (events, webhook):
        for number in range(20):
            events.add("door", "camera_up", f"live {number}", faces=2)
        until(lambda: webhook.delivered == 20)
        assert [event for _, _, event, _ in receiver.requests] == [one.to_json() for one in events.since()]
    path, headers, _, _ = receiver.requests[0]
    assert path == "/services/T0/B1?a=b"
    assert headers[SECRET_HEADER] == "s3cret-value"
    assert headers["Content-Type"] == "application/json"


def test_a_login_in_the_webhooks_address_is_sent_as_such_and_not_in_the_path(receiver):
    webhook = Webhook(f"http://me:p%40ss@127.0.0.1:{receiver.port}/x")
    events = Events(webhook)
    events.start()
    events.add("", "disk_low", "full")
    events.stop(PATIENCE_S)
    path, headers, _, _ = receiver.requests[0]
    assert (path, headers["Authorization"]) == ("/x", "Basic bWU6cEBzcw==")
    assert "p%40ss" not in webhook.shown and "me" not in webhook.shown


def test_only_the_kinds_asked_for_are_posted(receiver):
    with posting(receiver.port, kinds=("camera_down",)) as (events, webhook):
        events.add("door", "face_seen", "a face")
        events.add("door", "camera_down", "stalled")
        until(lambda: webhook.delivered == 1)
    assert receiver.texts() == ["stalled"] and len(events.since()) == 2


def test_events_of_an_outage_are_delivered_in_order_once_the_receiver_is_back():
    port = free_port()
    with posting(port, "/secret-path") as (events, webhook):
        for number in range(3):
            events.add("door", "camera_down", f"{number}")
        until(lambda: troubles(events))
        receiver = Receiver(port)
        try:
            until(lambda: webhook.delivered == 3)
            assert receiver.texts() == ["0", "1", "2"]
            until(lambda: troubles(events) == ["webhook_failed", "webhook_live"])
            assert webhook.lost == 0 and "secret-path" not in repr(events.since())
        finally:
            receiver.close()


@pytest.mark.parametrize("answer", [500, 503, 429, "garbage", "hang up"])
def test_a_receiver_in_trouble_is_tried_again_and_that_is_said_once(receiver, answer):
    receiver.answer = answer
    with posting(receiver.port) as (events, webhook):
        events.add("door", "camera_down", "stalled")
        until(lambda: len(receiver.requests) >= 3)
        assert troubles(events) == ["webhook_failed"]
        receiver.answer = 204
        until(lambda: webhook.delivered == 1)
    assert receiver.texts() == ["stalled"]


@pytest.mark.parametrize("answer", [302, 400, 401, 404])
def test_a_refused_event_is_lost_and_the_next_goes_out(receiver, answer):
    receiver.answer = answer
    with posting(receiver.port) as (events, webhook):
        events.add("door", "camera_down", "first")
        until(lambda: webhook.lost == 1)
        receiver.answer = 204
        events.add("door", "camera_down", "second")
        until(lambda: webhook.delivered == 1)
        until(lambda: troubles(events) == ["webhook_failed", "webhook_live"])
    assert [path for path, *_ in receiver.requests] == ["/hook", "/hook"]  # no redirection was followed


def test_a_receiver_that_stalls_holds_up_nobody_and_the_oldest_events_give_way(receiver):
    receiver.answer = "stall"
    with posting(receiver.port) as (events, webhook):
        events.add("door", "camera_down", "held")
        until(lambda: receiver.requests)
        for number in range(250):  # each returns at once, or this test would run into its time limit
            events.add("door", "camera_down", f"{number}")
        assert webhook.lost == 50 and len(events.since()) == 251
        receiver.answer = 204
        receiver.release.set()  # without an answer: the held one is tried again
        until(lambda: webhook.delivered == 201)
    assert receiver.texts()[:2] == ["held", "50"] and receiver.texts()[-1] == "249"


def test_a_stalled_receiver_is_given_up_after_the_time_limit_and_tried_again(receiver):
    receiver.answer = "stall"
    with posting(receiver.port, timeout_s=0.2) as (events, webhook):
        events.add("door", "camera_down", "held")
        until(lambda: len(receiver.requests) >= 2)
        assert "no answer within 0.2 s" in events.since()[1].text
        receiver.answer = 204
        until(lambda: webhook.delivered == 1)


def test_what_waits_is_posted_at_the_end_and_a_stalled_receiver_is_left(receiver):
    with posting(receiver.port) as (events, webhook):
        events.add("door", "camera_down", "last words")
        events.stop(PATIENCE_S)
        events.add("door", "camera_down", "after the end")
        assert webhook.delivered == 1 and len(events.since()) == 2
    receiver.answer = "stall"
    with posting(receiver.port, timeout_s=10 * PATIENCE_S) as (events, webhook):
        events.add("door", "camera_down", "held")
        events.add("door", "camera_down", "waits")
        until(lambda: len(receiver.requests) == 2)
        events.stop(0.1)  # ends long before the time limit of the request
        assert webhook.lost == 2
    assert "webhook" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize(
    ("url", "secret_env"),
    [
        ("https://example.org/${NOT_THERE}", None),
        ("ftp://u:hunter2@example.org/", None),
        ("https://", None),
        ("https://example.org:port/hunter2", None),
        ("https://example.org/hunter2 and more", None),
        ("https://example.org/", "NOT_THERE"),
        ("https://example.org/", "TWO_LINES"),
    ],
)
def test_an_address_or_secret_that_cannot_be_used_is_one_line_that_quotes_neither(
    url, secret_env, monkeypatch
):
    monkeypatch.setenv("TWO_LINES", "hunter2\nX: y")
    monkeypatch.delenv("NOT_THERE", raising=False)
    with pytest.raises(ConfigError, match=r"^server\.webhook\.(url|secret_env): ") as caught:
        Webhook(url, secret_env)
    assert "hunter2" not in str(caught.value) and "\n" not in str(caught.value)
