"""Who may speak to the dashboard: host, origin, token, log-ins; and the headers that every answer carries."""

from __future__ import annotations

import hmac
import ipaddress
import os
import secrets
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, RedirectResponse, Response

from stream.errors import ConfigError

COOKIE = "gpen_stream_session"
REQUESTED_WITH = "gpen-stream"
"""Value of X-Requested-With that our pages send along; a form on another site cannot."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self'; font-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}  # fmt: skip
BODY_LIMIT = 64 * 1024
"""Bytes of a request that is no upload."""
UPLOAD = "/api/files"

_OPEN = ("/healthz", "/login", "/api/login", "/favicon.ico")
_SAFE = ("GET", "HEAD", "OPTIONS")
_SESSION_S = 7 * 86400
_SESSIONS = 1000
_WINDOW_S = 60.0
_TRIES, _TRIES_OF_ALL = 5, 50
"""Failed log-ins in a minute, of one address and of all together."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def load_token(path: Path, host: str) -> str | None:
    """The access token. Made at the first start that needs one; None: this machine only, without.

    The file is readable by its owner alone. Raises ConfigError where another address than loopback
    would be served without one.
    """
    if path.exists():
        return _read(path)
    if is_loopback(host):
        return None
    token = secrets.token_urlsafe(32)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(token + "\n")
    except OSError as error:
        raise ConfigError(
            f"{path}: the token cannot be written ({error.strerror}), and {host} is served with one only; "
            "set server.token_file"
        ) from None
    return token


def _read(path: Path) -> str:
    try:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise ConfigError(f"{path}: others may read the token; run: chmod 600 {path}")
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the token cannot be read ({type(error).__name__})") from None
    if len(token) < 16:
        raise ConfigError(f"{path}: the token is too short; delete the file and one is made")
    return token


class Guard:
    """ASGI middleware in front of everything, sockets included.

    Without a token everybody on this machine may use it; what other sites make a browser send is
    refused all the same. Host names are checked so that no site can rebind its own name to us:
    numbers cannot be rebound and always pass.
    """

    def __init__(
        self, app: Callable, token: str | None, names: Iterable[str] = (), upload_limit: int = 0
    ) -> None:
        self._app, self._token = app, token
        self._names = {"localhost", socket.gethostname().lower(), *(name.lower() for name in names)}
        self._upload_limit = upload_limit
        self._sessions: dict[str, float] = {}
        self._failed: deque[tuple[float, str]] = deque(maxlen=1000)

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        """See ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        refusal = self._refusal(connection)
        if scope["type"] == "websocket":
            if refusal is not None:
                await receive()
                await send({"type": "websocket.close", "code": 4401, "reason": "refused"})
                return
            await self._app(scope, receive, send)
            return
        send = _with_headers(send, scope["path"])
        if refusal is None and scope["path"] == "/api/login" and scope["method"] == "POST":
            refusal = self._tried_too_often(connection)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        scope.setdefault("state", {})["guard"] = self
        await self._app(scope, self._limited(scope, receive), send)

    # --- log-ins ----------------------------------------------------------------------------------

    def log_in(self, token: str, address: str) -> Response:
        """Answer to a log-in: a cookie, or no."""
        if self._token is None:
            return JSONResponse({"ok": True})
        if not self._right(token):
            self._failed.append((time.monotonic(), address))
            return JSONResponse({"error": "The token is wrong"}, 401)
        now = time.time()
        live = {key: until for key, until in self._sessions.items() if until > now}
        self._sessions = dict(list(live.items())[-_SESSIONS + 1 :])
        session = secrets.token_urlsafe(32)
        self._sessions[session] = now + _SESSION_S
        response = JSONResponse({"ok": True})
        response.set_cookie(COOKIE, session, max_age=_SESSION_S, httponly=True, samesite="strict", path="/")
        return response

    def log_out(self, connection: HTTPConnection) -> Response:
        """The session ends, on this side too."""
        self._sessions.pop(_cookie(connection), None)
        response = JSONResponse({"ok": True})
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return response

    @property
    def locked(self) -> bool:
        """Whether a token is asked for."""
        return self._token is not None

    # --- checks -----------------------------------------------------------------------------------

    def _refusal(self, connection: HTTPConnection) -> Response | None:
        path, headers = connection.scope["path"], connection.headers
        method = connection.scope.get("method", "GET")
        host = headers.get("host", "")
        if not self._is_ours(host):
            return JSONResponse({"error": "This server does not answer to that name"}, 421)
        bearer = headers.get("authorization", "")
        by_script = bool(bearer)
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return JSONResponse({"error": "Other sites may not use this server"}, 403)
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not (
            method == "GET" and headers.get("sec-fetch-mode") == "navigate" and path in ("/", "/login")
        ):
            return JSONResponse({"error": "Other sites may not use this server"}, 403)
        wanted = headers.get("x-requested-with") == REQUESTED_WITH
        if method not in _SAFE and not by_script and not wanted:
            return JSONResponse({"error": f"X-Requested-With: {REQUESTED_WITH} is missing"}, 403)
        if self._token is None or path in _OPEN or path.startswith("/static/"):
            return None
        if by_script:
            refusal = self._tried_too_often(connection)
            if refusal is not None:
                return refusal
            if bearer.startswith("Bearer ") and self._right(bearer.removeprefix("Bearer ").strip()):
                return None
            self._failed.append((time.monotonic(), _address(connection)))
            return JSONResponse({"error": "The token is wrong"}, 401)
        if self._sessions.get(_cookie(connection), 0.0) > time.time():
            return None
        if path == "/" and method == "GET":
            return RedirectResponse("/login", 303)
        return JSONResponse({"error": "Log in first"}, 401)

    def _right(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), (self._token or "").encode())

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name)
            return True
        except ValueError:
            return name in self._names

    def _tried_too_often(self, connection: HTTPConnection) -> Response | None:
        since, here = time.monotonic() - _WINDOW_S, _address(connection)
        recent = [(at, who) for at, who in self._failed if at > since]
        own = [at for at, who in recent if who == here]
        if len(own) < _TRIES and len(recent) < _TRIES_OF_ALL:
            return None
        first = own[-_TRIES] if len(own) >= _TRIES else recent[-_TRIES_OF_ALL][0]
        wait = max(1, round(first - since))
        text = f"Too many wrong tokens; try again in {wait} s"
        return JSONResponse({"error": text}, 429, headers={"Retry-After": str(wait)})

    def _limited(self, scope: dict, receive: Callable) -> Callable[[], Awaitable[dict]]:
        """`receive` that ends a body beyond the limit."""
        limit = self._upload_limit if scope["path"] == UPLOAD else BODY_LIMIT
        taken = 0

        async def limited() -> dict:
            nonlocal taken
            message = await receive()
            if message["type"] == "http.request":
                taken += len(message.get("body", b""))
                if taken > limit:
                    raise TooLarge(limit)
            return message

        return limited


class TooLarge(HTTPException):
    """A request's body is beyond its limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, f"the request is larger than {limit} bytes")


def _address(connection: HTTPConnection) -> str:
    return connection.client.host if connection.client else ""


def _cookie(connection: HTTPConnection) -> str:
    try:
        morsel = SimpleCookie(connection.headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _with_headers(send: Callable, path: str) -> Callable:
    extra = dict(HEADERS)
    if not path.startswith("/static/"):
        extra["Cache-Control"] = "no-store"
    pairs = [(name.lower().encode(), value.encode()) for name, value in extra.items()]

    async def wrapped(message: dict) -> None:
        if message["type"] == "http.response.start":
            kept = [pair for pair in message.get("headers", ()) if pair[0] not in dict(pairs)]
            message = message | {"headers": [*kept, *pairs]}
        await send(message)

    return wrapped
