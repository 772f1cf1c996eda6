"""Runs a server: starts the cameras and the dashboard, and ends them after a signal."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import setproctitle
import uvicorn
from filelock import FileLock, Timeout

from stream.errors import ClusterError, ConfigError, StreamError
from stream.job.cluster import ClusterConnection, connect
from stream.pipeline.end_signals import handle_end_signals
from stream.server.camera_config import CamerasFile, ServerSettings
from stream.server.dashboard.app import create_app
from stream.server.dashboard.jobs import JobQueue
from stream.server.dashboard.security import Guard
from stream.server.dashboard.token import load_token
from stream.server.events import Events, log_to_stderr
from stream.server.supervisor.camera_host import CameraHost
from stream.server.supervisor.supervisor import Supervisor
from stream.server.webhook import Webhook

_GRACE_S = 1
"""Time for unfinished requests when the server ends."""
_STOP_S = 7.5
"""Time for cameras to flush their sinks."""
_LAST_EVENTS_S = 0.5
"""Time for the webhook to send the last events. The three times add up to less than ten seconds."""
_MAX_CONNECTIONS = 400
"""Largest number of connections at a time; further requests are answered with 503."""


def run(file: CamerasFile, path: Path, server: ServerSettings) -> None:
    """Serve until SIGTERM, Ctrl-C or another of `END_SIGNALS`; then flush all outputs within ten seconds.

    Changes of cameras are written to the file `path`. `server` has the file's settings with those of
    the command line, which are not written to the file. Raises ConfigError if a setting or folder cannot
    be used, StreamError if the address cannot be listened on.
    """
    setproctitle.setproctitle("gpen-stream serve")
    _make_folders(server)
    with ExitStack() as ending:
        lock = _lock(server)
        ending.callback(lock.release)
        token = load_token(server.token_path, server.host, wanted=server.token_file is not None)
        hook = server.webhook
        events = Events(Webhook(**hook.model_dump()) if hook is not None else None)
        supervisor = _camera_host(file, path, server, events, ending)
        jobs = JobQueue(server.files_folder, server.jobs)
        ended = threading.Event()

        def end() -> None:
            if not ended.is_set():
                ended.set()
                jobs.stop()
                supervisor.stop(_STOP_S)
                events.stop(_LAST_EVENTS_S)

        web: _Web
        app = create_app(supervisor, jobs, token=token, on_end=end, is_ending=lambda: web.should_exit)
        web = _Web(_web_config(app, server), server.token_path if token else None)
        listener = _listen(web.config, server)
        ending.callback(listener.close)
        ending.callback(end)
        log_to_stderr()
        events.start()
        supervisor.start()
        jobs.start()
        web.run([listener])


def end_fleet(server: ServerSettings) -> None:
    """End the cameras of a fleet on all its machines, and the fleet itself.

    Raises ClusterError if the cluster cannot be reached, or if no fleet runs there.
    """
    from stream.server.fleet.fleet_start import end_fleet as end

    with _connect(server):
        end()


def _camera_host(
    file: CamerasFile, path: Path, server: ServerSettings, events: Events, ending: ExitStack
) -> CameraHost:
    """What runs the cameras: this machine, or a cluster. What has to be left at the end goes to `ending`."""
    if server.on is None:
        return Supervisor(file, path, events, server=server)
    from stream.server.fleet.fleet_start import start_fleet
    from stream.server.fleet.fleet_supervisor import FleetSupervisor

    connection = ending.enter_context(_connect(server))
    coordinator = start_fleet(server.state_folder, server)
    if connection.started:
        ending.callback(coordinator.end)  # the cluster ends with this process: outputs have to be flushed
    else:
        words = f"the cameras run on; to end them: gpen-stream serve --on {server.on} --end"
        ending.callback(lambda: print(words, flush=True))
    return FleetSupervisor(file, path, events, coordinator, server=server)


def _connect(server: ServerSettings) -> ClusterConnection:
    if server.on is None:
        raise ConfigError("--end: ends the cameras of a cluster; name it with --on")
    if not hasattr(signal, "setitimer"):  # Windows: the kernel could not end a camera with its lease
        raise ClusterError("serve: --on needs Linux or macOS")
    return connect(server.on, "serve: --on")


def _make_folders(server: ServerSettings) -> None:
    for key, folder in (("data", server.data_folder), ("files", server.files_folder)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"server.{key}: {folder} cannot be made ({error.strerror})") from None


def _lock(server: ServerSettings) -> FileLock:
    """Lock the data folder; ConfigError if another server works in it."""
    lock = FileLock(server.data_folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"server.data: {server.data_folder}: another gpen-stream serve works in it"
        ) from None
    return lock


def _web_config(app: Guard, server: ServerSettings) -> uvicorn.Config:
    config = uvicorn.Config(
        app, server.host, server.port, log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=_GRACE_S, ws_max_size=65536, ws_ping_interval=20, lifespan="on",
        proxy_headers=False, h11_max_incomplete_event_size=32768, limit_concurrency=_MAX_CONNECTIONS,
    )  # fmt: skip
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # after the configuration has set it
    return config


def _listen(config: uvicorn.Config, server: ServerSettings) -> socket.socket:
    try:
        return config.bind_socket()
    except (OSError, SystemExit):
        raise StreamError(
            f"{server.host}:{server.port}: cannot be listened on; is it in use? try --port"
        ) from None


class _Web(uvicorn.Server):
    """A web server that prints its address when it listens. A signal ends it with exit code 0."""

    def __init__(self, config: uvicorn.Config, token_path: Path | None) -> None:
        super().__init__(config)
        self._token_path = token_path

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals. Unlike in uvicorn, they are not raised again at the end."""
        with handle_end_signals(self.handle_exit):
            yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, and print the address."""
        await super().startup(sockets)
        address, number = self.servers[0].sockets[0].getsockname()[:2]
        host = f"[{address}]" if ":" in address else address
        locked = f"; the token is in {self._token_path}" if self._token_path is not None else ""
        print(f"dashboard: http://{host}:{number}/{locked}", flush=True)
