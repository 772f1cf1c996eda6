"""Events told to another machine: each is POSTed as JSON, by a thread of its own."""

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
from stream.live.source.retry import Retry
from stream.pipeline.channel import Channel, Closed, Overflow
from stream.pipeline.processes import start_thread

SECRET_HEADER = "X-Gpen-Stream-Secret"
"""Carries the secret by which the receiver knows us."""
_WAITING = 200
"""Events that wait for a receiver that does not answer; the oldest give way."""
_PATIENCE_S = 3600.0
"""An event that could not be delivered for so long is given up."""
_AGAIN = frozenset({408, 425, 429})
"""Answers below 500 after which another attempt may succeed."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, without credentials."""

    id: int
    """Rising from 1."""
    at: float
    """Unix time, s."""
    utc: str
    """The same in ISO 8601."""
    camera: str
    """Empty for the server."""
    kind: str
    text: str
    """For people, in one line."""
    facts: Mapping[str, JsonValue]
    """For machines."""

    def to_json(self) -> dict[str, JsonValue]:
        """As the webhook and the API give it."""
        values: dict[str, JsonValue] = to_jsonable_python(self)
        return values


class Webhook:
    """Delivers events in their order; never holds up whoever posts.

    `url` may hold ${NAME}, taken from the environment, as is the secret from the variable that
    `secret_env` names; ConfigError where one is not there. Nothing of the URL but scheme, host and
    port is ever shown: its path may be a secret too. Redirections are not followed, they would carry
    the secret elsewhere. `kinds`: of events that are posted; none named: all.
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
        self._parts, self.shown = _parse(_expanded(url))
        self._headers = _headers(self._parts, secret_env)
        self._kinds = frozenset(kinds)
        self._retry_s, self._retry_most_s, self._timeout_s = retry_s, retry_most_s, timeout_s
        self._waiting: Channel[Event] = Channel(_WAITING, Overflow.DROP_OLDEST)
        self._ending = threading.Event()
        self._cut = False
        self._connection: http.client.HTTPConnection | None = None
        self._thread: threading.Thread | None = None
        self._failing = False
        self._given_up = 0
        self.delivered = 0

    @property
    def lost(self) -> int:
        """Events that were never delivered: given way, refused or given up."""
        return self._given_up + self._waiting.dropped

    def start(self, on_trouble: Callable[[str, str], None]) -> None:
        """`on_trouble(kind, text)` is called in its thread: webhook_failed, webhook_live."""
        self._thread = start_thread("webhook", self._run, on_trouble)

    def post(self, event: Event) -> None:
        """Returns at once."""
        if not self._kinds or event.kind in self._kinds:
            with contextlib.suppress(Closed):  # it comes after the end
                self._waiting.put(event)

    def stop(self, timeout_s: float = 2.0) -> None:
        """Deliver what waits, as far as the receiver answers within `timeout_s`, and end."""
        self._waiting.close()
        self._ending.set()
        if self._thread is None:
            return
        self._thread.join(timeout_s)
        self._cut = True
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):  # wakes the thread; it is closed there
                connection.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    # --- its own thread --------------------------------------------------------------------------

    def _run(self, on_trouble: Callable[[str, str], None]) -> None:
        for event in self._waiting:
            if self._cut or not self._deliver(event, on_trouble):
                self._given_up += 1
                if self._ending.is_set():  # the others would fare no better
                    self._given_up += len(self._waiting)
                    return

    def _deliver(self, event: Event, on_trouble: Callable[[str, str], None]) -> bool:
        """Whether it was taken, after as many attempts as it needs."""
        body = json.dumps(event.to_json(), ensure_ascii=False, allow_nan=False).encode()
        began_s, retry = time.monotonic(), Retry(self._retry_s, self._retry_most_s)
        while True:
            failure, again = self._attempt(body)
            if failure is None:
                self.delivered += 1
                if self._failing:
                    self._failing = False
                    on_trouble("webhook_live", f"{self.shown}: takes events again; {self.lost} were lost")
                return True
            if not self._failing:  # said once
                self._failing = True
                then = "tried again" if again else "such events are lost; check server.webhook"
                on_trouble("webhook_failed", f"{self.shown}: {failure}; {then}")
            now_s = time.monotonic()
            if not again or now_s - began_s > _PATIENCE_S or self._ending.is_set():
                return False
            self._ending.wait(retry.pause_s(now_s))

    def _attempt(self, body: bytes) -> tuple[str | None, bool]:
        """Why it was not taken, None where it was; and whether another attempt may succeed."""
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
        return f"answers {status}", status >= 500 or status in _AGAIN


def _expanded(text: str) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise ConfigError(f"server.webhook.url: the environment holds no {match[1]}; set it")
        return os.environ[match[1]]

    return re.sub(r"\$\{(\w+)\}", value, text)


def _parse(url: str) -> tuple[SplitResult, str]:
    """The URL's parts and what may be shown of it; ConfigError that quotes nothing of it."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not re.fullmatch(r"[!-~]+", url) or not host or parts.scheme not in ("http", "https"):
        raise ConfigError(
            "server.webhook.url: is no http(s) address; write https://HOST/PATH, other signs as %XX"
        )
    where = f"[{host}]" if ":" in host else host
    return parts, f"{parts.scheme}://{where}" + (f":{port}" if port else "")


def _headers(parts: SplitResult, secret_env: str | None) -> dict[str, str]:
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
                "and signs; set it"
            )
        headers[SECRET_HEADER] = secret
    return headers
