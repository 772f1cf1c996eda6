"""Routes about cameras: their settings, their state, their history, and the test of a source."""

from __future__ import annotations

import asyncio
import base64
from typing import Annotated

from fastapi import APIRouter, Body, Request
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic_core import to_jsonable_python
from starlette.exceptions import HTTPException

from stream.errors import ConfigError, StreamError
from stream.live.session.live_settings import LiveSettings
from stream.server.camera_config import CameraSettings
from stream.server.dashboard.request_checks import check_camera_body, check_model, check_source
from stream.server.dashboard.routing import SupervisorDependency, body_schema
from stream.server.supervisor.camera_host import CameraHost
from stream.server.supervisor.camera_status import HistoryPoint

router = APIRouter(tags=["cameras"])
SOURCE_TESTS = 4
"""Number of tests of sources at a time, including those that wait for the supervisor."""
_SETTINGS = CameraSettings.model_json_schema()
_NAME = {"type": "string", "description": "letters, digits, - and _; up to 40"}


class SourceBody(BaseModel):
    """An address to test."""

    model_config = ConfigDict(extra="forbid")
    source: str = Field(min_length=1, max_length=2000)


@router.get("/api/cameras", summary="All cameras: settings, state and report")
async def cameras(supervisor: SupervisorDependency) -> list[dict[str, JsonValue]]:
    """List the cameras. Addresses are shown with *** in place of credentials."""
    return [camera.to_json() for camera in await asyncio.to_thread(supervisor.cameras)]


@router.post(
    "/api/cameras",
    status_code=201,
    summary="Add a camera",
    openapi_extra=body_schema(_SETTINGS | {"properties": {"name": _NAME} | _SETTINGS["properties"]}),
)
async def add(
    body: Annotated[dict[str, JsonValue], Body()], supervisor: SupervisorDependency
) -> dict[str, JsonValue]:
    """Add a camera, which starts at once. 409: there is a camera of that name already."""
    name = body.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError("name: is missing")
    if any(camera.name == name for camera in await asyncio.to_thread(supervisor.cameras)):
        raise HTTPException(409, f"cameras.{name}: there is such a camera already")
    settings = check_camera_body(name, body, supervisor.server)
    await asyncio.to_thread(supervisor.add, name, settings)
    return await _status(name, supervisor)


@router.get("/api/cameras/{name}", summary="One camera")
async def camera(name: str, supervisor: SupervisorDependency) -> dict[str, JsonValue]:
    """Settings, state and report of one camera."""
    return await _status(name, supervisor)


@router.put(
    "/api/cameras/{name}",
    summary="Other settings; the camera starts again",
    openapi_extra=body_schema(_SETTINGS),
)
async def replace(
    name: str, body: Annotated[dict[str, JsonValue], Body()], supervisor: SupervisorDependency
) -> dict[str, JsonValue]:
    """Replace all settings. An address that is sent as it was shown, with ***, keeps its credentials."""
    current = await asyncio.to_thread(supervisor.camera, name)
    settings = check_camera_body(name, body, supervisor.server, current.settings)
    await asyncio.to_thread(supervisor.replace, name, settings)
    return await _status(name, supervisor)


@router.delete("/api/cameras/{name}", summary="Remove a camera; its recordings stay")
async def remove(name: str, supervisor: SupervisorDependency) -> dict[str, JsonValue]:
    """Stop a camera and delete its settings. The answer comes when its outputs are complete."""
    await asyncio.to_thread(supervisor.remove, name)
    return {"ok": True}


@router.post("/api/cameras/{name}/change", summary="Change it while it runs")
async def change(name: str, body: LiveSettings, supervisor: SupervisorDependency) -> dict[str, JsonValue]:
    """Change settings without a restart. Settings that are left out stay as they are."""
    if body.model is not None:
        await asyncio.to_thread(check_model, body.model)
    await asyncio.to_thread(supervisor.change, name, body)
    return await _status(name, supervisor)


@router.post("/api/test", summary="Try a source: its first picture, or the reason why not")
async def test(body: SourceBody, request: Request, supervisor: SupervisorDependency) -> dict[str, JsonValue]:
    """Open a source, for 20 s at most. The picture is a JPEG in base64; it is empty if none came."""
    tests: asyncio.Semaphore = request.app.state.source_tests
    if tests.locked():
        raise StreamError("other sources are being tested; try again in a moment")
    async with tests:
        source = await asyncio.to_thread(_check_unknown_source, body.source, supervisor)
        result = await asyncio.to_thread(supervisor.test_source, source)
    return {
        "ok": result.ok,
        "reason": result.reason,
        "facts": to_jsonable_python(result.facts or {}),
        "picture": base64.b64encode(result.jpeg).decode() if result.jpeg else "",
    }


@router.get("/api/cameras/{name}/history", summary="Delay and load of the last hour")
async def history(name: str, supervisor: SupervisorDependency) -> list[HistoryPoint]:
    """One point every 10 s, oldest first. Figures are null for times when the camera did not run."""
    return await asyncio.to_thread(supervisor.history, name)


async def _status(name: str, supervisor: CameraHost) -> dict[str, JsonValue]:
    return (await asyncio.to_thread(supervisor.camera, name)).to_json()


def _check_unknown_source(source: str, supervisor: CameraHost) -> str:
    """The address to test, after its check. The shown address of an existing camera needs no check."""
    if source in {camera.settings.source for camera in supervisor.cameras()}:
        return source
    return check_source(source, supervisor.server)
