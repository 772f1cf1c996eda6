"""The effect of faulty cameras on a healthy one: its frame rate and delay, alone and beside them, in turn.

    python -m tests.bench.bench_cameras [--rounds 3] [--seconds 20] [--json FILE]

Four cameras at 640x360 run under one supervisor: a healthy one at 25 fps with a face, one whose source has
stalled, one whose source announces 25 fps and sends a face at four times that rate, and one whose process
is killed whenever it has started. A client reads the healthy camera's pictures; the time strip in each
shows its age.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import tempfile
import time
from pathlib import Path

from stream.lab.bench.report import Row, Table
from stream.pipeline.processes import ChildProcess
from tests.bench.live_tools import (
    Client,
    add_json_option,
    figures,
    process_figures,
    strip_source,
    write_clip,
    write_json,
)
from tests.servers import free_port, rtsp_server, sending

WORDS = {"fps": "frames", "median_ms": "median delay", "p95_ms": "delay, 95th percentile"}
SETTLE_S = 12.0
"""Time after the others were added or removed, in which they start, stall, flood and are paused."""


def supervisor_body(link, folder: str) -> None:
    """Body of a process with a supervisor, which obeys orders from the link."""
    from stream.server.camera_config import CameraSettings, CamerasFile, ServerSettings
    from stream.server.events import Events
    from stream.server.supervisor.supervisor import Supervisor

    file = CamerasFile(server=ServerSettings(data=folder), cameras={})
    supervisor = Supervisor(file, None, Events())
    supervisor.start()
    try:
        while True:
            order, name, value = link.recv()
            if order == "add":
                supervisor.add(name, CameraSettings(**value))
            elif order == "remove":
                supervisor.remove(name)
            link.send([camera.to_json() for camera in supervisor.cameras()])
    except EOFError:
        supervisor.stop()


class SupervisorProcess:
    """A supervisor in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.process = ChildProcess("bench supervisor", supervisor_body, str(folder))

    def __call__(self, order: str, name: str = "", value: dict | None = None) -> dict[str, dict]:
        """Give an order; returns the status of every camera by name."""
        self.process.link.send((order, name, value))
        return {camera["name"]: camera for camera in self.process.link.recv()}

    def close(self) -> None:
        """End the supervisor with all cameras."""
        self.process.link.close()
        self.process.join(20)


def wait_live(supervise: SupervisorProcess, name: str) -> None:
    """Wait at most a minute until a camera is live."""
    deadline = time.monotonic() + 60
    while (supervise("look")[name]["report"] or {}).get("state") != "live":
        if time.monotonic() > deadline:
            raise SystemExit(f"{name} does not come up")
        time.sleep(0.5)


def kill_repeatedly(supervise: SupervisorProcess, name: str, until_s: float) -> int:
    """Kill a camera's process whenever it runs; returns the number of kills."""
    kills, last = 0, None
    while time.monotonic() < until_s:
        pid = supervise("look").get(name, {}).get("pid")
        if pid and pid != last:
            time.sleep(0.5)
            try:
                os.kill(pid, signal.SIGKILL)
                kills, last = kills + 1, pid
            except ProcessLookupError:
                last = pid
        time.sleep(0.2)
    return kills


class Measurement:
    """The healthy camera's delays, alone and beside the others."""

    def __init__(self, supervise: SupervisorProcess, client: Client, seconds: float) -> None:
        self.delays_ms: dict[bool, list[int]] = {False: [], True: []}
        """Delays with the other cameras running (True) and without them (False)."""
        self._supervise, self._client, self._seconds = supervise, client, seconds

    def run(self, number: int, beside: bool) -> None:
        """Let everything settle, then measure and print."""
        settled_s = time.monotonic() + SETTLE_S
        kills = self._wait_until(settled_s, beside)
        began_s, cpu_s = time.monotonic(), self._cpu_s()
        end_s = began_s + self._seconds
        kills += self._wait_until(end_s, beside)
        cores = (self._cpu_s() - cpu_s) / self._seconds
        ages = self._client.since(began_s, end_s)
        self.delays_ms[beside] += ages
        words = {name: camera.get("words") for name, camera in self._supervise("look").items()}
        print(number, "beside" if beside else "alone", figures(ages, self._seconds), words, flush=True)
        print(f"  {cores:.2f} cores, {kills} kills", flush=True)

    def _wait_until(self, end_s: float, beside: bool) -> int:
        kills = kill_repeatedly(self._supervise, "crashing", end_s) if beside else 0
        time.sleep(max(0.0, end_s - time.monotonic()))
        return kills

    def _cpu_s(self) -> float:
        return process_figures(self._supervise.process.pid)["cpu_s"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20)
    add_json_option(parser)
    arguments = parser.parse_args()
    ports = {name: free_port(socket.SOCK_DGRAM) for name in ("healthy", "flooding", "crashing")}
    viewers = free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = write_clip(folder / "face.mp4")
        with (
            rtsp_server() as server,
            strip_source(f"udp://127.0.0.1:{ports['healthy']}?pkt_size=1316", 25),
            sending(clip, f"udp://127.0.0.1:{ports['flooding']}?pkt_size=1316", "mpegts", speed=4),
            sending(clip, f"udp://127.0.0.1:{ports['crashing']}?pkt_size=1316", "mpegts"),
        ):
            sources = {name: f"udp://127.0.0.1:{port}" for name, port in ports.items()}
            sources["stalled"] = server.url()
            supervise = SupervisorProcess(folder)
            try:
                healthy = {"source": sources.pop("healthy"), "to": (f"mjpeg:{viewers}",), "preset": "fast"}
                supervise("add", "healthy", healthy)
                wait_live(supervise, "healthy")
                with Client(f"http://127.0.0.1:{viewers}/stream") as client:
                    measurement = Measurement(supervise, client, arguments.seconds)
                    for number in range(arguments.rounds):
                        measurement.run(number, beside=False)
                        for other, source in sources.items():
                            camera = {"source": source, "to": (f"{folder}/{other}/",), "preset": "fast"}
                            supervise("add", other, camera)
                        wait_live(supervise, "stalled")
                        server.stop()
                        measurement.run(number, beside=True)
                        server.cont()
                        for other in sources:
                            supervise("remove", other)
            finally:
                supervise.close()
    delays = measurement.delays_ms
    alone, beside = (figures(delays[side], arguments.rounds * arguments.seconds) for side in (False, True))
    rows: list[Row] = []
    for key in ("fps", "median_ms", "p95_ms"):
        ratio = beside[key] / alone[key]
        print(f"{key}: alone {alone[key]:.1f}, beside three bad ones {beside[key]:.1f}: {ratio:.3f}")
        rows.append({"figure": WORDS[key], "part": ratio})
    columns = {"figure": "figure", "part": "beside them"}
    title = "A healthy camera beside a stalled, a flooding and a crashing one, in parts of what it does alone"
    write_json(arguments.json, "neighbours", [Table("neighbours", title, columns, rows)])


if __name__ == "__main__":
    main()
