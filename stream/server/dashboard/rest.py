"""The REST interface. Every error is `{"error": "one line"}`."""

from __future__ import annotations

import asyncio
import base64
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, Response, WebSocket
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic_core import to_jsonable_python
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from stream import __version__
from stream.config import PRESETS, Fraction, load_config
from stream.errors import ConfigError, StreamError
from stream.live.session.live_settings import LiveSettings
from stream.models import registry
from stream.pipeline.cpu_budget import available_cores
from stream.pipeline.meter import peak_rss_mb
from stream.server.camera_config import CameraSettings
from stream.server.dashboard import checks, live_pictures, metrics, uploads
from stream.server.dashboard.file_types import is_media, media_type
from stream.server.dashboard.jobs import Jobs, JobStatus, MediaFile, inside
from stream.server.dashboard.security import Guard
from stream.server.supervisor import NotFound, Supervisor
from stream.server.supervisor.camera_status import HistoryPoint
from stream.server.supervisor.recordings import Recording
from stream.server.webhook import Event

_FIRST_PICTURE_S = 10.0
_USABLE = ("bundled", "here", "imported")
_TESTS = 4
"""Sources tried at a time; two are, the others wait."""
_SETTINGS = CameraSettings.model_json_schema()
_FORM = {
    "type": "object",
    "required": ["file"],
    "properties": {"file": {"type": "string", "format": "binary"}},
}
_NAME = {"type": "string", "description": "letters, digits, - and _; up to 40"}


class JobBody(BaseModel):
    """A file of the server's folder, and how it is restored."""

    model_config = ConfigDict(extra="forbid")
    file: str = Field(max_length=255)
    preset: str = "default"
    model: str | None = None
    strength: Fraction | None = None


class SourceBody(BaseModel):
    """An address to try."""

    model_config = ConfigDict(extra="forbid")
    source: str = Field(min_length=1, max_length=2000)


class TokenBody(BaseModel):
    """A log-in."""

    model_config = ConfigDict(extra="forbid")
    token: str = Field(max_length=200)


def routes(supervisor: Supervisor, jobs: Jobs) -> APIRouter:
    """All routes below /api, and those that machines ask: /healthz, /readyz, /metrics."""
    router = APIRouter()
    _machine(router, supervisor, jobs)
    _cameras(router, supervisor)
    _recordings(router, supervisor)
    _events(router, supervisor, jobs)
    _files(router, supervisor, jobs)
    return router


def _machine(router: APIRouter, supervisor: Supervisor, jobs: Jobs) -> None:
    @router.get("/healthz", tags=["server"], summary="Whether the server answers")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz", tags=["server"], summary="Whether cameras can be restored")
    async def readyz() -> JSONResponse:
        ready = await asyncio.to_thread(supervisor.is_ready)
        return JSONResponse({"status": "ready" if ready else "starting"}, 200 if ready else 503)

    @router.get("/metrics", tags=["server"], summary="Prometheus metrics")
    async def prometheus(request: Request) -> Response:
        text = await asyncio.to_thread(metrics.exposition, supervisor, jobs, _guard(request).failures)
        return Response(text, media_type=metrics.CONTENT_TYPE)

    @router.get("/api/server", tags=["server"], summary="Version, cores, engine, memory, disk")
    async def server(request: Request) -> dict[str, JsonValue]:
        folder = supervisor.server.data_folder
        disk = shutil.disk_usage(folder if folder.exists() else "/")
        restorer = supervisor.restorer()
        reports = [camera.report for camera in await asyncio.to_thread(supervisor.cameras)]
        return {
            "version": __version__,
            "cores": available_cores(),
            "engine": next((report.engine for report in reports if report and report.engine), ""),
            "locked": _guard(request).locked,
            "memory_mb": peak_rss_mb(),
            "disk": {"free_bytes": disk.free, "total_bytes": disk.total},
            "restorer": restorer.to_json() if restorer is not None else {},
        }

    @router.get("/api/models", tags=["server"], summary="Models by name, and whether they are installed")
    async def models() -> list[dict[str, JsonValue]]:
        known = await asyncio.to_thread(registry.list_models)
        return [
            {"name": one.name, "task": one.task, "size": one.size, "installed": one.state in _USABLE}
            for one in known
            if one.task not in ("parse", "detect")
        ]

    @router.get("/api/presets", tags=["server"], summary="Presets by name")
    async def presets() -> list[str]:
        return list(PRESETS)

    @router.post("/api/login", tags=["server"], summary="Exchange the token for a session cookie")
    async def login(request: Request, body: TokenBody) -> Response:
        return _guard(request).log_in(body.token, request)

    @router.post("/api/logout", tags=["server"], summary="End the session")
    async def logout(request: Request) -> Response:
        return _guard(request).log_out(request)


def _cameras(router: APIRouter, supervisor: Supervisor) -> None:
    testing = 0

    async def shown(name: str) -> dict[str, JsonValue]:
        return (await asyncio.to_thread(supervisor.camera, name)).to_json()

    @router.get("/api/cameras", tags=["cameras"], summary="All cameras: settings, state and report")
    async def cameras() -> list[dict[str, JsonValue]]:
        return [camera.to_json() for camera in await asyncio.to_thread(supervisor.cameras)]

    @router.post(
        "/api/cameras",
        tags=["cameras"],
        status_code=201,
        summary="Add a camera",
        openapi_extra=_body(_SETTINGS | {"properties": {"name": _NAME} | _SETTINGS["properties"]}),
    )
    async def add(body: Annotated[dict[str, JsonValue], Body()]) -> dict[str, JsonValue]:
        name = body.pop("name", None)
        if not isinstance(name, str):
            raise ConfigError("name: is missing")
        if any(camera.name == name for camera in await asyncio.to_thread(supervisor.cameras)):
            raise HTTPException(409, f"cameras.{name}: there is such a camera already")
        settings = checks.admit(name, body, supervisor.server)
        await asyncio.to_thread(supervisor.add, name, settings)
        return await shown(name)

    @router.get("/api/cameras/{name}", tags=["cameras"], summary="One camera")
    async def camera(name: str) -> dict[str, JsonValue]:
        return await shown(name)

    @router.put(
        "/api/cameras/{name}",
        tags=["cameras"],
        summary="Other settings; the camera starts again",
        openapi_extra=_body(_SETTINGS),
    )
    async def replace(name: str, body: Annotated[dict[str, JsonValue], Body()]) -> dict[str, JsonValue]:
        known = await asyncio.to_thread(supervisor.camera, name)
        settings = checks.admit(name, body, supervisor.server, known.settings)
        await asyncio.to_thread(supervisor.replace, name, settings)
        return await shown(name)

    @router.delete("/api/cameras/{name}", tags=["cameras"], summary="Remove a camera; its recordings stay")
    async def remove(name: str) -> dict[str, JsonValue]:
        await asyncio.to_thread(supervisor.remove, name)
        return {"ok": True}

    @router.post("/api/cameras/{name}/change", tags=["cameras"], summary="Change it while it runs")
    async def change(name: str, body: LiveSettings) -> dict[str, JsonValue]:
        if body.model is not None:
            await asyncio.to_thread(checks.check_model, body.model)
        await asyncio.to_thread(supervisor.change, name, body)
        return await shown(name)

    @router.post(
        "/api/test", tags=["cameras"], summary="Try a source: its first picture, or the reason why not"
    )
    async def test(body: SourceBody) -> dict[str, JsonValue]:
        nonlocal testing
        if testing >= _TESTS:
            raise StreamError("other sources are being tested; try again in a moment")
        testing += 1
        try:
            source = await asyncio.to_thread(_to_try, body.source, supervisor)
            result = await asyncio.to_thread(supervisor.test, source)
        finally:
            testing -= 1
        return {
            "ok": result.ok,
            "reason": result.reason,
            "facts": to_jsonable_python(result.facts or {}),
            "picture": base64.b64encode(result.jpeg).decode() if result.jpeg else "",
        }

    @router.get("/api/cameras/{name}/history", tags=["cameras"], summary="Delay and load of the last hour")
    async def history(name: str) -> list[HistoryPoint]:
        return await asyncio.to_thread(supervisor.history, name)

    @router.get("/api/cameras/{name}/snapshot.jpg", tags=["pictures"], summary="The newest picture")
    async def snapshot(request: Request, name: str) -> Response:
        async with live_pictures.watching(supervisor, name, "restored") as viewer:
            picture = await live_pictures.Pictures(viewer, _closing(request)).next(_FIRST_PICTURE_S)
        if picture is None:
            return JSONResponse({"error": f"{name}: no picture has come"}, 503)
        return Response(picture.data, media_type="image/jpeg")

    @router.get("/api/cameras/{name}/stream.mjpeg", tags=["pictures"], summary="Live pictures for any player")
    async def stream(request: Request, name: str, kind: str = "restored") -> Response:
        _check_kind(kind)
        await asyncio.to_thread(supervisor.camera, name)
        return live_pictures.MjpegResponse(live_pictures.watching(supervisor, name, kind), _closing(request))

    @router.websocket("/api/cameras/{name}/live")
    async def pictures(socket: WebSocket, name: str, kind: str = "restored") -> None:
        try:
            _check_kind(kind)
            async with live_pictures.watching(supervisor, name, kind) as viewer:
                await socket.accept()
                await live_pictures.pictures_to(socket, viewer, _closing(socket))
        except NotFound:
            await socket.close(4404, "no such camera")


def _recordings(router: APIRouter, supervisor: Supervisor) -> None:
    @router.get("/api/cameras/{name}/segments", tags=["recordings"], summary="Recordings, oldest first")
    async def segments(name: str) -> list[Recording]:
        return await asyncio.to_thread(supervisor.segments, name)

    @router.get(
        "/api/cameras/{name}/segments/{file}", tags=["recordings"], summary="One recording, in ranges too"
    )
    async def segment(name: str, file: str, download: bool = False) -> Response:
        path = await asyncio.to_thread(supervisor.segment_path, name, file)
        return _file(path, download)


def _events(router: APIRouter, supervisor: Supervisor, jobs: Jobs) -> None:
    @router.get("/api/events", tags=["events"], summary="What happened, oldest first")
    async def events(since: int = 0) -> list[Event]:
        return supervisor.events.since(since)

    @router.get("/api/events/stream", tags=["events"], summary="Cameras, events and jobs as they change")
    async def stream(request: Request) -> Response:
        last = request.headers.get("last-event-id", "")
        last_id = int(last) if last.isdecimal() and len(last) < 16 else None
        news = await asyncio.to_thread(live_pictures.News, supervisor, jobs, last_id)
        return StreamingResponse(news.lines(_closing(request)), media_type="text/event-stream")


def _files(router: APIRouter, supervisor: Supervisor, jobs: Jobs) -> None:
    @router.get("/api/files", tags=["files"], summary="Files that can be restored")
    async def files() -> list[MediaFile]:
        return await asyncio.to_thread(jobs.files)

    @router.post(
        "/api/files",
        tags=["files"],
        status_code=201,
        summary="Upload a video or picture",
        openapi_extra=_body(_FORM, "multipart/form-data"),
    )
    async def upload(request: Request) -> MediaFile:
        path = await uploads.receive(request, jobs.folder)
        return MediaFile(path.name, path.stat().st_size)

    @router.delete("/api/files/{name}", tags=["files"], summary="Delete a file")
    async def delete(name: str) -> dict[str, JsonValue]:
        inside(jobs.folder, name).unlink()
        return {"ok": True}

    @router.get("/api/jobs", tags=["files"], summary="The queue, oldest first")
    async def queue() -> list[JobStatus]:
        return jobs.all()

    @router.post("/api/jobs", tags=["files"], status_code=201, summary="Restore a file")
    async def begin(body: JobBody) -> JobStatus:
        overrides = []
        if body.model is not None:
            await asyncio.to_thread(checks.check_model, body.model)
            overrides.append(f"restore.model={body.model}")
        if body.strength is not None:
            overrides.append(f"restore.strength={body.strength}")
        if not is_media(inside(jobs.folder, body.file)):
            raise ConfigError(f"{body.file}: is no video or picture that is known here")
        return jobs.add(body.file, load_config(body.preset, None, overrides), body.preset)

    @router.delete("/api/jobs/{job_id}", tags=["files"], summary="Cancel a job, or delete its result")
    async def end(job_id: str) -> dict[str, JsonValue]:
        await asyncio.to_thread(jobs.remove, job_id)
        return {"ok": True}

    @router.get(
        "/api/jobs/{job_id}/{which}", tags=["files"], summary="A job's input or output, in ranges too"
    )
    async def result(job_id: str, which: str, download: Annotated[bool, Query()] = False) -> Response:
        job = jobs.find(job_id)
        if which not in ("input", "output"):
            raise NotFound("a job has an input and an output")
        path = inside(jobs.folder, job.status.file) if which == "input" else inside(jobs.results, job.result)
        return _file(path, download)


def _body(schema: dict[str, Any], kind: str = "application/json") -> dict[str, Any]:
    """Description of a request's body that is taken apart elsewhere."""
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema}}}}


def _guard(connection: HTTPConnection) -> Guard:
    guard: Guard = connection.state.guard
    return guard


def _closing(connection: HTTPConnection) -> Callable[[], bool]:
    """Whether a long answer has to end: with the server, and with the log-in that it was opened by."""
    ends, guard = connection.app.state.closing, _guard(connection)
    return lambda: ends() or not guard.admits(connection)


def _to_try(source: str, supervisor: Supervisor) -> str:
    """A source as it may be tried; one that is shown of a camera is known already."""
    if source in {camera.settings.source for camera in supervisor.cameras()}:
        return source
    return checks.admit_source(source, supervisor.server)


def _check_kind(kind: str) -> None:
    if kind not in live_pictures.KINDS:
        raise NotFound(f"{kind[:20]}: there is no such view; use {' or '.join(live_pictures.KINDS)}")


def _file(path: Path, download: bool) -> FileResponse:
    kind = media_type(path)
    attached = download or kind == "application/octet-stream"
    return FileResponse(
        path,
        media_type=kind,
        filename=path.name,
        content_disposition_type="attachment" if attached else "inline",
    )
