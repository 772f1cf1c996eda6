"""Routes about events: the list of past events, and a stream of changes."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from stream.server.dashboard.routing import JobsDependency, MustEndDependency, SupervisorDependency
from stream.server.dashboard.updates import Updates
from stream.server.webhook import Event

router = APIRouter(tags=["events"])
_MAX_ID_DIGITS = 15


@router.get("/api/events", summary="What happened, oldest first")
async def events(supervisor: SupervisorDependency, since: int = 0) -> list[Event]:
    """The last 1000 events, or those of them whose id is higher than since."""
    return supervisor.events.since(since)


@router.get("/api/events/stream", summary="Cameras, events and jobs as they change")
async def stream(
    request: Request, supervisor: SupervisorDependency, jobs: JobsDependency, must_end: MustEndDependency
) -> Response:
    """Server-Sent Events of the types camera, event and job. Last-Event-ID brings the events since then."""
    last = request.headers.get("last-event-id", "")
    last_id = int(last) if last.isdecimal() and len(last) <= _MAX_ID_DIGITS else None
    updates = await asyncio.to_thread(Updates, supervisor, jobs, last_id)
    return StreamingResponse(updates.lines(must_end), media_type="text/event-stream")
