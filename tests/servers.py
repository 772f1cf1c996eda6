"""Real servers for live tests: GStreamer's RTSP, nginx-rtmp, MJPEG over HTTP, a sender, a faulty proxy.

Only the standard library is imported: the file also runs as a script, under Debian's own Python for
GStreamer and in a process of its own where PyAV sends (network output holds the GIL).

    with rtsp_server({"live": Mount(file=path)}) as server: ... server.url("live") ...
    server.kill(), server.restart(), server.stop(), server.cont()
"""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

SYSTEM_PYTHON = "/usr/bin/python3"
"""The one that has GObject introspection."""


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """A port of loopback that nothing uses just now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


WAIT_S = 200.0
"""Longest wait, as `waiting.LIMIT_S`, which this file does not import: see above."""


def wait_for(condition, timeout_s: float = WAIT_S, what: str = "") -> None:
    """Poll until `condition()` holds; AssertionError after the time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s in vain {what}"
        time.sleep(0.02)


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Server:
    """A process that can be stopped, killed and started again on the same port."""

    def __init__(self, command: list[str], port: int) -> None:
        self.port = port
        self._command = command
        self._process: subprocess.Popen | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE)
        wait_for(self._is_up, what=f"for {self._command[0]} on port {self.port}")

    def _is_up(self) -> bool:
        assert self._process.poll() is None, f"{self._command[0]} ended with {self._process.returncode}"
        return accepts(self.port)

    def stop(self) -> None:
        """Send SIGSTOP: connections stay open, and nothing is answered."""
        self._process.send_signal(signal.SIGSTOP)

    def cont(self) -> None:
        """Send SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Send SIGKILL. The server can be started again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(WAIT_S)
            self._process.stdin.close()

    def restart(self) -> None:
        """Kill, and start on the same port."""
        self.kill()
        self.start()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.kill()


# RTSP ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mount:
    """The stream that one path of the RTSP server plays or records.

    It is the first of `file`, `of` and `record` that is set, else a moving ball with a keyframe each second.
    """

    file: str = ""
    """An MP4 (H.264; AAC where it has sound), looped in real time, timestamps rising."""
    speed: float = 1.0
    """Speed at which `file` is played; 4 floods at four times the rate."""
    record: bool = False
    """Whether the path records a publisher's H.264 and AAC."""
    silent: bool = False
    """Whether `record` accepts H.264 alone."""
    of: str = ""
    """The record mount whose stream is played live."""
    launch: str = ""
    """A GStreamer pipeline in place of the others, with payloaders pay0, pay1, ..."""
    size: tuple[int, int] = (320, 180)
    rate: int = 25
    sound: bool = False
    """Whether the ball has sound, G.711 A-law as cameras send it; with `of`, the publisher's AAC."""
    transports: str = "tcp udp"


class RtspServer(Server):
    """GStreamer's RTSP server."""

    def __init__(self, mounts: dict[str, Mount], user: str, password: str) -> None:
        self.user, self.password = user, password
        port = free_port()
        facts = {"port": port, "user": user, "password": password}
        facts["mounts"] = {path: asdict(mount) for path, mount in mounts.items()}
        super().__init__([SYSTEM_PYTHON, __file__, "rtsp", json.dumps(facts)], port)

    def url(self, path: str = "live", port: int | None = None, user: str | None = None) -> str:
        """Address of a mount, with the credentials that the server needs. `port` may be that of a proxy."""
        who = f"{self.user}:{self.password}@" if self.user and user is None else user or ""
        return f"rtsp://{who}127.0.0.1:{port or self.port}/{path}"


def rtsp_server(
    mounts: dict[str, Mount] | str | Path | None = None, user: str = "", password: str = ""
) -> RtspServer:
    """A context manager. A path stands for one mount `live` of that file, None for one of the ball."""
    if mounts is None:
        mounts = {"live": Mount()}
    elif not isinstance(mounts, dict):
        mounts = {"live": Mount(file=str(mounts))}
    return RtspServer(mounts, user, password)


# RTMP, HLS ----------------------------------------------------------------------------------------

_NGINX = """
load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
rtmp {{ access_log off; server {{ listen 127.0.0.1:{port}; chunk_size 4096;
  application live {{ live on; hls on; hls_path {folder}/hls; hls_fragment 1s; hls_playlist_length 6s; }}
}} }}
http {{ access_log off; types {{ application/vnd.apple.mpegurl m3u8; video/mp2t ts; video/mp4 mp4; }}
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{ listen 127.0.0.1:{http}; location / {{ root {folder}; }} }} }}
"""


class RtmpServer(Server):
    """nginx with its RTMP module. Publish to `url(name)`, play from there, or as HLS from `hls(name)`."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.http_port = free_port()
        port = free_port()
        (self.folder / "hls").mkdir()
        text = _NGINX.format(folder=folder, port=port, http=self.http_port)
        (self.folder / "nginx.conf").write_text(text)
        binary = "/usr/sbin/nginx" if os.path.exists("/usr/sbin/nginx") else "nginx"
        super().__init__(
            [binary, "-p", folder, "-c", f"{folder}/nginx.conf", "-e", f"{folder}/error.log"], port
        )

    def url(self, name: str = "cam", port: int | None = None) -> str:
        return f"rtmp://127.0.0.1:{port or self.port}/live/{name}"

    def hls(self, name: str = "cam") -> str:
        return f"http://127.0.0.1:{self.http_port}/hls/{name}.m3u8"

    def http(self, name: str) -> str:
        """Address of a file that lies in `folder`."""
        return f"http://127.0.0.1:{self.http_port}/{name}"


@contextmanager
def rtmp_server() -> Iterator[RtmpServer]:
    """nginx-rtmp in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="nginx") as folder, RtmpServer(folder) as server:
        yield server


@contextmanager
def sending(
    path: Path | str, url: str, form: str, speed: float = 1.0, loops: int = 0
) -> Iterator[subprocess.Popen]:
    """A file sent on, packet by packet in real time, looped (0: for ever): to RTMP (`flv`), UDP (`mpegts`),
    an RTSP record mount (`rtsp`). Kill the process to have it leave without a word."""
    arguments = json.dumps({"path": str(path), "url": url, "form": form, "speed": speed, "loops": loops})
    process = subprocess.Popen([sys.executable, __file__, "send", arguments])
    try:
        yield process
    finally:
        process.kill()
        process.wait(WAIT_S)


# MJPEG --------------------------------------------------------------------------------------------


class MjpegServer:
    """Pictures over HTTP as cameras send them; `answer` another status, or `silent`, at will."""

    def __init__(self, pictures: Iterable[bytes], rate: float) -> None:
        self.pictures, self.rate = list(pictures), rate
        self.answer, self.silent = 200, False
        self.requests = 0
        self._closing = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                with suppress(ConnectionError):
                    outer._send(self)

            def log_message(self, *_: object) -> None:
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = False
        self.port = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/video.mjpg"

    def _send(self, handler) -> None:
        if self.answer != 200:
            handler.send_error(self.answer)
            return
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        number = 0
        while not self._closing.wait(1 / self.rate):
            if self.silent:
                continue
            data = self.pictures[number % len(self.pictures)]
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            handler.wfile.write(head.encode() + data + b"\r\n")
            number += 1

    def __enter__(self) -> MjpegServer:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


# A network that misbehaves ------------------------------------------------------------------------


class Proxy:
    """TCP to a port of loopback. Its attributes may be changed while it runs."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.delay_s = 0.0
        """Delay of each piece, in both directions."""
        self.silent = False
        """Whether connections are accepted and kept open, but no data passes."""
        self.truncate: int | None = None
        """Number of the server's bytes after which each connection is closed; None: it stays open."""
        self.corrupt: float = 0.0
        """Share of the server's pieces (beyond the first 4 KiB of a connection) with a byte changed."""
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()
        self._lock = threading.Lock()

    def cut(self) -> None:
        """Close every connection that is open now."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            self._close(*pair)

    def __enter__(self) -> Proxy:
        self._run(self._accept)
        return self

    def __exit__(self, *_) -> None:
        self._closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def _run(self, body, *arguments) -> None:
        thread = threading.Thread(target=body, args=arguments)
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            server = socket.socket()
            if server.connect_ex(("127.0.0.1", self.target)):
                self._close(client, server)
                continue
            with self._lock:
                self._pairs.append((client, server))
            self._run(self._pump, client, server, False)
            self._run(self._pump, server, client, True)

    def _pump(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        sent, pieces = 0, 0
        with suppress(OSError):
            while data := source.recv(65536):
                while self.silent and not self._closing.wait(0.02):
                    pass
                self._closing.wait(self.delay_s)
                pieces += 1
                if (
                    is_answer
                    and self.corrupt
                    and sent > 4096
                    and pieces % max(1, round(1 / self.corrupt)) == 0
                ):
                    spoilt = bytearray(data)
                    spoilt[len(data) // 2] ^= 0x55
                    data = bytes(spoilt)
                if is_answer and self.truncate is not None:
                    data = data[: self.truncate - sent]
                sink.sendall(data)
                sent += len(data)
                if is_answer and self.truncate is not None and sent >= self.truncate:
                    break
        self._close(source, sink)

    @staticmethod
    def _close(*sockets: socket.socket) -> None:
        for one in sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


class LossyUdp:
    """Datagrams to a port of loopback on to another one, of which each `every`-th is lost."""

    def __init__(self, target: int, every: int) -> None:
        self.target, self.every = target, every
        self.lost = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.05)
        self.port = self._socket.getsockname()[1]
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        number = 0
        while not self._closing.is_set():
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                continue
            number += 1
            if number % self.every == 0:
                self.lost += 1
                continue
            with suppress(OSError):
                self._socket.sendto(data, ("127.0.0.1", self.target))

    def __enter__(self) -> LossyUdp:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._closing.set()
        self._thread.join()
        self._socket.close()


# What runs in processes of its own ----------------------------------------------------------------


def _send(path: str, url: str, form: str, speed: float, loops: int) -> None:
    import av

    options = {"rtsp": {"rtsp_transport": "tcp"}, "flv": {"flvflags": "no_duration_filesize"}}.get(form, {})
    out = av.open(url, "w", format=form, options=options)
    streams, last, offset, began, count = {}, {}, 0.0, time.monotonic(), 0
    while not loops or count < loops:
        longest = 0.0
        with av.open(path) as container:
            wanted = [stream for stream in container.streams if stream.type in ("video", "audio")]
            for stream in wanted:
                if stream.index not in streams:
                    streams[stream.index] = out.add_stream_from_template(stream)
            for packet in container.demux(wanted):
                if packet.dts is None:
                    continue
                unit, source = packet.time_base, packet.stream.index
                longest = max(longest, float((packet.dts + packet.duration) * unit))
                shift = round(offset / unit)
                at = float(packet.dts * unit) + offset
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                if packet.dts <= last.get(source, packet.dts - 1):
                    continue  # the sound's start of the next round overlaps its end
                last[source] = packet.dts
                packet.stream = streams[source]
                time.sleep(max(0.0, began + at / speed - time.monotonic()))
                out.mux(packet)
        offset += longest
        count += 1
    out.close()


def _units(path: str) -> dict:
    """All access units of an MP4 by kind, with caps: what `qtdemux` hands out."""
    from gi.repository import Gst

    text = f'filesrc location="{path}" ! qtdemux name=d'
    found = Gst.parse_launch(text + " ! fakesink")
    found.set_state(Gst.State.PAUSED)
    found.get_state(20 * Gst.SECOND)
    kinds = [pad.get_name()[:5] for pad in found.get_by_name("d").srcpads]
    found.set_state(Gst.State.NULL)
    for kind in kinds:
        text += f" d.{kind}_0 ! queue max-size-buffers=0 max-size-bytes=0 max-size-time=0 ! "
        text += f"appsink name={kind} sync=false"
    pipeline = Gst.parse_launch(text)
    pipeline.set_state(Gst.State.PLAYING)
    units = {}
    for kind in kinds:
        sink, samples = pipeline.get_by_name(kind), []
        while sample := sink.emit("pull-sample"):
            samples.append((sample.get_segment(), sample.get_buffer(), sample.get_caps()))
        units[kind] = samples
    pipeline.set_state(Gst.State.NULL)
    return units


class _Feed:
    """Passes access units on to every client's pipeline."""

    def __init__(self) -> None:
        self.caps, self.media = {}, []
        self.lock = threading.Lock()

    def configure(self, _factory, media) -> None:
        with self.lock:
            self.media.append({"element": media.get_element(), "offset": None})
        media.connect("unprepared", self.forget)

    def forget(self, media) -> None:
        with self.lock:
            self.media = [m for m in self.media if m["element"] != media.get_element()]

    def push(self, kind: str, buffer, pts: int, dts: int) -> None:
        from gi.repository import Gst

        with self.lock:
            media = list(self.media)
        for one in media:
            element = one["element"]
            source, clock = element.get_by_name(kind), element.get_clock()
            if source is None or clock is None:
                continue
            if one["offset"] is None:
                one["offset"] = clock.get_time() - element.get_base_time() - dts
            copy = buffer.copy_deep()
            copy.pts, copy.dts = max(0, pts + one["offset"]), max(0, dts + one["offset"])
            copy.duration = Gst.CLOCK_TIME_NONE
            source.set_property("caps", self.caps[kind])
            source.emit("push-buffer", copy)

    def loop(self, units: dict, speed: float) -> None:
        """Push a file's units for ever, in real time."""
        flat = []
        for kind, samples in units.items():
            for segment, buffer, caps in samples:
                self.caps[kind] = caps
                pts = segment.to_running_time(3, buffer.pts)  # 3: GST_FORMAT_TIME
                dts = buffer.dts - buffer.pts + pts if buffer.dts < 1 << 62 else pts
                flat.append((dts, pts, kind, buffer))
        flat.sort(key=lambda unit: unit[0])
        videos = [unit for unit in flat if unit[2] == "video"]
        step = (videos[-1][0] - videos[0][0]) // max(1, len(videos) - 1)
        length, offset, began = videos[-1][0] + step - videos[0][0], 0, time.monotonic()
        while True:
            for dts, pts, kind, buffer in flat:
                due = began + (dts + offset - flat[0][0]) / 1e9 / speed
                time.sleep(max(0.0, due - time.monotonic()))
                self.push(kind, buffer, round((pts + offset) / speed), round((dts + offset) / speed))
            offset += length


def _launch(mount: dict, kinds: Iterable[str]) -> str:
    if mount["record"]:
        return (
            "( rtph264depay name=depay0 ! video/x-h264,stream-format=avc,alignment=au "
            "! appsink name=video emit-signals=true sync=false async=false "
        ) + (
            ")" if mount["silent"] else
            "rtpmp4gdepay name=depay1 ! appsink name=audio emit-signals=true sync=false async=false )"
        )  # fmt: skip
    if mount["of"] or mount["file"]:
        text = (
            "( appsrc name=video is-live=true format=time max-bytes=4000000 leaky-type=downstream "
            # Not -1: parameter sets before each slice of a keyframe would make it several pictures.
            "! rtph264pay name=pay0 pt=96 config-interval=1 "
        )
        if "audio" in kinds or (mount["of"] and mount["sound"]):
            text += "appsrc name=audio is-live=true format=time ! rtpmp4gpay name=pay1 pt=97 "
        return text + ")"
    width, height = mount["size"]
    text = (
        f"( videotestsrc is-live=true pattern=ball ! video/x-raw,width={width},height={height},"
        f"framerate={mount['rate']}/1 ! x264enc tune=zerolatency speed-preset=ultrafast threads=1 "
        f"key-int-max={mount['rate']} ! rtph264pay name=pay0 pt=96 config-interval=-1 "
    )
    if mount["sound"]:
        text += (
            "audiotestsrc is-live=true ! audio/x-raw,rate=8000,channels=1 ! alawenc ! rtppcmapay name=pay1 "
        )
    return text + ")"


def _serve_rtsp(facts: dict) -> None:
    import gi

    for name in ("Gst", "GstRtsp", "GstRtspServer", "GstApp"):
        gi.require_version(name, "1.0")
    from gi.repository import GLib, Gst, GstRtsp, GstRtspServer

    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(facts["port"]))
    # A player waits for the first picture: with one thread for all clients its publisher would wait too.
    server.get_thread_pool().set_max_threads(16)
    roles = GstRtspServer.RTSPPermissions()
    if facts["user"]:
        auth = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        basic = GstRtspServer.RTSPAuth.make_basic(facts["user"], facts["password"])
        auth.add_basic(basic, token)
        server.set_auth(auth)
        roles.add_role("user")
        for what in ("access", "construct"):
            roles.add_permission_for_role("user", f"media.factory.{what}", True)
    feeds = {path: _Feed() for path in facts["mounts"]}
    for path, mount in facts["mounts"].items():
        feed, kinds = feeds[path], ()
        factory = GstRtspServer.RTSPMediaFactory()
        if mount["file"]:
            units = _units(mount["file"])
            kinds = tuple(units)
            threading.Thread(target=feed.loop, args=(units, mount["speed"]), daemon=True).start()
        factory.set_launch(mount["launch"] or _launch(mount, kinds))
        factory.set_shared(False)  # shared media refuse a client that comes while the last one leaves
        named = {"tcp": GstRtsp.RTSPLowerTrans.TCP, "udp": GstRtsp.RTSPLowerTrans.UDP}
        protocols = named[mount["transports"].split()[0]]
        for name in mount["transports"].split()[1:]:
            protocols |= named[name]
        factory.set_protocols(protocols)
        if facts["user"]:
            factory.set_permissions(roles)
        if mount["record"]:
            factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
            factory.set_latency(0)
            players = [feeds[name] for name, other in facts["mounts"].items() if other["of"] == path]
            factory.connect("media-configure", _take, players)
        elif mount["of"] or mount["file"]:
            factory.connect("media-configure", feed.configure)
        server.get_mount_points().add_factory(f"/{path}", factory)
    assert server.attach(None), "the port is taken"
    loop = GLib.MainLoop()
    # The tests hold the other end of stdin: where they die, so does this.
    GLib.io_add_watch(GLib.IOChannel.unix_new(0), 0, GLib.IO_HUP, lambda *_: loop.quit())
    loop.run()


def _take(_factory, media, players: list[_Feed]) -> None:
    """Hand a publisher's units on to those that play them."""

    def arrived(sink, kind: str):
        from gi.repository import Gst

        sample = sink.emit("pull-sample")
        buffer = sample.get_buffer()
        now = time.monotonic_ns()
        for player in players:
            player.caps[kind] = sample.get_caps()
            player.push(kind, buffer, now, now)
        return Gst.FlowReturn.OK

    for kind in ("video", "audio"):
        if (sink := media.get_element().get_by_name(kind)) is not None:
            sink.connect("new-sample", arrived, kind)


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    if sys.argv[1] == "rtsp":
        _serve_rtsp(given)
    else:
        _send(**given)
