"""Live pictures and news for browsers: the newest only, so that a slow one is dropped alone."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocket, WebSocketDisconnect

if TYPE_CHECKING:
    from stream.packets import Jpeg
    from stream.serve.jobs import Jobs
    from stream.supervisor import Supervisor, Viewer

KINDS = ("restored", "pair")
BOUNDARY = "gpen-stream-picture"

_LOOK_S = 1 / 60
"""Between two looks for a newer picture."""
_SEND_S = 10.0
"""A browser that takes no picture for so long is dropped."""
_NEWS_S = 0.5
_KEEP_ALIVE_S = 15.0


async def next_picture(viewer: Viewer, timeout_s: float, closing: Callable[[], bool]) -> Jpeg | None:
    """The newest picture, as soon as there is one; None after the time, or at the end."""
    deadline = time.monotonic() + timeout_s
    while not viewer.closed and not closing() and time.monotonic() < deadline:
        if (picture := viewer.next(0)) is not None:
            return picture
        await asyncio.sleep(_LOOK_S)
    return None


async def pictures_to(socket: WebSocket, viewer: Viewer, closing: Callable[[], bool]) -> None:
    """JPEGs as binary messages, until the camera, the browser or the server is gone."""
    watch = asyncio.create_task(_gone(socket))
    try:
        while not viewer.closed and not closing() and not watch.done():
            picture = await next_picture(viewer, 1.0, closing)
            if picture is not None:
                await asyncio.wait_for(socket.send_bytes(picture.data), _SEND_S)
    except (TimeoutError, WebSocketDisconnect, RuntimeError):
        pass  # this viewer is gone, or too slow
    finally:
        watch.cancel()


async def _gone(socket: WebSocket) -> None:
    """Return when the browser has left; what it says is not listened to."""
    try:
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass
    except RuntimeError:
        pass


async def mjpeg(viewer: Viewer, closing: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The body of a multipart answer."""
    while not viewer.closed and not closing():
        picture = await next_picture(viewer, 10.0, closing)
        if picture is None:
            continue
        head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture.data)}\r\n\r\n"
        yield head.encode() + picture.data + b"\r\n"


class News:
    """What one browser has been told of cameras, events and jobs."""

    def __init__(self, supervisor: Supervisor, jobs: Jobs, last_event: int | None) -> None:
        self._supervisor, self._jobs = supervisor, jobs
        newest = supervisor.events.since(0)[-1:] if last_event is None else []
        self._event = newest[0]["id"] if newest else last_event or 0
        self._cameras = self._by("name", supervisor.cameras())
        self._told_jobs = self._by("id", jobs.all())

    async def lines(self, closing: Callable[[], bool]) -> AsyncIterator[str]:
        """Server-sent events, until the server ends."""
        yield "retry: 2000\n: connected\n\n"
        told_s = time.monotonic()
        while not closing():
            news = await asyncio.to_thread(self._news)
            for kind, data in news:
                number = f"id: {data['id']}\n" if kind == "event" else ""
                yield f"{number}event: {kind}\ndata: {json.dumps(data)}\n\n"
            if news:
                told_s = time.monotonic()
            elif time.monotonic() - told_s > _KEEP_ALIVE_S:
                told_s = time.monotonic()
                yield ": still here\n\n"
            await asyncio.sleep(_NEWS_S)

    def _news(self) -> list[tuple[str, dict[str, Any]]]:
        news: list[tuple[str, dict[str, Any]]] = []
        cameras = self._by("name", self._supervisor.cameras())
        news += self._differences("camera", "name", self._cameras, cameras)
        self._cameras = cameras
        jobs = self._by("id", self._jobs.all())
        news += self._differences("job", "id", self._told_jobs, jobs)
        self._told_jobs = jobs
        for event in self._supervisor.events.since(self._event):
            news.append(("event", event))
            self._event = event["id"]
        return news

    @staticmethod
    def _by(key: str, values: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {value[key]: value for value in values}

    @staticmethod
    def _differences(kind: str, key: str, old: dict, new: dict) -> list[tuple[str, dict[str, Any]]]:
        changed = [(kind, value) for name, value in new.items() if old.get(name) != value]
        return changed + [(kind, {key: name, "removed": True}) for name in old if name not in new]
