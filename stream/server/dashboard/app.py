"""The ASGI application: pages, REST interface, security and the form of errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from stream import __version__
from stream.errors import NotFoundError, StreamError
from stream.server.dashboard import (
    camera_routes,
    event_routes,
    file_routes,
    picture_routes,
    recording_routes,
    server_routes,
)
from stream.server.dashboard.jobs import JobQueue
from stream.server.dashboard.security import Guard
from stream.server.supervisor.camera_host import CameraHost

_THREADS = 24
"""Threads for requests that wait for a camera."""
STATIC = Path(__file__).with_name("static")


def create_app(
    supervisor: CameraHost,
    jobs: JobQueue,
    *,
    token: str | None = None,
    on_end: Callable[[], None] = lambda: None,
    is_ending: Callable[[], bool] = lambda: False,
) -> Guard:
    """The dashboard as an ASGI application, wrapped in its guard.

    `token` is the access token; None: no log-in is needed. `on_end` is called in a thread when the server
    ends. Long answers end as soon as `is_ending` returns True.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Python's default number of threads follows the number of cores: a few tests of sources would
        # delay all other requests.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, "dashboard"))
        yield
        await asyncio.to_thread(on_end)

    app = FastAPI(
        title="gpen-stream", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan,
        description="Cameras, recordings and files whose faces are restored.",
    )  # fmt: skip
    app.state.supervisor, app.state.jobs, app.state.is_ending = supervisor, jobs, is_ending
    app.state.source_tests = asyncio.Semaphore(camera_routes.SOURCE_TESTS)
    for module in (
        server_routes, camera_routes, picture_routes, recording_routes, event_routes, file_routes,
    ):  # fmt: skip
        app.include_router(module.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    _add_pages(app)
    _add_error_handlers(app)
    server = supervisor.server
    return Guard(app, token, server.names, server.upload_mb * 2**20)


def _add_pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return FileResponse(STATIC / "index.html")

    @app.get("/login", include_in_schema=False)
    async def login(request: Request) -> Response:
        if not request.state.guard.needs_token:
            return RedirectResponse("/", 303)
        return FileResponse(STATIC / "login.html")

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return FileResponse(STATIC / "icon.svg", media_type="image/svg+xml")


def _add_error_handlers(app: FastAPI) -> None:
    """Answer every error with {"error": "one line"}."""

    def single_line(error: Exception) -> str:
        return " ".join(str(error).split())

    @app.exception_handler(NotFoundError)
    async def missing(_: Request, error: NotFoundError) -> JSONResponse:
        return JSONResponse({"error": single_line(error)}, 404)

    @app.exception_handler(StreamError)
    async def expected(_: Request, error: StreamError) -> JSONResponse:
        return JSONResponse({"error": single_line(error)}, 422)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "body"
        # The value is left out: it may be a secret.
        return JSONResponse({"error": f"{where}: {first['msg']}"}, 422)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        text = f"unexpected {type(error).__name__}; see the server's log"  # the guard writes it there
        return JSONResponse({"error": text}, 500)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code, headers=error.headers)
