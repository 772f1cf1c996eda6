"""Routes about files: the folder of files to restore, and the jobs that restore them."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from stream.config import Fraction, load_config
from stream.errors import ConfigError, NotFoundError
from stream.server.dashboard import uploads
from stream.server.dashboard.file_types import is_media
from stream.server.dashboard.job_status import JobStatus
from stream.server.dashboard.jobs import MediaFile, file_in
from stream.server.dashboard.request_checks import check_model
from stream.server.dashboard.routing import JobsDependency, body_schema, file_response

router = APIRouter(tags=["files"])
_FORM = {
    "type": "object",
    "required": ["file"],
    "properties": {"file": {"type": "string", "format": "binary"}},
}


class JobBody(BaseModel):
    """A file of the server's folder, and how it is restored."""

    model_config = ConfigDict(extra="forbid")
    file: str = Field(max_length=255)
    preset: str = "default"
    model: str | None = None
    strength: Fraction | None = None


class MoveBody(BaseModel):
    """Where a job that waits goes."""

    model_config = ConfigDict(extra="forbid")
    place: int = Field(ge=1, le=1_000_000, description="1: it is the next; too high: it is the last")


@router.get("/api/files", summary="Files that can be restored")
async def files(jobs: JobsDependency) -> list[MediaFile]:
    """List the files in the server's folder, newest first."""
    return await asyncio.to_thread(jobs.files)


@router.post(
    "/api/files",
    status_code=201,
    summary="Upload a video or picture",
    openapi_extra=body_schema(_FORM, "multipart/form-data"),
)
async def upload(request: Request, jobs: JobsDependency) -> MediaFile:
    """Store a file in the server's folder. A number is added to a name that is taken."""
    path = await uploads.receive(request, jobs.folder)
    return MediaFile(path.name, path.stat().st_size)


@router.delete("/api/files/{name}", summary="Delete a file")
async def delete(name: str, jobs: JobsDependency) -> dict[str, JsonValue]:
    """Delete a file from the server's folder. Its restored version stays."""
    file_in(jobs.folder, name).unlink()
    return {"ok": True}


@router.get("/api/jobs", summary="The queue, oldest first")
async def queue(jobs: JobsDependency) -> list[JobStatus]:
    """List the jobs that wait, that run and that have ended. `place` is the order of those that wait."""
    return await asyncio.to_thread(jobs.all)


@router.post("/api/jobs", status_code=201, summary="Restore a file")
async def begin(body: JobBody, jobs: JobsDependency) -> JobStatus:
    """Add a job to the queue. A model and a strength override those of the preset."""
    overrides = []
    if body.model is not None:
        await asyncio.to_thread(check_model, body.model)
        overrides.append(f"restore.model={body.model}")
    if body.strength is not None:
        overrides.append(f"restore.strength={body.strength}")
    if not is_media(file_in(jobs.folder, body.file)):
        raise ConfigError(f"{body.file}: is no video or picture that is known here")
    config = load_config(body.preset, None, overrides)
    return await asyncio.to_thread(jobs.add, body.file, config, body.preset)


@router.post("/api/jobs/{job_id}/retry", summary="Try a job again")
async def retry(job_id: str, jobs: JobsDependency) -> JobStatus:
    """Have a job that failed or was cancelled wait again. It continues after its last finished segment."""
    return await asyncio.to_thread(jobs.retry, job_id)


@router.post("/api/jobs/{job_id}/move", summary="Move a job in the queue")
async def move(job_id: str, body: MoveBody, jobs: JobsDependency) -> JobStatus:
    """Move a job that waits to a place among those that wait."""
    return await asyncio.to_thread(jobs.move, job_id, body.place)


@router.delete("/api/jobs/{job_id}", summary="Cancel a job, or delete its result")
async def end(job_id: str, jobs: JobsDependency) -> dict[str, JsonValue]:
    """Cancel a job that waits or runs; what it has finished stays for a retry.

    A job that has ended is removed from the list, with its result and all else that it has left.
    """
    await asyncio.to_thread(jobs.remove, job_id)
    return {"ok": True}


@router.get("/api/jobs/{job_id}/{which}", summary="A job's input or output, in ranges too")
async def result(
    job_id: str, which: str, jobs: JobsDependency, download: Annotated[bool, Query()] = False
) -> Response:
    """The input or output file of a job. With download=1 the browser saves it instead of showing it."""
    job = await asyncio.to_thread(jobs.find, job_id)
    if which not in ("input", "output"):
        raise NotFoundError("a job has an input and an output")
    folder, name = (jobs.folder, job.status.file) if which == "input" else (jobs.results, job.result)
    return file_response(file_in(folder, name), download)
