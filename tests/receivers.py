"""A server that records what is published to it: GStreamer's RTSP server with a file behind its mount.

`servers.py` relays what it is sent, stamped anew; here the publisher's own times are kept.
"""

from __future__ import annotations

from pathlib import Path

from servers import SYSTEM_PYTHON, Server, free_port

_RECORD = """
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
port, file, sound, user, password = sys.argv[1:]
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(port)
factory = GstRtspServer.RTSPMediaFactory()
factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
launch = "( rtph264depay name=depay0 ! h264parse ! queue ! mux. matroskamux name=mux streamable=true ! "
launch += f"filesink buffer-mode=2 location={file} "
if sound:
    launch += "rtpmp4gdepay name=depay1 ! aacparse ! queue ! mux. "
factory.set_launch(launch + ")")
if user:
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    roles = GstRtspServer.RTSPPermissions()
    for what in ("access", "construct"):
        roles.add_permission_for_role("user", f"media.factory.{what}", True)
    factory.set_permissions(roles)
    server.set_auth(auth)
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
loop = GLib.MainLoop()
GLib.io_add_watch(GLib.IOChannel.unix_new(0), 0, GLib.IO_HUP, lambda *_: loop.quit())
loop.run()
"""


class RtspRecorder(Server):
    """Records H.264 (and AAC, with `sound`) into a Matroska file; `user` is NAME:PASSWORD."""

    def __init__(self, file: Path, *, sound: bool = False, user: str = "") -> None:
        port = free_port()
        name, _, password = user.partition(":")
        arguments = [str(port), str(file), "sound" if sound else "", name, password]
        super().__init__([SYSTEM_PYTHON, "-c", _RECORD, *arguments], port)

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/live"
