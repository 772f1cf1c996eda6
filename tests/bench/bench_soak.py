"""An hour of a camera in a few minutes: a session's memory, threads and open files must not grow.

    python -m tests.bench.bench_soak [--frames 90000] [--rate 250] [--json FILE]

A source sends the frames of an hour (25 fps) at ten times that rate. It is killed and started again after
every tenth of the run. The session records segments, keeps a few of them, and serves MJPEG. The first
tenth is the warm-up; the later ones are compared with it.
"""

from __future__ import annotations

import argparse
import socket
import tempfile
import time
from pathlib import Path

import av

from stream.lab.bench.report import Row, Table
from stream.pipeline.processes import ChildProcess
from tests.bench.bench_live import session_body
from tests.bench.live_tools import Client, add_json_option, process_figures, strip_source, write_json
from tests.servers import free_port

PARTS = 10
"""The source is started this many times."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=90_000)
    parser.add_argument("--rate", type=float, default=250)
    add_json_option(parser)
    arguments = parser.parse_args()
    port, viewers = free_port(socket.SOCK_DGRAM), free_port()
    source = f"udp://127.0.0.1:{port}"
    settings = ["record.segment_s=10.0", "record.keep_gb=0.05", "record.free_gb=0.1"]
    with tempfile.TemporaryDirectory() as name:
        sinks = [f"{name}/", f"mjpeg:{viewers}"]
        job = ChildProcess("soak session", session_body, source, sinks, "fast", settings)
        rows = []
        try:
            with Client(f"http://127.0.0.1:{viewers}/stream") as client:
                for part in range(PARTS):
                    with strip_source(f"{source}?pkt_size=1316", arguments.rate):
                        time.sleep(arguments.frames / PARTS / arguments.rate)
                        job.link.send(("report", None))
                        report = job.link.recv()
                        row = process_figures(job.pid) | {"pictures": len(client.ages)}
                        rows.append(row)
                        print(part, {key: round(value, 1) for key, value in row.items()}, report["words"],
                              report["fps_in"], report["fps_out"], report["drops"], flush=True)  # fmt: skip
        finally:
            job.link.close()
            job.join(20)
        segments = sorted(Path(name).glob("*.mp4"))
        for path in segments:
            with av.open(str(path)) as container:
                times = [frame.pts for frame in container.decode(video=0)]
            assert times == sorted(set(times)), path
        size = sum(path.stat().st_size for path in segments) / 2**30
        print(f"{len(segments)} segments kept, {size:.3f} GiB, all playable, times rising")
    growth: list[Row] = []
    for key, words in (("rss_mb", "memory"), ("threads", "threads"), ("files", "open files")):
        base, last = rows[0][key], max(row[key] for row in rows[1:])
        print(f"{key}: after a tenth {base:.1f}, most later {last:.1f}: {last / base:.3f}")
        growth.append({"figure": words, "times": last / base})
    columns = {"figure": "figure", "times": "at the most, times that after a tenth"}
    title = "An hour's frames in a few minutes, the source killed ten times"
    write_json(arguments.json, "soak", [Table("soak", title, columns, growth)])


if __name__ == "__main__":
    main()
