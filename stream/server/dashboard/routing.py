"""Shared parts of the routes: dependencies, descriptions of request bodies, and answers with a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends
from fastapi.responses import FileResponse
from starlette.requests import HTTPConnection

from stream.server.dashboard.file_types import media_type
from stream.server.dashboard.jobs import JobQueue
from stream.server.dashboard.security import Guard
from stream.server.supervisor.camera_host import CameraHost


async def _supervisor(connection: HTTPConnection) -> CameraHost:
    supervisor: CameraHost = connection.app.state.supervisor
    return supervisor


async def _jobs(connection: HTTPConnection) -> JobQueue:
    jobs: JobQueue = connection.app.state.jobs
    return jobs


async def _guard(connection: HTTPConnection) -> Guard:
    guard: Guard = connection.state.guard
    return guard


async def _must_end(connection: HTTPConnection) -> Callable[[], bool]:
    is_ending, guard = connection.app.state.is_ending, await _guard(connection)
    return lambda: is_ending() or not guard.still_admits(connection)


SupervisorDependency = Annotated[CameraHost, Depends(_supervisor)]
JobsDependency = Annotated[JobQueue, Depends(_jobs)]
GuardDependency = Annotated[Guard, Depends(_guard)]
MustEndDependency = Annotated[Callable[[], bool], Depends(_must_end)]
"""Whether a long answer has to end because the server ends or the log-in that opened it has ended."""


def body_schema(schema: dict[str, Any], media: str = "application/json") -> dict[str, Any]:
    """OpenAPI's description of a request body that the route parses itself."""
    return {"requestBody": {"required": True, "content": {media: {"schema": schema}}}}


def file_response(path: Path, download: bool) -> FileResponse:
    """A file, shown in the browser, or saved by it if `download` is set or it cannot show such files."""
    kind = media_type(path)
    attached = download or kind == "application/octet-stream"
    return FileResponse(
        path,
        media_type=kind,
        filename=path.name,
        content_disposition_type="attachment" if attached else "inline",
    )
