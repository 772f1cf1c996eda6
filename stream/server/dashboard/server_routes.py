"""Routes about the server itself: health, metrics, machine, models, presets and log-in."""

from __future__ import annotations

import asyncio
import shutil

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from stream import __version__
from stream.config import PRESETS
from stream.models import registry
from stream.pipeline.cpu_budget import available_cores
from stream.pipeline.meter import peak_rss_mb
from stream.server.dashboard import metrics
from stream.server.dashboard.routing import GuardDependency, JobsDependency, SupervisorDependency

router = APIRouter(tags=["server"])
_INSTALLED = ("bundled", "here", "imported")
"""States of models that can be used at once."""


class TokenBody(BaseModel):
    """The body of a log-in request."""

    model_config = ConfigDict(extra="forbid")
    token: str = Field(max_length=200)


@router.get("/healthz", summary="Whether the server answers")
async def healthz() -> dict[str, str]:
    """Answer 200 as long as the server runs."""
    return {"status": "ok"}


@router.get("/readyz", summary="Whether cameras can be restored")
async def readyz(supervisor: SupervisorDependency) -> JSONResponse:
    """Answer 200 once the restorer runs and every camera has started, and 503 before."""
    ready = await asyncio.to_thread(supervisor.is_ready)
    return JSONResponse({"status": "ready" if ready else "starting"}, 200 if ready else 503)


@router.get("/metrics", summary="Prometheus metrics")
async def prometheus(
    supervisor: SupervisorDependency, jobs: JobsDependency, guard: GuardDependency
) -> Response:
    """Metrics of the cameras, the restorer, the jobs and the server's process, in Prometheus' text format."""
    text = await asyncio.to_thread(metrics.exposition, supervisor, jobs, guard.failures)
    return Response(text, media_type=metrics.CONTENT_TYPE)


@router.get("/api/server", summary="Version, cores, engine, memory, disk")
async def server(supervisor: SupervisorDependency, guard: GuardDependency) -> dict[str, JsonValue]:
    """The facts about the machine and the server that the pages show in their frame."""
    folder = supervisor.server.data_folder
    disk = shutil.disk_usage(folder if folder.exists() else "/")
    restorer = supervisor.restorer()
    nodes = await asyncio.to_thread(supervisor.nodes)
    reports = [camera.report for camera in await asyncio.to_thread(supervisor.cameras)]
    return {
        "version": __version__,
        "cores": sum(node.cores for node in nodes) if nodes else available_cores(),
        "engine": next((report.engine for report in reports if report and report.engine), ""),
        "locked": guard.needs_token,
        "memory_mb": peak_rss_mb(),
        "disk": {"free_bytes": disk.free, "total_bytes": disk.total},
        "restorer": restorer.to_json() if restorer is not None else {},
    }


@router.get("/api/nodes", summary="The machines of a cluster that run cameras")
async def nodes(supervisor: SupervisorDependency) -> list[dict[str, JsonValue]]:
    """List the nodes by name. The list is empty if all cameras run on the server's own machine."""
    return [node.to_json() for node in await asyncio.to_thread(supervisor.nodes)]


@router.get("/api/models", summary="Models by name, and whether they are installed")
async def models() -> list[dict[str, JsonValue]]:
    """List the models that restore or enlarge, those included that are not installed."""
    known = await asyncio.to_thread(registry.list_models)
    return [
        {"name": one.name, "task": one.task, "size": one.size, "installed": one.state in _INSTALLED}
        for one in known
        if one.task not in ("parse", "detect")
    ]


@router.get("/api/presets", summary="Presets by name")
async def presets() -> list[str]:
    """List the presets."""
    return list(PRESETS)


@router.post("/api/login", summary="Exchange the token for a session cookie")
async def login(request: Request, body: TokenBody, guard: GuardDependency) -> Response:
    """Log in. 401: the token is wrong. 429: too many tokens were wrong; Retry-After says how long to wait."""
    return guard.log_in(body.token, request)


@router.post("/api/logout", summary="End the session")
async def logout(request: Request, guard: GuardDependency) -> Response:
    """Log out: the session cookie is not valid any more."""
    return guard.log_out(request)
