"""Server-Sent Events for browsers: cameras and jobs that have changed, and events."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING

from pydantic import JsonValue

if TYPE_CHECKING:
    from stream.server.dashboard.job_status import JobStatus
    from stream.server.dashboard.jobs import JobQueue
    from stream.server.supervisor.camera_host import CameraHost
    from stream.server.supervisor.camera_status import CameraStatus

    _Status = CameraStatus | JobStatus

_POLL_S = 0.5
_KEEP_ALIVE_S = 15.0
"""A comment is sent after this time without an update, so that proxies keep the connection."""


class Updates:
    """Changes since the last message to one browser.

    `last_event` is the number of the last event that the browser has, or None if it wants only new ones.
    """

    def __init__(self, supervisor: CameraHost, jobs: JobQueue, last_event: int | None) -> None:
        self._supervisor, self._jobs = supervisor, jobs
        newest = supervisor.events.since(0)[-1:] if last_event is None else []
        self._last_event = newest[0].id if newest else last_event or 0
        self._sent_cameras = self._all_cameras()
        self._sent_jobs = self._all_jobs()

    async def lines(self, must_end: Callable[[], bool]) -> AsyncIterator[str]:
        """The stream of Server-Sent Events, until `must_end` returns True."""
        yield "retry: 2000\n: connected\n\n"
        sent_at_s = time.monotonic()
        while not must_end():
            messages = await asyncio.to_thread(self._next)
            for message in messages:
                yield message
            if messages:
                sent_at_s = time.monotonic()
            elif time.monotonic() - sent_at_s > _KEEP_ALIVE_S:
                sent_at_s = time.monotonic()
                yield ": still here\n\n"
            await asyncio.sleep(_POLL_S)

    def _next(self) -> list[str]:
        """Messages about everything that has changed since the last call."""
        cameras, jobs = self._all_cameras(), self._all_jobs()
        messages = _differences("camera", "name", self._sent_cameras, cameras)
        messages += _differences("job", "id", self._sent_jobs, jobs)
        self._sent_cameras, self._sent_jobs = cameras, jobs
        for event in self._supervisor.events.since(self._last_event):
            messages.append(f"id: {event.id}\n{_message('event', event.to_json())}")
            self._last_event = event.id
        return messages

    def _all_cameras(self) -> dict[str, CameraStatus]:
        return {camera.name: camera for camera in self._supervisor.cameras()}

    def _all_jobs(self) -> dict[str, JobStatus]:
        return {job.id: job for job in self._jobs.all()}


def _differences(kind: str, key: str, old: Mapping[str, _Status], new: Mapping[str, _Status]) -> list[str]:
    """Messages about changed, added and removed items. `key` is the JSON key of their name."""
    changed = [_message(kind, value.to_json()) for name, value in new.items() if old.get(name) != value]
    return changed + [_message(kind, {key: name, "removed": True}) for name in old if name not in new]


def _message(kind: str, data: Mapping[str, JsonValue]) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"
