"""Live pictures and news for browsers: the newest only, so that a slow one is dropped alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

from pydantic import JsonValue
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

if TYPE_CHECKING:
    from stream.live.packets import Jpeg
    from stream.server.dashboard.jobs import Jobs, JobStatus
    from stream.server.supervisor import CameraStatus, Supervisor, Viewer

    _Told = CameraStatus | JobStatus

KINDS = ("restored", "pair")
BOUNDARY = "gpen-stream-picture"

_SEND_S = 10.0
"""A browser that takes no picture for so long is dropped."""
_LOOK_S = 1.0
"""Longest wait before it is looked whether the server ends."""
_NEWS_S = 0.5
_KEEP_ALIVE_S = 15.0


@asynccontextmanager
async def watching(supervisor: Supervisor, name: str, kind: str) -> AsyncIterator[Viewer]:
    """`Supervisor.watch` in a thread: a camera that is about to end lets whoever tells it something wait."""
    watch = supervisor.watch(name, kind)
    viewer = await asyncio.to_thread(watch.__enter__)
    try:
        yield viewer
    finally:
        await asyncio.shield(asyncio.to_thread(watch.__exit__, None, None, None))


class Pictures:
    """What one viewer sees; waits without a thread."""

    def __init__(self, viewer: Viewer, closing: Callable[[], bool]) -> None:
        self._viewer, self._closing = viewer, closing
        loop, self._came = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._came.set)

        viewer.on_change = tell

    @property
    def ended(self) -> bool:
        """Whether nothing more is to be shown."""
        return self._viewer.closed or self._closing()

    async def next(self, timeout_s: float) -> Jpeg | None:
        """The newest picture, as soon as there is one; None after the time, or at the end."""
        deadline_s = time.monotonic() + timeout_s
        while not self.ended:
            self._came.clear()
            if (picture := self._viewer.next(0)) is not None:
                return picture
            left_s = min(_LOOK_S, deadline_s - time.monotonic())
            if left_s <= 0:
                return None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._came.wait(), left_s)
        return None


async def pictures_to(socket: WebSocket, viewer: Viewer, closing: Callable[[], bool]) -> None:
    """JPEGs as binary messages, until the camera, the browser or the server is gone."""
    pictures = Pictures(viewer, closing)
    watch = asyncio.create_task(_gone(socket))
    try:
        while not pictures.ended and not watch.done():
            picture = await pictures.next(_LOOK_S)
            if picture is not None:
                await asyncio.wait_for(socket.send_bytes(picture.data), _SEND_S)
        if not watch.done():
            await socket.close(1001)
    except (TimeoutError, WebSocketDisconnect, RuntimeError):
        pass  # this viewer is gone, or too slow
    finally:
        watch.cancel()


async def _gone(socket: WebSocket) -> None:
    """Return when the browser has left; what it says is not listened to."""
    with contextlib.suppress(RuntimeError):
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass


class MjpegResponse(Response):
    """Pictures in one multipart answer; who does not take them in time is dropped."""

    media_type = f"multipart/x-mixed-replace; boundary={BOUNDARY}"

    def __init__(self, watch: AbstractAsyncContextManager[Viewer], closing: Callable[[], bool]) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._watch, self._closing = watch, closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        gone = asyncio.create_task(_left(receive))
        try:
            async with self._watch as viewer:
                pictures = Pictures(viewer, self._closing)
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                while not pictures.ended and not gone.done():
                    if (picture := await pictures.next(_LOOK_S)) is not None:
                        part = {"type": "http.response.body", "body": _part(picture), "more_body": True}
                        await asyncio.wait_for(send(part), _SEND_S)
            await asyncio.wait_for(send({"type": "http.response.body"}), _SEND_S)
        except (TimeoutError, OSError):
            pass  # this viewer is too slow, or gone
        finally:
            gone.cancel()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _part(picture: Jpeg) -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture.data)}\r\n\r\n"
    return head.encode() + picture.data + b"\r\n"


class News:
    """What one browser has been told of cameras, events and jobs."""

    def __init__(self, supervisor: Supervisor, jobs: Jobs, last_event: int | None) -> None:
        self._supervisor, self._jobs = supervisor, jobs
        newest = supervisor.events.since(0)[-1:] if last_event is None else []
        self._event = newest[0].id if newest else last_event or 0
        self._cameras = self._all_cameras()
        self._told_jobs = self._all_jobs()

    async def lines(self, closing: Callable[[], bool]) -> AsyncIterator[str]:
        """Server-sent events, until the server ends."""
        yield "retry: 2000\n: connected\n\n"
        told_s = time.monotonic()
        while not closing():
            news = await asyncio.to_thread(self._news)
            for message in news:
                yield message
            if news:
                told_s = time.monotonic()
            elif time.monotonic() - told_s > _KEEP_ALIVE_S:
                told_s = time.monotonic()
                yield ": still here\n\n"
            await asyncio.sleep(_NEWS_S)

    def _news(self) -> list[str]:
        cameras, jobs = self._all_cameras(), self._all_jobs()
        news = _differences("camera", "name", self._cameras, cameras)
        news += _differences("job", "id", self._told_jobs, jobs)
        self._cameras, self._told_jobs = cameras, jobs
        for event in self._supervisor.events.since(self._event):
            news.append(f"id: {event.id}\n{_message('event', event.to_json())}")
            self._event = event.id
        return news

    def _all_cameras(self) -> dict[str, CameraStatus]:
        return {camera.name: camera for camera in self._supervisor.cameras()}

    def _all_jobs(self) -> dict[str, JobStatus]:
        return {job.id: job for job in self._jobs.all()}


def _differences(kind: str, key: str, old: Mapping[str, _Told], new: Mapping[str, _Told]) -> list[str]:
    """Messages about what has changed, has come or has gone."""
    changed = [_message(kind, value.to_json()) for name, value in new.items() if old.get(name) != value]
    return changed + [_message(kind, {key: name, "removed": True}) for name in old if name not in new]


def _message(kind: str, data: Mapping[str, JsonValue]) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"
