"""`gpen-stream serve`: the cameras of a file, and the dashboard, until they are told to end."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.errors import ConfigError, StreamError

if TYPE_CHECKING:  # loading it takes half a second, which `--help` does without
    from stream.server.camera_config import CamerasFile, ServerSettings

_GRACE_S = 1
"""For requests that are under way when the server ends."""
_STOP_S = 7.5
"""For cameras to flush."""
_LAST_EVENTS_S = 0.5
"""For the webhook to take the last events; together under ten seconds."""
_CONNECTIONS = 400
"""At a time; more are answered 503."""


def serve(
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Cameras, as in config/cameras.yaml; kept up to date.")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; any but 127.0.0.1 needs a token.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="TCP port; 0: a free one.")] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Recordings, files and the token.")
    ] = None,
) -> None:
    """Watch over many cameras, with a dashboard in the browser.

    Without --config it is cameras.yaml in the data folder, which need not exist yet.
    """
    from stream.server.camera_config import CamerasFile, ServerSettings, load_cameras

    given = {"host": host, "port": port, "data": str(data) if data is not None else None}
    update = {key: value for key, value in given.items() if value is not None}
    if config is None:
        config = ServerSettings().model_copy(update=update).data_folder / "cameras.yaml"
        file = load_cameras(config) if config.exists() else CamerasFile()
    else:
        file = load_cameras(config)
    run(file, config, file.server.model_copy(update=update))


def run(file: CamerasFile, path: Path, server: ServerSettings) -> None:
    """Serve until SIGTERM or Ctrl-C; everything is flushed within ten seconds.

    `server` is the file's, with what was given on the command line, which is not kept in the file.
    """
    import setproctitle
    import uvicorn
    from filelock import FileLock, Timeout

    from stream.server.dashboard.app import create_app
    from stream.server.dashboard.jobs import JobQueue
    from stream.server.dashboard.token import load_token
    from stream.server.events import Events, log_to_stderr
    from stream.server.supervisor.supervisor import Supervisor
    from stream.server.webhook import Webhook

    setproctitle.setproctitle("gpen-stream serve")
    for key, folder in (("data", server.data_folder), ("files", server.files_folder)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"server.{key}: {folder} cannot be made ({error.strerror})") from None
    alone = FileLock(server.data_folder / ".lock")
    try:
        alone.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"server.data: {server.data_folder}: another gpen-stream serve works in it"
        ) from None
    token = load_token(server.token_path, server.host, wanted=server.token_file is not None)
    hook = server.webhook
    events = Events(Webhook(**hook.model_dump()) if hook is not None else None)
    supervisor = Supervisor(file, path, events, server=server)
    jobs = JobQueue(server.files_folder)
    ended = threading.Event()

    def end() -> None:
        if not ended.is_set():
            ended.set()
            jobs.stop()
            supervisor.stop(_STOP_S)
            events.stop(_LAST_EVENTS_S)

    class Web(uvicorn.Server):
        """Says where it listens, once it does; ends by a signal as by a wish, with exit code 0."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            old = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGINT, signal.SIGTERM)}
            try:
                yield
            finally:
                for one, handler in old.items():
                    signal.signal(one, handler)

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            address, number = self.servers[0].sockets[0].getsockname()[:2]
            where = f"[{address}]" if ":" in address else address
            locked = f"; the token is in {server.token_path}" if token else ""
            print(f"dashboard: http://{where}:{number}/{locked}", flush=True)

    web: Web
    app = create_app(supervisor, jobs, token=token, on_end=end, is_ending=lambda: web.should_exit)
    settings = uvicorn.Config(
        app, server.host, server.port, log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=_GRACE_S, ws_max_size=65536, ws_ping_interval=20, lifespan="on",
        proxy_headers=False, h11_max_incomplete_event_size=32768, limit_concurrency=_CONNECTIONS,
    )  # fmt: skip
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    web = Web(settings)
    try:
        listener = settings.bind_socket()
    except (OSError, SystemExit):
        raise StreamError(
            f"{server.host}:{server.port}: cannot be listened on; is it in use? try --port"
        ) from None
    try:
        log_to_stderr()
        events.start()
        supervisor.start()
        jobs.start()
        web.run([listener])
    finally:
        end()
        listener.close()
        alone.release()
