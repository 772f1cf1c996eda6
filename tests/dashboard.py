"""A server for the tests of the pages: the pages as they are, cameras whose state the test decides."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import math
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles

ROOT = Path(__file__).parent.parent
STATIC = ROOT / "stream" / "serve" / "static"
SECRET = "pa55-w0rd"
CSP = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'self'"
)


def jpeg(*colours: tuple[int, int, int]) -> bytes:
    """Halves of one colour (RGB) above each other, 320x180 each."""
    halves = [np.full((180, 320, 3), colour[::-1], np.uint8) for colour in colours]
    return cv2.imencode(".jpg", np.vstack(halves))[1].tobytes()


RED, GREEN = (200, 30, 30), (30, 200, 30)
PICTURES = {"pair": jpeg(RED, GREEN), "restored": jpeg(GREEN)}


def report(**changes: Any) -> dict[str, Any]:
    """Of a healthy camera."""
    healthy = {
        "state": "live",
        "words": "live",
        "size": [1280, 720],
        "codec": "h264",
        "fps_in": 25.0,
        "fps_out": 24.9,
        "delay": {"median_ms": 112.4, "p95_ms": 168.2},
        "faces": 2,
        "faces_restored": 14210,
        "level": 0,
        "level_words": "as set",
        "idle": False,
        "passing": False,
        "drops": {"overrun": 12, "paced": 0},
        "connections": 1,
        "load": 0.46,
        "cpu_cores": 0.83,
        "memory_mb": 412,
        "model": "gpen-lite-256",
        "preset": "fast",
        "strength": 0.8,
        "interval": 2,
        "engine": "openvino",
        "uptime_s": 183220,
        "sinks": [{"name": "entrance/", "kind": "segments", "state": "live", "words": "live", "dropped": 0}],
    }
    return healthy | changes


class Dashboard:
    """What the pages are served, and what they asked for."""

    def __init__(self, folder: Path) -> None:
        self.url = ""
        self.job = "a1"
        self.changes: list[tuple[str, dict[str, Any]]] = []
        self.cameras: dict[str, dict[str, Any]] = {}
        self.reports: dict[str, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        self.jobs: dict[str, dict[str, Any]] = {}
        self.files = folder
        self.token: str | None = None
        self._told: list[tuple[str, dict[str, Any]]] = []
        self._lock = threading.Condition()
        self.add("entrance", exclude=[["31/50", "1/10", "3/10", "2/5"]])
        self.add("lobby")
        self.add("car-park")
        self.reports["car-park"] |= report(state="stalled", words="stalled (no frame for 12 s)")
        shutil.copy(ROOT / "samples" / "portrait.mp4", folder / "portrait.mp4")
        self.jobs["a1"] = {
            "id": "a1", "file": "portrait.mp4", "state": "done", "progress": 1.0, "preset": "default",
            "model": "gpen-lite-256", "strength": 1.0, "seconds": 73.0,
        }  # fmt: skip
        for kind in ("camera_up", "face_seen", "camera_down"):
            self.event("entrance", kind, "as it happened")

    def add(self, name: str, **settings: Any) -> None:
        """A healthy camera."""
        self.cameras[name] = {
            "source": f"rtsp://user:{SECRET}@127.0.0.1:554/{name}", "to": [], "preset": "fast", "set": {},
            "priority": 5, "schedule": [], "enabled": True, "include": [], "exclude": [],
        } | settings  # fmt: skip
        self.reports[name] = report()
        self.tell("camera", self.shown(name))

    def shown(self, name: str) -> dict[str, Any]:
        """As an answer has it: without the password."""
        settings = self.cameras[name]
        settings = settings | {"source": settings["source"].replace(f"user:{SECRET}@", "***@")}
        state = self.reports[name]
        return {
            "name": name,
            "settings": settings,
            "process": "running",
            "words": state["words"],
            "report": state,
        }

    def replace(self, name: str, settings: dict[str, Any]) -> None:
        """Other settings; an address that comes as it is shown stays what it is."""
        if settings["source"] == self.shown(name)["settings"]["source"]:
            settings |= {"source": self.cameras[name]["source"]}
        for box in settings["include"] + settings["exclude"]:
            assert all(isinstance(part, float | int) for part in box), box
        self.cameras[name] = settings
        self.tell("camera", self.shown(name))

    def settings(self, name: str) -> dict[str, Any]:
        """What the server would keep, secrets too."""
        return self.cameras[name]

    def report(self, name: str, **changes: Any) -> None:
        """A camera's next report."""
        self.reports[name] |= changes
        self.tell("camera", self.shown(name))

    def event(self, camera: str, kind: str, text: str) -> None:
        """Something happens."""
        event = {
            "id": len(self.events) + 1,
            "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "camera": camera,
            "kind": kind,
            "text": text,
        }
        self.events.append(event)
        self.tell("event", event)

    def tell(self, kind: str, data: dict[str, Any]) -> None:
        """To every page."""
        with self._lock:
            self._told.append((kind, data))

    def told_after(self, count: int) -> list[tuple[str, dict[str, Any]]]:
        """What was told since."""
        with self._lock:
            return self._told[count:]

    def changed(self, name: str, changes: dict[str, Any]) -> None:
        """A page asked for it."""
        with self._lock:
            self.changes.append((name, changes))
            self._lock.notify_all()
        regions = {key: changes[key] for key in ("include", "exclude") if key in changes}
        self.cameras[name] |= regions
        self.report(name, **changes)

    def wait_for_change(self, camera: str, **wanted: Any) -> dict[str, Any]:
        """The change that a page asked for."""

        def found() -> dict[str, Any] | None:
            for name, changes in reversed(self.changes):
                if name == camera and wanted.items() <= changes.items():
                    return changes
            return None

        with self._lock:
            assert self._lock.wait_for(lambda: found() is not None, timeout=20), self.changes
            return found()


def application(state: Dashboard) -> FastAPI:
    """The interface that the pages speak to."""
    app = FastAPI(docs_url=None, title="gpen-stream", version="0.1.0")

    def refuse(text: str, status: int = 422) -> JSONResponse:
        return JSONResponse({"error": text}, status)

    @app.middleware("http")
    async def guard(request: Request, go_on: Any) -> Response:
        open_paths = request.url.path.startswith(("/static", "/login", "/api/login"))
        if state.token and not open_paths and request.cookies.get("session") != state.token:
            response: Response = refuse("log in", 401)
        else:
            response = await go_on(request)
        response.headers["Content-Security-Policy"] = CSP
        return response

    @app.get("/")
    async def index() -> Response:
        return FileResponse(STATIC / "index.html")

    @app.get("/login")
    async def login_page() -> Response:
        return FileResponse(STATIC / "login.html")

    @app.post("/api/login")
    async def login(request: Request) -> Response:
        if (await request.json())["token"] != state.token:
            return refuse("The token is wrong", 401)
        response = JSONResponse({})
        response.set_cookie("session", state.token, httponly=True, samesite="strict")
        return response

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/api/server")
    async def server() -> dict[str, Any]:
        return {"version": "0.1.0", "cores": 2, "engine": "openvino", "disk": {"free_bytes": 48e9}}

    @app.get("/api/models")
    async def models() -> list[dict[str, Any]]:
        return [{"name": "gpen-lite-256", "installed": True}, {"name": "gpen-bfr-512", "installed": False}]

    @app.get("/api/presets")
    async def presets() -> list[str]:
        return ["default", "fast", "quality", "surveillance"]

    @app.get("/api/cameras", tags=["cameras"])
    async def cameras() -> list[dict[str, Any]]:
        return [state.shown(name) for name in state.cameras]

    @app.post("/api/cameras", tags=["cameras"])
    async def add(request: Request) -> Any:
        body = await request.json()
        if body["name"] in state.cameras:
            return refuse(f"cameras.{body['name']}: there is such a camera already", 409)
        name = body.pop("name")
        state.add(name, **body)
        return state.shown(name)

    @app.get("/api/cameras/{name}", tags=["cameras"])
    async def camera(name: str) -> dict[str, Any]:
        return state.shown(name)

    @app.put("/api/cameras/{name}", tags=["cameras"])
    async def replace(name: str, request: Request) -> dict[str, Any]:
        state.replace(name, await request.json())
        return state.shown(name)

    @app.delete("/api/cameras/{name}", tags=["cameras"])
    async def remove(name: str) -> dict[str, Any]:
        del state.cameras[name]
        return {}

    @app.post("/api/cameras/{name}/change", tags=["cameras"])
    async def change(name: str, request: Request) -> dict[str, Any]:
        state.changed(name, await request.json())
        return {}

    @app.post("/api/test", tags=["cameras"])
    async def test(request: Request) -> dict[str, Any]:
        if (await request.json())["source"] == "test:":
            picture = base64.b64encode(PICTURES["restored"]).decode()
            return {"ok": True, "reason": "", "facts": {"size": [320, 180], "rate": 25}, "picture": picture}
        return {
            "ok": False,
            "reason": "rtsp://***@127.0.0.1:9: connection refused",
            "facts": {},
            "picture": "",
        }

    @app.get("/api/cameras/{name}/history", tags=["cameras"])
    async def history(name: str) -> list[dict[str, Any]]:
        now = time.time()
        return [
            {
                "at": now - 3600 + 10 * n,
                "delay_ms": 120 + 30 * math.sin(n / 20),
                "load": 0.45 + 0.1 * math.sin(n / 33),
                "fps": 24.9,
            }
            for n in range(361)
        ]

    @app.get("/api/cameras/{name}/segments", tags=["cameras"])
    async def segments(name: str) -> list[dict[str, Any]]:
        began = "2026-11-24T19-{:02}-44Z.mp4"
        return [
            {
                "name": began.format(n),
                "began_at": 1795548700 + 60 * n,
                "seconds": 60,
                "bytes": 9e6,
                "open": n == 4,
            }
            for n in range(5)
        ]

    @app.get("/api/cameras/{name}/segments/{file}", tags=["cameras"])
    async def segment(name: str, file: str) -> Response:
        return FileResponse(state.files / "portrait.mp4", media_type="video/mp4")

    @app.websocket("/api/cameras/{name}/live")
    async def live(socket: WebSocket, name: str, kind: str = "restored") -> None:
        await socket.accept()
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            while True:
                await socket.send_bytes(PICTURES[kind])
                await asyncio.sleep(0.2)

    @app.get("/api/events", tags=["events"])
    async def events() -> list[dict[str, Any]]:
        return state.events

    @app.get("/api/events/stream", tags=["events"])
    async def stream() -> Response:
        async def lines() -> Any:
            seen = len(state.told_after(0))
            yield ": connected\n\n"
            while True:
                for kind, data in state.told_after(seen):
                    seen += 1
                    yield f"event: {kind}\ndata: {json.dumps(data)}\n\n"
                await asyncio.sleep(0.05)

        return StreamingResponse(lines(), media_type="text/event-stream")

    @app.get("/api/files", tags=["files"])
    async def files() -> list[dict[str, Any]]:
        return [{"name": path.name, "bytes": path.stat().st_size} for path in sorted(state.files.iterdir())]

    @app.post("/api/files", tags=["files"])
    async def upload(request: Request) -> dict[str, Any]:
        sent = (await request.form())["file"]
        (state.files / sent.filename).write_bytes(await sent.read())
        return {"name": sent.filename}

    @app.get("/api/jobs", tags=["files"])
    async def jobs() -> list[dict[str, Any]]:
        return list(state.jobs.values())

    @app.post("/api/jobs", tags=["files"])
    async def begin(request: Request) -> dict[str, Any]:
        job = {"id": f"b{len(state.jobs)}", "state": "running", "progress": 0.25, "left_s": 65}
        job |= await request.json()
        state.jobs[job["id"]] = job
        state.tell("job", job)
        return job

    @app.delete("/api/jobs/{id}", tags=["files"])
    async def end(id: str) -> dict[str, Any]:
        if state.jobs[id]["state"] == "running":
            state.jobs[id]["state"] = "cancelled"
        else:
            del state.jobs[id]
        return {}

    @app.get("/api/jobs/{id}/{which}", tags=["files"])
    async def video(id: str, which: str) -> Response:
        return FileResponse(state.files / "portrait.mp4", media_type="video/mp4")

    app.mount("/static", StaticFiles(directory=STATIC))
    return app


@contextlib.contextmanager
def dashboard(folder: Path, port: int = 0) -> Iterator[Dashboard]:
    """A server on a free port of this machine."""
    state = Dashboard(folder)
    config = uvicorn.Config(application(state), port=port, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="dashboard")
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        state.url = f"http://127.0.0.1:{port}"
        yield state
    finally:
        server.should_exit = True
        thread.join()
