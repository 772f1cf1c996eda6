"""The application: pages, interface, guard, and what errors look like."""

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
from stream.errors import StreamError
from stream.server.dashboard.jobs import Jobs
from stream.server.dashboard.rest import routes
from stream.server.dashboard.security import Guard
from stream.server.supervisor import NotFound, Supervisor

_THREADS = 24
"""For requests that wait for a camera."""
STATIC = Path(__file__).with_name("static")


def create_app(
    supervisor: Supervisor,
    jobs: Jobs,
    *,
    token: str | None = None,
    on_end: Callable[[], None] = lambda: None,
    is_ending: Callable[[], bool] = lambda: False,
) -> Guard:
    """The dashboard as an ASGI application, its guard outermost.

    `on_end` is run in a thread of its own when the server ends, before connections are waited for no
    longer; long answers end when `is_ending` says so.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Python's own number of threads follows the cores: a few sources being tried would hold up all.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, "dashboard"))
        yield
        await asyncio.to_thread(on_end)

    app = FastAPI(
        title="gpen-stream", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan,
        description="Cameras, recordings and files whose faces are restored.",
    )  # fmt: skip
    app.state.closing = is_ending
    app.include_router(routes(supervisor, jobs))
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    _pages(app)
    _errors(app)
    server = supervisor.server
    return Guard(app, token, server.names, server.upload_mb * 2**20)


def _pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return FileResponse(STATIC / "index.html")

    @app.get("/login", include_in_schema=False)
    async def login(request: Request) -> Response:
        if not request.state.guard.locked:
            return RedirectResponse("/", 303)
        return FileResponse(STATIC / "login.html")

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return FileResponse(STATIC / "icon.svg", media_type="image/svg+xml")


def _errors(app: FastAPI) -> None:
    def line(error: Exception) -> str:
        return " ".join(str(error).split())

    @app.exception_handler(NotFound)
    async def missing(_: Request, error: NotFound) -> JSONResponse:
        return JSONResponse({"error": line(error)}, 404)

    @app.exception_handler(StreamError)
    async def expected(_: Request, error: StreamError) -> JSONResponse:
        return JSONResponse({"error": line(error)}, 422)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "body"
        return JSONResponse({"error": f"{where}: {first['msg']}"}, 422)  # never the value: it may be a secret

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, error: Exception) -> JSONResponse:
        text = f"unexpected {type(error).__name__}; see the server's log"  # where the guard writes it
        return JSONResponse({"error": text}, 500)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code, headers=error.headers)
