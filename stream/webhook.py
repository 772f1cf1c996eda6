"""Events posted to an HTTP server as JSON: in order, again and again until it takes them."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import random
import re
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from stream import __version__
from stream.address import expand
from stream.errors import ConfigError
from stream.workers import start_thread

KINDS = (
    "face_seen", "camera_up", "camera_down", "source_refused", "camera_restarted", "level_changed",
    "sink_failed", "sink_live", "disk_low", "stage_failed", "model_failed", "restorer_restarted",
    "webhook_failed", "webhook_works",
)  # fmt: skip
"""Of events. The last two are of the webhook and not sent to it."""
_TIMEOUT_S = 4.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_KEPT = 200
_AGAIN = frozenset({408, 425, 429})
"""Answers after which the same event may be taken later, beside 500 and above."""


@dataclass(frozen=True, slots=True)
class _Trouble:
    """Why an event was not taken, without a credential; `again`: it may be later."""

    text: str
    again: bool


@dataclass(frozen=True, slots=True)
class Target:
    """Where events are posted; `headers` and `path` may hold secrets."""

    shown: str
    """Scheme, host and port."""
    secure: bool
    host: str
    port: int | None
    path: str = field(repr=False)
    headers: dict[str, str] = field(repr=False)


class Webhook:
    """Posts events in a thread of its own, from the first one to `stop`.

    Two hundred wait at most; of more the oldest are dropped.
    What the server refuses (4xx) is dropped, everything else is tried again with growing pauses.
    Redirections are not followed: the secret is for one server.
    """

    def __init__(self, target: Target, kinds: Collection[str] = (), pause_s: float = _FIRST_PAUSE_S) -> None:
        self.delivered = self.dropped = 0
        self._target, self._kinds, self._first_pause_s = target, frozenset(kinds), pause_s
        self._waiting: deque[dict[str, Any]] = deque()
        self._changed = threading.Condition()
        self._ending = self._abandoned = False
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._failing = False
        self.on_event: Callable[[str, str], None] = lambda kind, text: None
        """Called as (kind, text) once when it fails and once when it works again."""

    def offer(self, event: dict[str, Any]) -> None:
        """An event of `Events`, to be posted where its kind is wanted. Never waits."""
        if self._kinds and event["kind"] not in self._kinds:
            return
        with self._changed:
            if self._ending:
                return
            if self._thread is None:
                self._thread = start_thread("webhook", self._run)
            self._waiting.append(event)
            if len(self._waiting) > _KEPT:
                self._waiting.popleft()
                self.dropped += 1
            self._changed.notify()

    def stop(self, timeout_s: float) -> None:
        """Post what waits, for so long at most, then end; a connection that hangs is cut."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        if self._thread is None:
            return
        self._thread.join(timeout_s)
        with self._changed:
            self._abandoned = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _run(self) -> None:
        pause_s = self._first_pause_s
        while (event := self._next()) is not None:
            trouble = self._post(event)
            self._tell(trouble)
            with self._changed:
                if trouble is not None and trouble.again:
                    # Jitter: servers that come back are not met by everybody at once.
                    self._changed.wait_for(lambda: self._ending, pause_s * random.uniform(0.8, 1.2))
                    if self._ending:
                        self.dropped += len(self._waiting)
                        return
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                    continue
                pause_s = self._first_pause_s
                self.delivered += trouble is None
                self.dropped += trouble is not None
                if self._waiting and self._waiting[0] is event:  # else it was dropped meanwhile
                    self._waiting.popleft()

    def _next(self) -> dict[str, Any] | None:
        """The event that waits longest; None: it is time to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ending)
            if self._abandoned:
                self.dropped += len(self._waiting)
                self._waiting.clear()
            return self._waiting[0] if self._waiting else None

    def _post(self, event: dict[str, Any]) -> _Trouble | None:
        target = self._target
        at = datetime.fromtimestamp(event["at"], UTC).isoformat(timespec="milliseconds")
        body = json.dumps(event | {"time": at.replace("+00:00", "Z")}, default=str).encode()
        kind = http.client.HTTPSConnection if target.secure else http.client.HTTPConnection
        connection = kind(target.host, target.port, timeout=_TIMEOUT_S)
        try:
            connection.connect()
            with self._changed:
                self._socket = connection.sock
                if self._abandoned:
                    return _Trouble("it is time to end", again=True)
            connection.request("POST", target.path, body, target.headers)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return _Trouble(_words(error), again=True)
        finally:
            with self._changed:
                self._socket = None
            connection.close()
        if 200 <= status < 300:
            return None
        return _Trouble(f"answers {status}", again=status >= 500 or status in _AGAIN)

    def _tell(self, trouble: _Trouble | None) -> None:
        failing = trouble is not None
        if failing and not self._failing:
            what = "it is tried again" if trouble.again else "the event is dropped"
            self.on_event("webhook_failed", f"{self._target.shown}: {trouble.text}; {what}")
        elif self._failing and not failing:
            self.on_event("webhook_works", f"{self._target.shown}: takes events again")
        self._failing = failing


def parse_webhook(url: str, secret_env: str | None = None, kinds: Collection[str] = ()) -> Webhook:
    """The webhook of a server's settings. `${NAME}` in the URL is taken from the environment.

    `secret_env` names the environment variable whose value goes along as a bearer token. ConfigError
    names the key, and no secret.
    """
    key = "server.webhook"
    if unknown := [kind for kind in kinds if kind not in KINDS[:-2]]:
        raise ConfigError(f"{key}.kinds: {unknown[0]} is none; choose of {', '.join(KINDS[:-2])}")
    url = expand(url, f"{key}.url")
    if not re.fullmatch(r"https?://[!-~]+", url):
        raise ConfigError(f"{key}.url: no http:// or https:// address in plain ASCII; write it escaped")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host:
        raise ConfigError(f"{key}.url: its host or port cannot be read; write https://HOST/PATH")
    headers = {"Content-Type": "application/json", "User-Agent": f"gpen-stream/{__version__}"}
    if parts.username is not None:
        if secret_env is not None:
            raise ConfigError(f"{key}: a user in the url and a secret_env; only one of them can be sent")
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    if secret_env is not None:
        secret = os.environ.get(secret_env)
        if not secret:
            raise ConfigError(f"{key}.secret_env: the environment holds no {secret_env}; set it")
        if not re.fullmatch(r"[!-~]+", secret):
            raise ConfigError(f"{key}.secret_env: {secret_env} holds more than printable ASCII")
        headers["Authorization"] = f"Bearer {secret}"
    shown = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Webhook(Target(shown, parts.scheme == "https", host, port, path, headers), kinds)


def _words(error: Exception) -> str:
    """Why, without a word of the address or of what was sent."""
    if isinstance(error, TimeoutError):
        return f"does not answer within {_TIMEOUT_S:g} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, ConnectionError):
        return "hangs up without an answer"
    return f"speaks no HTTP ({type(error).__name__})"
