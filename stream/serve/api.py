"""The REST interface. Every error is `{"error": "one line"}`."""

from __future__ import annotations

import asyncio
import base64
import mimetypes
import shutil
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, Response, WebSocket
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from stream import __version__, zoo
from stream.cameras import CameraSettings, parse_camera
from stream.catalog import entries
from stream.config import PRESETS, load_config
from stream.cores import available_cores
from stream.errors import ConfigError
from stream.metrics import peak_rss_mb
from stream.serve import checks, live, metrics, uploads
from stream.serve.jobs import Jobs, inside
from stream.supervisor import NotFound, Supervisor

_FIRST_PICTURE_S = 10.0
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Region = tuple[Fraction, Fraction, Fraction, Fraction]


class ChangesBody(BaseModel):
    """What is to change while the camera runs; what is left out stays."""

    model_config = ConfigDict(extra="forbid")
    strength: Fraction | None = None
    interval: int | None = Field(None, ge=1, le=30)
    model: str | None = None
    preset: str | None = None
    include: tuple[Region, ...] | None = None
    exclude: tuple[Region, ...] | None = None
    passing: bool | None = None


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
    _machine(router, supervisor)
    _cameras(router, supervisor)
    _recordings(router, supervisor)
    _events(router, supervisor, jobs)
    _files(router, supervisor, jobs)
    return router


def _machine(router: APIRouter, supervisor: Supervisor) -> None:
    @router.get("/healthz", tags=["server"], summary="Whether the server answers")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz", tags=["server"], summary="Whether cameras can be restored")
    async def readyz() -> JSONResponse:
        ready = await asyncio.to_thread(supervisor.is_ready)
        return JSONResponse({"status": "ready" if ready else "starting"}, 200 if ready else 503)

    @router.get("/metrics", tags=["server"], summary="Prometheus metrics")
    async def prometheus() -> Response:
        text = await asyncio.to_thread(metrics.exposition, supervisor)
        return Response(text, media_type=metrics.CONTENT_TYPE)

    @router.get("/api/server", tags=["server"], summary="Version, cores, engine, memory, disk")
    async def server() -> dict[str, Any]:
        folder = supervisor.server.data_folder
        disk = shutil.disk_usage(folder if folder.exists() else "/")
        restorer = supervisor.restorer()
        return {
            "version": __version__,
            "cores": available_cores(),
            "engine": restorer.get("engine", ""),
            "memory_mb": peak_rss_mb(),
            "disk": {"free_bytes": disk.free, "total_bytes": disk.total},
            "restorer": restorer,
        }

    @router.get("/api/models", tags=["server"], summary="Models by name, and whether they are installed")
    async def models() -> list[dict[str, Any]]:
        known = [entry for entry in entries().values() if entry.task not in ("parse", "detect")]
        return [
            {"name": one.name, "task": one.task, "size": one.size, "installed": zoo.is_present(one.name)}
            for one in known
        ]

    @router.get("/api/presets", tags=["server"], summary="Presets by name")
    async def presets() -> list[str]:
        return list(PRESETS)

    @router.post("/api/login", tags=["server"], summary="Exchange the token for a session cookie")
    async def login(request: Request, body: TokenBody) -> Response:
        return request.state.guard.log_in(body.token, request.client.host if request.client else "")

    @router.post("/api/logout", tags=["server"], summary="End the session")
    async def logout(request: Request) -> Response:
        return request.state.guard.log_out(request)


def _cameras(router: APIRouter, supervisor: Supervisor) -> None:
    @router.get("/api/cameras", tags=["cameras"], summary="All cameras: settings, state and report")
    async def cameras() -> list[dict[str, Any]]:
        return await asyncio.to_thread(supervisor.cameras)

    @router.post("/api/cameras", tags=["cameras"], status_code=201, summary="Add a camera")
    async def add(body: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        name = body.pop("name", None)
        if not isinstance(name, str):
            raise ConfigError("name: is missing")
        settings = _settings(name, body, supervisor)
        await asyncio.to_thread(supervisor.add, name, settings)
        return await asyncio.to_thread(supervisor.camera, name)

    @router.get("/api/cameras/{name}", tags=["cameras"], summary="One camera")
    async def camera(name: str) -> dict[str, Any]:
        return await asyncio.to_thread(supervisor.camera, name)

    @router.put("/api/cameras/{name}", tags=["cameras"], summary="Other settings; the camera starts again")
    async def replace(name: str, body: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        known = await asyncio.to_thread(supervisor.camera, name)
        settings = _settings(name, body, supervisor, known["settings"])
        await asyncio.to_thread(supervisor.replace, name, settings)
        return await asyncio.to_thread(supervisor.camera, name)

    @router.delete("/api/cameras/{name}", tags=["cameras"], summary="Remove a camera; its recordings stay")
    async def remove(name: str) -> dict[str, Any]:
        await asyncio.to_thread(supervisor.remove, name)
        return {"ok": True}

    @router.post("/api/cameras/{name}/change", tags=["cameras"], summary="Change it while it runs")
    async def change(name: str, body: ChangesBody) -> dict[str, Any]:
        from stream.changes import Changes

        if body.model is not None:
            checks.check_model(body.model)
        await asyncio.to_thread(supervisor.change, name, Changes(**body.model_dump()))
        return await asyncio.to_thread(supervisor.camera, name)

    @router.post(
        "/api/test", tags=["cameras"], summary="Try a source: its first picture, or the reason why not"
    )
    async def test(body: SourceBody) -> dict[str, Any]:
        await asyncio.to_thread(_check_known, body.source, supervisor)
        result = await asyncio.to_thread(supervisor.test, body.source)
        jpeg = result.pop("jpeg", None)
        return result | {"picture": base64.b64encode(jpeg).decode() if jpeg else ""}

    @router.get("/api/cameras/{name}/history", tags=["cameras"], summary="Delay and load of the last hour")
    async def history(name: str) -> list[dict[str, Any]]:
        return await asyncio.to_thread(supervisor.history, name)

    @router.get("/api/cameras/{name}/snapshot.jpg", tags=["pictures"], summary="The newest picture")
    async def snapshot(request: Request, name: str) -> Response:
        with supervisor.watch(name, "restored") as viewer:
            picture = await live.next_picture(viewer, _FIRST_PICTURE_S, request.app.state.closing)
        if picture is None:
            return JSONResponse({"error": f"{name}: no picture has come"}, 503)
        return Response(picture.data, media_type="image/jpeg")

    @router.get("/api/cameras/{name}/stream.mjpeg", tags=["pictures"], summary="Live pictures for any player")
    async def stream(request: Request, name: str, kind: str = "restored") -> Response:
        _check_kind(kind)
        supervisor.camera(name)

        async def body():
            with supervisor.watch(name, kind) as viewer:
                async for part in live.mjpeg(viewer, request.app.state.closing):
                    yield part

        return StreamingResponse(body(), media_type=f"multipart/x-mixed-replace; boundary={live.BOUNDARY}")

    @router.websocket("/api/cameras/{name}/live")
    async def pictures(socket: WebSocket, name: str, kind: str = "restored") -> None:
        try:
            _check_kind(kind)
            watch = supervisor.watch(name, kind)
            with watch as viewer:
                await socket.accept()
                await live.pictures_to(socket, viewer, socket.app.state.closing)
        except NotFound:
            await socket.close(4404, "no such camera")
            return
        if socket.client_state.name == "CONNECTED" and socket.application_state.name == "CONNECTED":
            await socket.close(1001)


def _recordings(router: APIRouter, supervisor: Supervisor) -> None:
    @router.get("/api/cameras/{name}/segments", tags=["recordings"], summary="Recordings, oldest first")
    async def segments(name: str) -> list[dict[str, Any]]:
        return await asyncio.to_thread(supervisor.segments, name)

    @router.get(
        "/api/cameras/{name}/segments/{file}", tags=["recordings"], summary="One recording, in ranges too"
    )
    async def segment(name: str, file: str, download: bool = False) -> Response:
        path = await asyncio.to_thread(supervisor.segment_path, name, file)
        return _file(path, download)


def _events(router: APIRouter, supervisor: Supervisor, jobs: Jobs) -> None:
    @router.get("/api/events", tags=["events"], summary="What happened, oldest first")
    async def events(since: int = 0) -> list[dict[str, Any]]:
        return supervisor.events.since(since)

    @router.get("/api/events/stream", tags=["events"], summary="Cameras, events and jobs as they change")
    async def stream(request: Request) -> Response:
        last = request.headers.get("last-event-id", "")
        news = await asyncio.to_thread(live.News, supervisor, jobs, int(last) if last.isdigit() else None)
        return StreamingResponse(news.lines(request.app.state.closing), media_type="text/event-stream")


def _files(router: APIRouter, supervisor: Supervisor, jobs: Jobs) -> None:
    @router.get("/api/files", tags=["files"], summary="Files that can be restored")
    async def files() -> list[dict[str, Any]]:
        found = [p for p in jobs.folder.iterdir() if p.is_file() and not p.is_symlink() and p.name[0] != "."]
        newest = sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
        return [{"name": path.name, "bytes": path.stat().st_size} for path in newest]

    @router.post("/api/files", tags=["files"], status_code=201, summary="Upload a file (multipart, one file)")
    async def upload(request: Request) -> dict[str, Any]:
        path = await uploads.receive(request, jobs.folder)
        return {"name": path.name, "bytes": path.stat().st_size}

    @router.delete("/api/files/{name}", tags=["files"], summary="Delete a file")
    async def delete(name: str) -> dict[str, Any]:
        inside(jobs.folder, name).unlink()
        return {"ok": True}

    @router.get("/api/jobs", tags=["files"], summary="The queue, newest first")
    async def queue() -> list[dict[str, Any]]:
        return jobs.all()

    @router.post("/api/jobs", tags=["files"], status_code=201, summary="Restore a file")
    async def begin(body: JobBody) -> dict[str, Any]:
        overrides = []
        if body.model is not None:
            checks.check_model(body.model)
            overrides.append(f"restore.model={body.model}")
        if body.strength is not None:
            overrides.append(f"restore.strength={body.strength}")
        return jobs.add(body.file, load_config(body.preset, None, overrides), body.preset)

    @router.delete("/api/jobs/{job_id}", tags=["files"], summary="Cancel a job, or take it off the list")
    async def end(job_id: str) -> dict[str, Any]:
        jobs.remove(job_id)
        return {"ok": True}

    @router.get(
        "/api/jobs/{job_id}/{which}", tags=["files"], summary="A job's input or output, in ranges too"
    )
    async def result(job_id: str, which: str, download: Annotated[bool, Query()] = False) -> Response:
        job = jobs.find(job_id)
        path = {"input": job.source, "output": job.output}.get(which)
        if path is None or not path.is_file():
            raise NotFound("there is no such file")
        return _file(path, download)


def _settings(
    name: str, body: dict[str, Any], supervisor: Supervisor, known: dict[str, Any] | None = None
) -> CameraSettings:
    """A camera's settings out of a request; addresses that come as they are shown are known already."""
    settings = parse_camera(name, body)
    if known is not None:
        same = settings.source == known["source"]
        other = tuple(text for text in settings.to if text not in known["to"])
        changed = settings.model_copy(update={"to": other} | ({"source": "test:"} if same else {}))
    else:
        changed = settings
    checks.check_camera(name, changed, supervisor.server)
    return settings


def _check_known(source: str, supervisor: Supervisor) -> None:
    """A source as it is shown of a camera may be tried; any other is checked."""
    if source not in {camera["settings"]["source"] for camera in supervisor.cameras()}:
        checks.check_source(source, supervisor.server)


def _check_kind(kind: str) -> None:
    if kind not in live.KINDS:
        raise NotFound(f"{kind[:20]}: there is no such view; use {' or '.join(live.KINDS)}")


def _file(path: Path, download: bool) -> FileResponse:
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    if not kind.startswith(("video/", "image/", "audio/")):
        kind = "application/octet-stream"
    return FileResponse(
        path, media_type=kind, filename=path.name,
        content_disposition_type="attachment" if download or kind == "application/octet-stream" else "inline",
    )  # fmt: skip
