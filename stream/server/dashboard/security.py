"""Access to the dashboard: checks of host, origin and token, log-ins, and the headers of every answer."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import secrets
import socket
import time
import traceback
from collections import deque
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from stream.live.source.address import redact

COOKIE = "gpen_stream_session"
REQUESTED_WITH = "gpen-stream"
"""Value of the header X-Requested-With of requests by our pages. A form on another site cannot send it."""
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
"""Largest body, in bytes, of a request that is not an upload."""
UPLOAD_PATH = "/api/files"

_OPEN_PATHS = ("/healthz", "/login", "/api/login", "/favicon.ico")
"""Paths that need no log-in."""
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing."""
_SESSION_S = 7 * 86400
_MAX_SESSIONS = 1000
_WINDOW_S = 60.0
_MAX_FAILURES, _MAX_FAILURES_OF_ALL = 5, 50
"""Wrong tokens within `_WINDOW_S`, from one address and from all, after which no token is checked."""
_BODY_S = 60.0
"""Longest pause between two parts of a request's body."""
_log = logging.getLogger(__name__)


class Guard:
    """ASGI middleware that checks every request, WebSockets included, before the application sees it.

    Without a token every user of this machine may use the dashboard. Requests that another site makes a
    browser send are refused in any case. The host name is checked so that no site can point its own name
    at this server (DNS rebinding). IP addresses cannot be rebound and are always accepted.
    """

    def __init__(
        self, app: ASGIApp, token: str | None, names: Iterable[str] = (), upload_limit: int = 0
    ) -> None:
        self._app, self._token = app, token
        self._names = {"localhost", socket.gethostname().lower(), *(name.lower() for name in names)}
        self._upload_limit = upload_limit
        self._sessions: dict[str, float] = {}
        self._failed: deque[tuple[float, str]] = deque(maxlen=1000)
        self.failures = 0
        """Wrong tokens so far."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request and pass it on, as ASGI calls it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        refusal = self._refusal(connection)
        if refusal is not None:
            await _answer(refusal, scope, receive, send)
            return
        scope.setdefault("state", {})["guard"] = self
        began = False

        async def sending(message: Message) -> None:
            nonlocal began
            began = True
            await send(_with_security_headers(message, scope["path"]))

        try:
            await self._app(scope, self._limited(scope, receive), sending)
        except Exception as error:  # its text may hold a secret, so it is not sent
            if isinstance(error, OSError) and began:
                return  # the browser has left
            _log.error("%s", redact("".join(traceback.format_exception(error))).rstrip())
            if not began and scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1011})
            elif not began:
                text = f"unexpected {type(error).__name__}; see the server's log"
                await _answer(JSONResponse({"error": text}, 500), scope, receive, send)

    # --- log-ins ----------------------------------------------------------------------------------

    def log_in(self, token: str, connection: HTTPConnection) -> Response:
        """The answer to a log-in: a session cookie if the token is right."""
        if self._token is None:
            return JSONResponse({"ok": True})
        if (refusal := self._too_many_failures(connection)) is not None:  # since the request began
            return refusal
        if not self._is_token(token):
            self._record_failure(connection)
            return JSONResponse({"error": "The token is wrong"}, 401)
        now = time.time()
        live = {key: until for key, until in self._sessions.items() if until > now}
        self._sessions = dict(list(live.items())[-_MAX_SESSIONS + 1 :])
        session = secrets.token_urlsafe(32)
        self._sessions[session] = now + _SESSION_S
        response = JSONResponse({"ok": True})
        # Behind a proxy only the Origin header tells that the browser uses TLS.
        secure = connection.headers.get("origin", "").startswith("https://")
        response.set_cookie(
            COOKIE, session, max_age=_SESSION_S, httponly=True, samesite="strict", path="/", secure=secure
        )
        return response

    def log_out(self, connection: HTTPConnection) -> Response:
        """The answer to a log-out: the session ends here, and the cookie is deleted."""
        self._sessions.pop(_cookie(connection), None)
        response = JSONResponse({"ok": True})
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return response

    @property
    def needs_token(self) -> bool:
        """Whether users have to log in."""
        return self._token is not None

    def still_admits(self, connection: HTTPConnection) -> bool:
        """Whether the user who opened a stream is still logged in."""
        by_script = "authorization" in connection.headers  # its token was checked at the start
        return self._token is None or by_script or self._has_session(connection)

    # --- checks -----------------------------------------------------------------------------------

    def _refusal(self, connection: HTTPConnection) -> Response | None:
        """The answer to a request that is refused; None: the request is accepted."""
        path, headers = connection.scope["path"], connection.headers
        hosts, method = headers.getlist("host"), connection.scope.get("method", "GET")
        if len(hosts) != 1 or not self._is_own_host(hosts[0]):
            return JSONResponse({"error": "This server does not answer to that name"}, 421)
        if not _is_same_site(headers, hosts[0], method, path):
            return JSONResponse({"error": "Other sites may not use this server"}, 403)
        bearer = headers.get("authorization", "")
        unsafe = method not in _SAFE_METHODS or (
            connection.scope["type"] == "websocket" and "origin" not in headers
        )
        if unsafe and not bearer and headers.get("x-requested-with") != REQUESTED_WITH:
            return JSONResponse({"error": f"X-Requested-With: {REQUESTED_WITH} is missing"}, 403)
        if self._token is None or path in _OPEN_PATHS or path.startswith("/static/"):
            return None
        if bearer:
            return self._refusal_of_bearer(connection, bearer)
        if self._has_session(connection):
            return None
        if path == "/" and method == "GET":
            return RedirectResponse("/login", 303)
        return JSONResponse({"error": "Log in first"}, 401, headers={"WWW-Authenticate": "Bearer"})

    def _refusal_of_bearer(self, connection: HTTPConnection, bearer: str) -> Response | None:
        if (refusal := self._too_many_failures(connection)) is not None:
            return refusal
        if bearer.startswith("Bearer ") and self._is_token(bearer.removeprefix("Bearer ").strip()):
            return None
        self._record_failure(connection)
        return JSONResponse({"error": "The token is wrong"}, 401, headers={"WWW-Authenticate": "Bearer"})

    def _has_session(self, connection: HTTPConnection) -> bool:
        return self._sessions.get(_cookie(connection), 0.0) > time.time()

    def _record_failure(self, connection: HTTPConnection) -> None:
        self.failures += 1
        self._failed.append((time.monotonic(), _client_network(connection)))

    def _is_token(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), (self._token or "").encode())

    def _is_own_host(self, host: str) -> bool:
        """Whether a Host header names this server."""
        try:
            parts = urlsplit(f"//{host}")
            name, _ = parts.hostname or "", parts.port  # `port` raises if it is not a number
        except ValueError:
            return False
        if "@" in host:
            return False
        try:
            ipaddress.ip_address(name)
            return True
        except ValueError:
            return name in self._names

    def _too_many_failures(self, connection: HTTPConnection) -> Response | None:
        """The refusal after too many wrong tokens; None: the token may be checked."""
        since_s, address = time.monotonic() - _WINDOW_S, _client_network(connection)
        recent = [(at_s, other) for at_s, other in self._failed if at_s > since_s]
        own = [at_s for at_s, other in recent if other == address]
        if len(own) < _MAX_FAILURES and len(recent) < _MAX_FAILURES_OF_ALL:
            return None
        first_s = own[-_MAX_FAILURES] if len(own) >= _MAX_FAILURES else recent[-_MAX_FAILURES_OF_ALL][0]
        wait_s = max(1, round(first_s - since_s))
        text = f"Too many wrong tokens; try again in {wait_s} s"
        return JSONResponse({"error": text}, 429, headers={"Retry-After": str(wait_s)})

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """Wrap `receive` so that it raises HTTPException for a body that is too large or comes too slowly."""
        limit = self._upload_limit if scope["path"] == UPLOAD_PATH else BODY_LIMIT
        received, complete = 0, scope["type"] != "http"

        async def limited() -> Message:
            nonlocal received, complete
            if complete:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), _BODY_S)
            except TimeoutError:
                raise HTTPException(408, "the request's body does not come") from None
            if message["type"] == "http.request":
                complete = not message.get("more_body", False)
                received += len(message.get("body", b""))
                if received > limit:
                    raise HTTPException(413, f"the request is larger than {limit} bytes")
            return message

        return limited


def _client_network(connection: HTTPConnection) -> str:
    """The client's address. An IPv6 client usually has a whole /64 network, which counts as one address."""
    host = connection.client.host if connection.client else ""
    return str(ipaddress.ip_network(f"{host}/64", strict=False)) if ":" in host else host


def _is_same_site(headers: Headers, host: str, method: str, path: str) -> bool:
    """Whether no page of another site made the browser send a request.

    A script outside of a browser sends none of the headers that would tell.
    """
    navigates = method == "GET" and headers.get("sec-fetch-mode") == "navigate" and path in ("/", "/login")
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not navigates:
        return False
    return all(
        origin.lower() in (f"http://{host}".lower(), f"https://{host}".lower())
        for origin in headers.getlist("origin")
    )


def _cookie(connection: HTTPConnection) -> str:
    """The session in a request's cookie; empty without a cookie."""
    try:
        morsel = SimpleCookie(connection.headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _with_security_headers(message: Message, path: str) -> Message:
    """The start of an answer with `HEADERS` added; other messages unchanged."""
    if message["type"] not in ("http.response.start", "websocket.http.response.start"):
        return message
    cache = "no-cache" if path.startswith("/static/") else "no-store"  # ask each time, or never store
    ours = {name.lower().encode(): value.encode() for name, value in HEADERS.items()}
    ours[b"cache-control"] = cache.encode()
    kept = [pair for pair in message.get("headers", ()) if pair[0].lower() not in ours]
    return {**message, "headers": [*kept, *ours.items()]}


async def _answer(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Send an answer in place of the application's."""

    async def sending(message: Message) -> None:
        await send(_with_security_headers(message, scope["path"]))

    if scope["type"] == "websocket":
        await receive()  # the request to connect, which is refused
        await WebSocket(scope, receive, sending).send_denial_response(response)
    else:
        response.headers["Connection"] = "close"  # the rest of its body is not read
        await response(scope, receive, sending)
