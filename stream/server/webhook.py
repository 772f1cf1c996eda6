"""Webhook: events are sent to another machine, each as a POST request with JSON, in a thread of its own."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import JsonValue
from pydantic_core import to_jsonable_python

from stream import __version__
from stream.errors import ConfigError
from stream.live.source.address import expand
from stream.live.source.retry import Retry
from stream.pipeline.channel import Channel, ChannelClosed, Overflow
from stream.pipeline.processes import start_thread

SECRET_HEADER = "X-Gpen-Stream-Secret"
"""Header with the secret that tells the receiver who sends."""
_CAPACITY = 200
"""Events that may wait for a receiver that does not answer; beyond it the oldest are dropped."""
_GIVE_UP_S = 3600.0
"""An event that could not be delivered within this time is given up."""
_RETRIED_STATUSES = frozenset({408, 425, 429})
"""Statuses below 500 after which another attempt may succeed."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a camera or to the server, without credentials."""

    id: int
    """1 for the first event; it rises by one."""
    at: float
    """Unix time, s."""
    utc: str
    """The same time in ISO 8601."""
    camera: str
    """The camera's name; empty for the server."""
    kind: str
    text: str
    """One line for people."""
    facts: Mapping[str, JsonValue]
    """Values for programs."""

    def to_json(self) -> dict[str, JsonValue]:
        """The event as the webhook and the API give it."""
        values: dict[str, JsonValue] = to_jsonable_python(self)
        return values


class Webhook:
    """Sends events in their order; `post` never waits for the receiver.

    Only scheme, host and port of the URL are ever shown: its path may be a secret. Redirections are not
    followed: they would send the secret to another host.
    """

    def __init__(
        self,
        url: str,
        secret_env: str | None = None,
        kinds: Sequence[str] = (),
        *,
        retry_s: float = 1.0,
        retry_most_s: float = 60.0,
        timeout_s: float = 5.0,
    ) -> None:
        """`url`: ${NAME} in it is replaced by that variable of the environment.

        `secret_env`: variable of the environment that holds the secret; None: no secret is sent.
        `kinds`: kinds of events that are sent; empty: all. `retry_s`, `retry_most_s`: first and longest
        pause between two attempts. `timeout_s`: longest wait for an answer. Raises ConfigError if the URL
        is wrong or a variable is not set.
        """
        self._parts, self.shown = _parse_url(expand(url, "server.webhook.url"))
        self._headers = _headers(self._parts, secret_env)
        self._kinds = frozenset(kinds)
        self._retry_s, self._retry_most_s, self._timeout_s = retry_s, retry_most_s, timeout_s
        self._waiting: Channel[Event] = Channel(_CAPACITY, Overflow.DROP_OLDEST)
        self._ending = threading.Event()
        self._aborted = False
        self._connection: http.client.HTTPConnection | None = None
        self._thread: threading.Thread | None = None
        self._failing = False
        self._given_up = 0
        self.delivered = 0

    @property
    def lost(self) -> int:
        """Events that were never delivered: dropped, refused or given up."""
        return self._given_up + self._waiting.dropped

    def start(self, on_trouble: Callable[[str, str], None]) -> None:
        """Start the thread, in which `on_trouble(kind, text)` is called: webhook_failed, webhook_live."""
        self._thread = start_thread("webhook", self._run, on_trouble)

    def post(self, event: Event) -> None:
        """Add an event to those that wait; returns at once."""
        if not self._kinds or event.kind in self._kinds:
            with contextlib.suppress(ChannelClosed):  # the event comes after the end
                self._waiting.put(event)

    def stop(self, timeout_s: float = 2.0) -> None:
        """Send what waits, as far as the receiver answers within `timeout_s`, and end."""
        self._waiting.close()
        self._ending.set()
        if self._thread is None:
            return
        self._thread.join(timeout_s)
        self._aborted = True
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):  # wakes the thread, which closes it
                connection.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    # --- its own thread --------------------------------------------------------------------------

    def _run(self, on_trouble: Callable[[str, str], None]) -> None:
        for event in self._waiting:
            if self._aborted or not self._deliver(event, on_trouble):
                self._given_up += 1
                if self._ending.is_set():  # the others would fail too
                    self._given_up += len(self._waiting)
                    return

    def _deliver(self, event: Event, on_trouble: Callable[[str, str], None]) -> bool:
        """Send one event, with as many attempts as it needs; whether it was delivered."""
        body = json.dumps(event.to_json(), ensure_ascii=False, allow_nan=False).encode()
        started_s, retry = time.monotonic(), Retry(self._retry_s, self._retry_most_s)
        while True:
            failure, may_retry = self._attempt(body)
            if failure is None:
                self.delivered += 1
                if self._failing:
                    self._failing = False
                    on_trouble("webhook_live", f"{self.shown}: takes events again; {self.lost} were lost")
                return True
            if not self._failing:  # reported once
                self._failing = True
                then = "tried again" if may_retry else "such events are lost; check server.webhook"
                on_trouble("webhook_failed", f"{self.shown}: {failure}; {then}")
            now_s = time.monotonic()
            if not may_retry or now_s - started_s > _GIVE_UP_S or self._ending.is_set():
                return False
            self._ending.wait(retry.pause_s(now_s))

    def _attempt(self, body: bytes) -> tuple[str | None, bool]:
        """Why it was not delivered (None: it was), and whether another attempt may succeed."""
        parts = self._parts
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = self._connection = kind(parts.hostname or "", parts.port, timeout=self._timeout_s)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            connection.request("POST", target, body, self._headers)
            status = connection.getresponse().status
        except TimeoutError:
            return f"no answer within {self._timeout_s:g} s", True
        except http.client.RemoteDisconnected:
            return "it closed the connection without an answer", True
        except OSError as error:
            return error.strerror or type(error).__name__, True
        except http.client.HTTPException:  # its text may quote what was sent
            return "what it answers is not HTTP", True
        finally:
            self._connection = None
            connection.close()
        if 200 <= status < 300:
            return None, False
        return f"answers {status}", status >= 500 or status in _RETRIED_STATUSES


def _parse_url(url: str) -> tuple[SplitResult, str]:
    """The parts of a URL, and what may be shown of it. Raises ConfigError, which quotes nothing of it."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not re.fullmatch(r"[!-~]+", url) or not host or parts.scheme not in ("http", "https"):
        raise ConfigError(
            "server.webhook.url: is no http(s) address; write https://HOST/PATH, other characters as %XX"
        )
    shown_host = f"[{host}]" if ":" in host else host
    return parts, f"{parts.scheme}://{shown_host}" + (f":{port}" if port else "")


def _headers(parts: SplitResult, secret_env: str | None) -> dict[str, str]:
    """Headers of every request, with the URL's login and the secret; ConfigError if there is no secret."""
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"gpen-stream/{__version__}",
        "Connection": "close",
    }
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    if secret_env is not None:
        secret = os.environ.get(secret_env, "")
        if not re.fullmatch(r"[!-~]+", secret):
            raise ConfigError(
                f"server.webhook.secret_env: the environment holds no {secret_env} of plain letters, digits "
                "and punctuation; set it"
            )
        headers[SECRET_HEADER] = secret
    return headers
