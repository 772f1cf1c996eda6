"""Routes about the recordings of a camera."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Response

from stream.server.dashboard.routing import SupervisorDependency, file_response
from stream.server.supervisor.recordings import Recording

router = APIRouter(tags=["recordings"])


@router.get("/api/cameras/{name}/segments", summary="Recordings, oldest first")
async def segments(name: str, supervisor: SupervisorDependency) -> list[Recording]:
    """List the files that the camera has recorded, the one that is being written included."""
    return await asyncio.to_thread(supervisor.segments, name)


@router.get("/api/cameras/{name}/segments/{file}", summary="One recording, in ranges too")
async def segment(name: str, file: str, supervisor: SupervisorDependency, download: bool = False) -> Response:
    """A recorded file. With download=1 the browser saves it instead of showing it."""
    path = await asyncio.to_thread(supervisor.segment_path, name, file)
    return file_response(path, download)
