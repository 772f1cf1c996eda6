"""Who may speak to the dashboard: host, origin, token, log-ins; and the headers that every answer carries."""

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
_BODY_S = 60.0
"""Longest pause in a request's body."""
_log = logging.getLogger(__name__)


class Guard:
    """ASGI middleware in front of everything, sockets included.

    Without a token everybody on this machine may use it; what other sites make a browser send is
    refused all the same. Host names are checked so that no site can rebind its own name to us:
    numbers cannot be rebound and always pass.
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
        """See ASGI."""
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
            await send(_hardened(message, scope["path"]))

        try:
            await self._app(scope, self._limited(scope, receive), sending)
        except Exception as error:  # what an unforeseen error says may hold anything: it is not passed on
            if isinstance(error, OSError) and began:
                return  # the other side left
            _log.error("%s", redact("".join(traceback.format_exception(error))).rstrip())
            if not began and scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1011})
            elif not began:
                text = f"unexpected {type(error).__name__}; see the server's log"
                await _answer(JSONResponse({"error": text}, 500), scope, receive, send)

    # --- log-ins ----------------------------------------------------------------------------------

    def log_in(self, token: str, connection: HTTPConnection) -> Response:
        """Answer to a log-in: a cookie, or no."""
        if self._token is None:
            return JSONResponse({"ok": True})
        if (refusal := self._tried_too_often(connection)) is not None:  # while its body was on its way
            return refusal
        if not self._right(token):
            self._fail(connection)
            return JSONResponse({"error": "The token is wrong"}, 401)
        now = time.time()
        live = {key: until for key, until in self._sessions.items() if until > now}
        self._sessions = dict(list(live.items())[-_SESSIONS + 1 :])
        session = secrets.token_urlsafe(32)
        self._sessions[session] = now + _SESSION_S
        response = JSONResponse({"ok": True})
        # Behind a proxy we cannot see that the browser speaks TLS; it says so itself.
        secure = connection.headers.get("origin", "").startswith("https://")
        response.set_cookie(
            COOKIE, session, max_age=_SESSION_S, httponly=True, samesite="strict", path="/", secure=secure
        )
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

    def admits(self, connection: HTTPConnection) -> bool:
        """Whether whoever opened a stream still is logged in."""
        by_script = "authorization" in connection.headers  # its token was right when it came
        return self._token is None or by_script or self._has_session(connection)

    # --- checks -----------------------------------------------------------------------------------

    def _refusal(self, connection: HTTPConnection) -> Response | None:
        path, headers = connection.scope["path"], connection.headers
        hosts, method = headers.getlist("host"), connection.scope.get("method", "GET")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return JSONResponse({"error": "This server does not answer to that name"}, 421)
        if not _from_our_pages(headers, hosts[0], method, path):
            return JSONResponse({"error": "Other sites may not use this server"}, 403)
        bearer = headers.get("authorization", "")
        unsafe = method not in _SAFE or (connection.scope["type"] == "websocket" and "origin" not in headers)
        if unsafe and not bearer and headers.get("x-requested-with") != REQUESTED_WITH:
            return JSONResponse({"error": f"X-Requested-With: {REQUESTED_WITH} is missing"}, 403)
        if self._token is None or path in _OPEN or path.startswith("/static/"):
            return None
        if bearer:
            return self._refusal_of_script(connection, bearer)
        if self._has_session(connection):
            return None
        if path == "/" and method == "GET":
            return RedirectResponse("/login", 303)
        return JSONResponse({"error": "Log in first"}, 401, headers={"WWW-Authenticate": "Bearer"})

    def _refusal_of_script(self, connection: HTTPConnection, bearer: str) -> Response | None:
        if (refusal := self._tried_too_often(connection)) is not None:
            return refusal
        if bearer.startswith("Bearer ") and self._right(bearer.removeprefix("Bearer ").strip()):
            return None
        self._fail(connection)
        return JSONResponse({"error": "The token is wrong"}, 401, headers={"WWW-Authenticate": "Bearer"})

    def _has_session(self, connection: HTTPConnection) -> bool:
        return self._sessions.get(_cookie(connection), 0.0) > time.time()

    def _fail(self, connection: HTTPConnection) -> None:
        self.failures += 1
        self._failed.append((time.monotonic(), _address(connection)))

    def _right(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), (self._token or "").encode())

    def _is_ours(self, host: str) -> bool:
        try:
            parts = urlsplit(f"//{host}")
            name, _ = parts.hostname or "", parts.port  # which raises for what is no number
        except ValueError:
            return False
        if "@" in host:
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

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """`receive` that ends a body beyond the limit."""
        limit = self._upload_limit if scope["path"] == UPLOAD else BODY_LIMIT
        taken, whole = 0, scope["type"] != "http"

        async def limited() -> Message:
            nonlocal taken, whole
            if whole:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), _BODY_S)
            except TimeoutError:
                raise HTTPException(408, "the request's body does not come") from None
            if message["type"] == "http.request":
                whole = not message.get("more_body", False)
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
    """Of whoever asks; who has one IPv6 address has 2**64, which count as one."""
    host = connection.client.host if connection.client else ""
    return str(ipaddress.ip_network(f"{host}/64", strict=False)) if ":" in host else host


def _from_our_pages(headers: Headers, host: str, method: str, path: str) -> bool:
    """Whether no page of another site made the browser send it; scripts do not say where they are."""
    navigates = method == "GET" and headers.get("sec-fetch-mode") == "navigate" and path in ("/", "/login")
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not navigates:
        return False
    return all(
        origin.lower() in (f"http://{host}".lower(), f"https://{host}".lower())
        for origin in headers.getlist("origin")
    )


def _cookie(connection: HTTPConnection) -> str:
    try:
        morsel = SimpleCookie(connection.headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _hardened(message: Message, path: str) -> Message:
    """The start of an answer with our headers in it."""
    if message["type"] not in ("http.response.start", "websocket.http.response.start"):
        return message
    cache = "no-cache" if path.startswith("/static/") else "no-store"  # asked again, or never kept
    ours = {name.lower().encode(): value.encode() for name, value in HEADERS.items()}
    ours[b"cache-control"] = cache.encode()
    kept = [pair for pair in message.get("headers", ()) if pair[0].lower() not in ours]
    return {**message, "headers": [*kept, *ours.items()]}


async def _answer(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    async def sending(message: Message) -> None:
        await send(_hardened(message, scope["path"]))

    if scope["type"] == "websocket":
        await receive()  # the wish to connect, which is not granted
        await WebSocket(scope, receive, sending).send_denial_response(response)
    else:
        response.headers["Connection"] = "close"  # what else it sends is not read
        await response(scope, receive, sending)
