"""Live pictures for browsers: a viewer gets only the newest one, and a slow viewer is disconnected."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

if TYPE_CHECKING:
    from stream.live.packets import JpegPicture
    from stream.server.supervisor.camera_host import CameraHost
    from stream.server.supervisor.viewers import Viewer

BOUNDARY = "gpen-stream-picture"
"""Separates the parts of an MJPEG answer."""
_SEND_S = 10.0
"""A viewer that does not receive a picture within this time is disconnected."""
_POLL_S = 1.0
"""Longest pause before the end of the server or of the viewer is noticed."""


@asynccontextmanager
async def watching(supervisor: CameraHost, name: str, kind: str) -> AsyncIterator[Viewer]:
    """`CameraHost.watch`, entered and left in a thread: it may wait for a camera that is about to end."""
    watch = supervisor.watch(name, kind)
    viewer = await asyncio.to_thread(watch.__enter__)
    try:
        yield viewer
    finally:
        await asyncio.shield(asyncio.to_thread(watch.__exit__, None, None, None))


class PictureReader:
    """Reads a viewer's pictures without blocking the event loop and without a thread.

    The viewer is disconnected as soon as `must_end` returns True.
    """

    def __init__(self, viewer: Viewer, must_end: Callable[[], bool]) -> None:
        self._viewer, self._must_end = viewer, must_end
        loop, self._changed = asyncio.get_running_loop(), asyncio.Event()

        def on_change() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._changed.set)

        viewer.notify(on_change)

    @property
    def ended(self) -> bool:
        """Whether no more pictures are to be sent."""
        return self._viewer.closed or self._must_end()

    async def next(self, timeout_s: float) -> JpegPicture | None:
        """The newest picture, as soon as there is one; None after the time, or at the end."""
        deadline_s = time.monotonic() + timeout_s
        while not self.ended:
            self._changed.clear()
            if (picture := self._viewer.next(0)) is not None:
                return picture
            left_s = min(_POLL_S, deadline_s - time.monotonic())
            if left_s <= 0:
                return None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left_s)
        return None


async def send_pictures(socket: WebSocket, viewer: Viewer, must_end: Callable[[], bool]) -> None:
    """Send JPEGs as binary messages, until the camera, the browser or the server ends."""
    pictures = PictureReader(viewer, must_end)
    disconnect = asyncio.create_task(_disconnected(socket.receive))
    try:
        while not pictures.ended and not disconnect.done():
            picture = await pictures.next(_POLL_S)
            if picture is not None:
                await asyncio.wait_for(socket.send_bytes(picture.data), _SEND_S)
        if not disconnect.done():
            await socket.close(1001)
    except (TimeoutError, WebSocketDisconnect, RuntimeError):
        pass  # this viewer has left, or is too slow
    finally:
        disconnect.cancel()


class MjpegResponse(Response):
    """Pictures in one multipart answer. A viewer that does not receive them in time is disconnected."""

    media_type = f"multipart/x-mixed-replace; boundary={BOUNDARY}"

    def __init__(self, watch: AbstractAsyncContextManager[Viewer], must_end: Callable[[], bool]) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._watch, self._must_end = watch, must_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pictures, as ASGI calls it."""
        disconnect = asyncio.create_task(_disconnected(receive))
        try:
            async with self._watch as viewer:
                pictures = PictureReader(viewer, self._must_end)
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                while not pictures.ended and not disconnect.done():
                    if (picture := await pictures.next(_POLL_S)) is not None:
                        part = {"type": "http.response.body", "body": _part(picture), "more_body": True}
                        await asyncio.wait_for(send(part), _SEND_S)
            await asyncio.wait_for(send({"type": "http.response.body"}), _SEND_S)
        except (TimeoutError, OSError):
            pass  # this viewer is too slow, or has left
        finally:
            disconnect.cancel()


async def _disconnected(receive: Receive) -> None:
    """Return when the browser has disconnected. All its messages are ignored."""
    with contextlib.suppress(RuntimeError):
        while not (await receive())["type"].endswith(".disconnect"):
            pass


def _part(picture: JpegPicture) -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture.data)}\r\n\r\n"
    return head.encode() + picture.data + b"\r\n"
