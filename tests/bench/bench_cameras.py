"""What bad cameras do to a healthy one: its frames a second and its delay, alone and beside them, in turn.

    python -m tests.bench.bench_cameras [--rounds 3] [--seconds 20] [--json FILE]

Four cameras at 640x360 under one supervisor: a healthy one at 25 fps with a face, one whose source
has stalled, one whose source announces 25 fps and sends a face at four times that rate, and one whose
process is killed whenever it has come up. The healthy one's pictures are read outside, their time strip
says how old they are.
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
"""After the others were added or removed: they start, stall, flood and meet the breaker meanwhile."""


def supervisor_body(link, folder: str) -> None:
    """A supervisor in a process of its own, told by the link which cameras to run."""
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


class Supervisor:
    """The other end of the link."""

    def __init__(self, folder: Path) -> None:
        self.process = ChildProcess("bench supervisor", supervisor_body, str(folder))

    def __call__(self, order: str, name: str = "", value: dict | None = None) -> dict[str, dict]:
        """Give an order; what every camera reports, by name."""
        self.process.link.send((order, name, value))
        return {camera["name"]: camera for camera in self.process.link.recv()}

    def close(self) -> None:
        """End it, cameras and all."""
        self.process.link.close()
        self.process.join(20)


def wait_live(supervise: Supervisor, name: str) -> None:
    """Until a camera is live; a minute at most."""
    deadline = time.monotonic() + 60
    while (supervise("look")[name]["report"] or {}).get("state") != "live":
        if time.monotonic() > deadline:
            raise SystemExit(f"{name} does not come up")
        time.sleep(0.5)


def kill_again_and_again(supervise: Supervisor, name: str, until_s: float) -> int:
    """SIGKILL a camera's process whenever there is one; how often."""
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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
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
            others = {
                "flooding": {
                    "source": f"udp://127.0.0.1:{ports['flooding']}",
                    "to": (f"{folder}/flooding/",),
                },
                "crashing": {
                    "source": f"udp://127.0.0.1:{ports['crashing']}",
                    "to": (f"{folder}/crashing/",),
                },
                "stalled": {"source": server.url(), "to": (f"{folder}/stalled/",)},
            }
            supervise = Supervisor(folder)
            healthy = {
                "source": f"udp://127.0.0.1:{ports['healthy']}",
                "to": (f"mjpeg:{viewers}",),
                "preset": "fast",
            }
            supervise("add", "healthy", healthy)
            delays: dict[bool, list[int]] = {True: [], False: []}
            try:
                wait_live(supervise, "healthy")
                with Client(f"http://127.0.0.1:{viewers}/stream") as client:
                    for number in range(arguments.rounds):
                        for beside in (False, True):
                            for other, settings in others.items() if beside else ():
                                supervise("add", other, settings | {"preset": "fast"})
                            if beside:
                                wait_live(supervise, "stalled")
                                server.stop()
                            settled = time.monotonic() + SETTLE_S
                            kills = kill_again_and_again(supervise, "crashing", settled) if beside else 0
                            time.sleep(max(0.0, settled - time.monotonic()))
                            began, cpu = time.monotonic(), process_figures(supervise.process.pid)["cpu_s"]
                            end = began + arguments.seconds
                            kills += kill_again_and_again(supervise, "crashing", end) if beside else 0
                            time.sleep(max(0.0, end - time.monotonic()))
                            cpu = process_figures(supervise.process.pid)["cpu_s"] - cpu
                            ages = client.since(began, end)
                            delays[beside] += ages
                            words = {n: c.get("words") for n, c in supervise("look").items()}
                            side = "beside" if beside else "alone"
                            print(number, side, figures(ages, arguments.seconds), words, flush=True)
                            print(f"  {cpu / arguments.seconds:.2f} cores, {kills} kills", flush=True)
                            if beside:
                                server.cont()
                                for other in others:
                                    supervise("remove", other)
            finally:
                supervise.close()
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
