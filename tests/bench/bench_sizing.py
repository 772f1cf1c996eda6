"""CPU, memory, delay and disk space of one camera: the table of `docs/operators.md`.

    python -m tests.bench.bench_sizing [--seconds 20] [--json FILE]

Each row is one camera under a supervisor. Its source sends samples/portrait.mp4, which shows one face, in a
given size at 25 fps, and it is recorded to disk. An idle camera sees a still picture with the motion gate
on.
"""

from __future__ import annotations

import argparse
import socket
import tempfile
import time
from pathlib import Path

from stream.lab.bench.report import Row, Table
from tests.bench.bench_cameras import SupervisorProcess, wait_live
from tests.bench.live_tools import add_json_option, process_figures, strip_source, write_json
from tests.servers import free_port

ROWS = (
    ("640x360", "fast", "portrait", False),
    ("640x360", "fast", "portrait", True),
    ("640x360", "default", "portrait", False),
    ("1280x720", "fast", "portrait", False),
    ("1280x720", "fast", "portrait", True),
)
"""Size, preset, clip, and whether the camera is idle."""
COLUMNS = {
    "picture": "picture", "preset": "preset", "view": "in view", "cores": "cores", "memory": "memory, MiB",
    "median": "delay, median ms", "p95": "delay, p95 ms", "disk": "GiB a day", "level": "level",
}  # fmt: skip
SETTLE_S = 18.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20)
    add_json_option(parser)
    arguments = parser.parse_args()
    rows: list[Row] = []
    for size, preset, clip, idle in ROWS:
        port = free_port(socket.SOCK_DGRAM)
        with (
            tempfile.TemporaryDirectory() as name,
            strip_source(f"udp://127.0.0.1:{port}?pkt_size=1316", 25, size, "still" if idle else clip),
        ):
            supervise = SupervisorProcess(Path(name))
            settings = {"motion.gate": True, "motion.hold_s": 2.0} if idle else {}
            camera = {"source": f"udp://127.0.0.1:{port}", "to": ("rec/",), "preset": preset, "set": settings}
            try:
                supervise("add", "cam", camera)
                wait_live(supervise, "cam")
                time.sleep(SETTLE_S)
                before, one = process_figures(supervise.process.pid), supervise("look")["cam"]
                camera_before = process_figures(one["pid"])
                time.sleep(arguments.seconds)
                after, one = process_figures(supervise.process.pid), supervise("look")["cam"]
                camera_after = process_figures(one["pid"])
                sizes = sum(path.stat().st_size for path in Path(name).rglob("*.mp4"))
                age = one["report"]["uptime_s"]
            finally:
                supervise.close()
        report = one["report"]
        all_cores = (after["cpu_s"] - before["cpu_s"]) / arguments.seconds
        own_cores = (camera_after["cpu_s"] - camera_before["cpu_s"]) / arguments.seconds
        gib_a_day = sizes / age * 86400 / 2**30
        print(f"{size} {preset} {'idle' if idle else clip}: {report['level_words']}, {report['faces']} faces")
        print(f"  camera and sinks {own_cores:.2f} cores, {camera_after['rss_mb']:.0f} MiB")
        print(f"  with restorer and server {all_cores:.2f} cores, {after['rss_mb']:.0f} MiB")
        print(f"  {report['fps_in']} fps in, {report['fps_out']} out, delay {report['delay']}")
        print(f"  {gib_a_day:.1f} GiB a day", flush=True)
        rows.append(
            {"picture": size, "preset": preset, "view": "nothing moves" if idle else "one face",
             "cores": all_cores, "memory": after["rss_mb"], "median": report["delay"]["median_ms"],
             "p95": report["delay"]["p95_ms"], "disk": gib_a_day, "level": str(report["level"])}
        )  # fmt: skip
    title = "One camera, H.264, 25 fps, recorded to disk"
    write_json(arguments.json, "sizing", [Table("cameras", title, COLUMNS, rows)])


if __name__ == "__main__":
    main()
