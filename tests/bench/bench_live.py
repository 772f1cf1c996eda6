"""The delay that restoration adds to a live picture, read by clients from the picture itself.

    python -m tests.bench.bench_live [--rounds 4] [--seconds 10] [--preset fast] [--json FILE]

A process sends the portrait in 640x360 at 25 fps with the time burnt in. A session of `gpen-stream` restores
it and delivers it by MJPEG and by RTSP through GStreamer's server. One run measures both sides in turn:
restoration on, and frames passed through.
"""

from __future__ import annotations

import argparse
import json
import socket
import threading
import time

from stream.lab.bench.report import Table
from stream.pipeline.processes import ChildProcess, start_thread
from tests.bench.live_tools import (
    Client,
    add_json_option,
    figures,
    process_figures,
    strip_source,
    write_json,
)
from tests.servers import Mount, free_port, rtsp_server

SETTLE_S = 3.0
COLUMNS = {
    "sink": "sink", "median": "added delay, median ms", "p95": "added delay, p95 ms",
    "on": "cores, restored", "off": "cores, passed through",
}  # fmt: skip


def session_body(link, source: str, sinks: list[str], preset: str, overrides: list[str]) -> None:
    """Body of a process with a session, which obeys orders from the link."""
    from stream.config import load_config
    from stream.live.session.live_settings import LiveSettings
    from stream.live.session.session import Session
    from stream.live.sinks import parse_sink
    from stream.live.source.address import parse_address

    config = load_config(preset, overrides=overrides)
    specs = [parse_sink(text, config) for text in sinks]
    session = Session("bench", parse_address(source), specs, config)
    stop = threading.Event()
    thread = start_thread("session", session.run, stop)
    try:
        while True:
            order, value = link.recv()
            if order == "passing":
                session.change(LiveSettings(passing=value))
            link.send(session.report().to_json())
    except EOFError:
        stop.set()
        thread.join()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--rate", type=float, default=25)
    add_json_option(parser)
    arguments = parser.parse_args()
    port, viewers = free_port(socket.SOCK_DGRAM), free_port()
    source = f"udp://127.0.0.1:{port}"
    mounts = {"in": Mount(record=True, silent=True), "out": Mount(of="in")}
    with rtsp_server(mounts) as server, strip_source(f"{source}?pkt_size=1316", arguments.rate):
        sinks = [f"mjpeg:{viewers}", server.url("in")]
        job = ChildProcess("bench session", session_body, source, sinks, arguments.preset, [])
        clients = {"mjpeg": Client(f"http://127.0.0.1:{viewers}/stream"), "rtsp": Client(server.url("out"))}
        try:
            delays = {(name, side): [] for name in clients for side in (True, False)}
            cpu = {True: 0.0, False: 0.0}
            for _ in range(arguments.rounds):
                for side in (True, False):
                    job.link.send(("passing", not side))
                    job.link.recv()
                    time.sleep(SETTLE_S)
                    began, cpu_began = time.monotonic(), process_figures(job.pid)["cpu_s"]
                    time.sleep(arguments.seconds)
                    cpu[side] += process_figures(job.pid)["cpu_s"] - cpu_began
                    for name, client in clients.items():
                        delays[name, side] += client.since(began, time.monotonic())
            job.link.send(("report", None))
            report = job.link.recv()
        finally:
            for client in clients.values():
                client.close()
            job.link.close()
            job.join(15)
    seconds = arguments.rounds * arguments.seconds
    rows = []
    for name in clients:
        on, off = (figures(delays[name, side], seconds) for side in (True, False))
        print(f"{name}: restored {on}, passed through {off}")
        added = on["median_ms"] - off["median_ms"], on["p95_ms"] - off["median_ms"]
        rows.append(
            {"sink": name, "median": added[0], "p95": added[1], "on": cpu[True] / seconds,
             "off": cpu[False] / seconds}
        )  # fmt: skip
        print(f"{name}: delay added by restoration: median {added[0]:.0f} ms, p95 {added[1]:.0f} ms")
    print(f"cores in use: restored {cpu[True] / seconds:.2f}, passed through {cpu[False] / seconds:.2f}")
    print(json.dumps(report, indent=2))
    title = f"640x360 at {arguments.rate:g} fps, one face, preset {arguments.preset}: delay by restoration"
    write_json(arguments.json, "live", [Table("delay", title, COLUMNS, rows)])


if __name__ == "__main__":
    main()
