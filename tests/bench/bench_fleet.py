"""How soon the cameras of a node that dies are live elsewhere.

    python -m tests.bench.bench_fleet [--kills 10] [--json FILE]

A cluster of three nodes on this machine runs six cameras that record. All of Ray's processes on one node are
killed, ten times; each time another node joins afterwards. Each recorded frame holds the time at which it was
drawn, so the recordings say when a camera was live again, and that no camera ran twice.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from stream.lab.bench.report import Row, Table
from tests.bench.live_tools import add_json_option, write_json

sys.path.append(str(Path(__file__).parent.parent))  # what the tests share imports it by short names
from fleets import TestFleet, check_recordings, leases, running_fleet
from waiting import until

CAMERAS = tuple(f"camera-{number}" for number in range(6))
RECORD_S = 8.0
"""Time for which cameras record before the next kill."""


def kill_and_measure(fleet: TestFleet) -> dict[str, float]:
    """Kill a node. By lost camera, the seconds until the first frame under its next lease."""
    before = fleet.live(*CAMERAS)
    time.sleep(RECORD_S)
    victim = before[CAMERAS[0]].node
    lost = [name for name, one in before.items() if one.node == victim]
    numbers = {name: fleet.supervisor.lease(name) for name in lost}
    killed_ms = time.monotonic() * 1000
    fleet.kill_node(victim)
    until(lambda: all(fleet.supervisor.lease(name) > numbers[name] for name in lost))
    fleet.live(*CAMERAS)
    time.sleep(RECORD_S)
    found = leases(fleet.server.data_folder)
    fleet.add_node()
    until(lambda: len(fleet.supervisor.nodes()) == 3)
    seconds = {}
    for name in lost:
        times = []
        for number, recordings in found[name].items():
            if number > numbers[name]:
                times += [min(recording) for recording in recordings]
        seconds[name] = (min(times) - killed_ms) / 1000
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10)
    add_json_option(parser)
    arguments = parser.parse_args()
    rows: list[Row] = []
    everything: list[float] = []
    with tempfile.TemporaryDirectory() as folder, running_fleet(Path(folder), nodes=3) as fleet:
        fleet.open_dashboard(*CAMERAS)
        for number in range(1, arguments.kills + 1):
            seconds = list(kill_and_measure(fleet).values())
            everything += seconds
            rows.append(row(str(number), seconds))
            print(rows[-1], flush=True)
        fleet.close_dashboard()
        check_recordings(fleet.server.data_folder)
    rows.append(row("all", everything))
    print(rows[-1])
    columns = {
        "kill": "kill",
        "cameras": "cameras lost",
        "median_s": "live again after, median s",
        "worst_s": "after, at most s",
    }
    title = "A node of three is killed: when its cameras' next frame is recorded elsewhere"
    write_json(arguments.json, "fleet", [Table("kills", title, columns, rows)])


def row(name: str, seconds: list[float]) -> Row:
    """A row of the table."""
    return {
        "kill": name,
        "cameras": len(seconds),
        "median_s": round(statistics.median(seconds), 2),
        "worst_s": round(max(seconds), 2),
    }


if __name__ == "__main__":
    main()
