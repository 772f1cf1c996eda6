"""Routes that deliver live pictures: one JPEG, MJPEG for any player, and a WebSocket for the pages."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Response, WebSocket
from fastapi.responses import JSONResponse

from stream.errors import NotFoundError
from stream.server.dashboard.live_pictures import MjpegResponse, PictureReader, send_pictures, watching
from stream.server.dashboard.routing import MustEndDependency, SupervisorDependency
from stream.server.supervisor.viewers import PREVIEW_KINDS

router = APIRouter()
_FIRST_PICTURE_S = 10.0
"""Longest wait for the picture of a snapshot."""


@router.get("/api/cameras/{name}/snapshot.jpg", tags=["pictures"], summary="The newest picture")
async def snapshot(name: str, supervisor: SupervisorDependency, must_end: MustEndDependency) -> Response:
    """The next restored picture, as a JPEG. 503: none came within 10 s."""
    async with watching(supervisor, name, "restored") as viewer:
        picture = await PictureReader(viewer, must_end).next(_FIRST_PICTURE_S)
    if picture is None:
        return JSONResponse({"error": f"{name}: no picture has come"}, 503)
    return Response(picture.data, media_type="image/jpeg")


@router.get("/api/cameras/{name}/stream.mjpeg", tags=["pictures"], summary="Live pictures for any player")
async def stream(
    name: str, supervisor: SupervisorDependency, must_end: MustEndDependency, kind: str = "restored"
) -> Response:
    """Pictures as multipart JPEG. The kind is restored, or pair: the original above the restored picture."""
    _check_kind(kind)
    await asyncio.to_thread(supervisor.camera, name)
    return MjpegResponse(watching(supervisor, name, kind), must_end)


@router.websocket("/api/cameras/{name}/live")
async def pictures(
    socket: WebSocket,
    name: str,
    supervisor: SupervisorDependency,
    must_end: MustEndDependency,
    kind: str = "restored",
) -> None:
    """Pictures as binary messages of one JPEG each, of the same kinds."""
    try:
        _check_kind(kind)
        async with watching(supervisor, name, kind) as viewer:
            await socket.accept()
            await send_pictures(socket, viewer, must_end)
    except NotFoundError:
        await socket.close(4404, "no such camera")


def _check_kind(kind: str) -> None:
    if kind not in PREVIEW_KINDS:
        raise NotFoundError(f"{kind[:20]}: there is no such view; use {' or '.join(PREVIEW_KINDS)}")
