"""Servers that a sink publishes to: GStreamer's RTSP server in RECORD mode, and nginx-rtmp."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

_RECORD = """
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
port, file, sound, user = sys.argv[1:]
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(port)
factory = GstRtspServer.RTSPMediaFactory()
factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
launch = "( rtph264depay name=depay0 ! h264parse ! queue ! mux. matroskamux name=mux streamable=true ! "
launch += f"filesink buffer-mode=2 location={file} "
if sound == "sound":
    launch += "rtpmp4gdepay name=depay1 ! aacparse ! queue ! mux. "
factory.set_launch(launch + ")")
if user:
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "publisher")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(*user.split(":")), token)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("publisher", "media.factory.access", True)
    permissions.add_permission_for_role("publisher", "media.factory.construct", True)
    factory.set_permissions(permissions)
    server.set_auth(auth)
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
"""

_NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
rtmp {{
    access_log off;
    server {{
        listen 127.0.0.1:{port};
        application live {{ live on; wait_key on; drop_idle_publisher 5s; }}
    }}
}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def rtsp_recorder(
    file: Path, *, port: int = 0, sound: bool = False, user: str = ""
) -> Iterator[tuple[str, subprocess.Popen]]:
    """A server that records what is published there into a Matroska file; `user` is NAME:PASSWORD."""
    port = port or free_port()
    arguments = [str(port), str(file), "sound" if sound else "silent", user]
    with running(["/usr/bin/python3", "-c", _RECORD, *arguments], port) as process:
        yield f"rtsp://127.0.0.1:{port}/live", process


@contextlib.contextmanager
def rtmp_relay(folder: Path, *, port: int = 0) -> Iterator[tuple[str, subprocess.Popen]]:
    """nginx-rtmp: what is published below its address can be played from there."""
    port = port or free_port()
    load = "load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;\n"
    conf = folder / "nginx.conf"
    conf.write_text(load + _NGINX.format(folder=folder, port=port))
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    with running(
        [nginx, "-p", str(folder), "-c", str(conf), "-e", str(folder / "error.log")], port
    ) as process:
        yield f"rtmp://127.0.0.1:{port}/live", process


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[subprocess.Popen]:
    """A server's process, once it listens; gone at the end."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, f"{command[0]} ended"
            assert time.monotonic() < deadline, f"{command[0]} does not listen"
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()
