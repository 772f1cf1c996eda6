"""What 1,000 cameras and an archive of 10,000 hours take: measured cost, multiplied.

    python -m tests.bench.bench_scaling [--json FILE]

`docs/bench/sizing.json` has the cost of a camera, `docs/bench/pipeline.json` the frames a second of a film on
two cores, `docs/bench/segments.json` what a plan and Ray add. Nothing is measured here. What a large fleet
loses to failing nodes is simulated by `bench_fleet_simulation.py`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from stream.lab.bench.report import Row, Table
from tests.bench.live_tools import ROOT, add_json_option, write_json

CAMERAS, NODES, NODE_CORES = 1000, 100, 16
FULL = 0.8
"""Load up to which a node is filled."""
ARCHIVE_HOURS, RATE = 10_000, 25
INPUT_MBPS = 5.0
"""Assumed bit rate of the archive."""


def rows_of(name: str, table: str) -> list[Mapping[str, Any]]:
    report = json.loads((ROOT / "docs" / "bench" / f"{name}.json").read_text())
    return next(one["rows"] for one in report["tables"] if one["name"] == table)


def camera_rows() -> list[Row]:
    """1,000 cameras at 640x360, preset fast, by the share of the time in which they show a face."""
    of = {row["view"]: row for row in rows_of("sizing", "cameras") if row["picture"] == "640x360"
          and row["preset"] == "fast"}  # fmt: skip
    face, idle = of["one face"], of["nothing moves"]
    rows: list[Row] = []
    for share in (0.05, 0.2, 1.0):
        mix = {
            key: CAMERAS * (idle[key] + share * (face[key] - idle[key]))
            for key in ("cores", "memory", "disk")
        }
        nodes = -(-mix["cores"] // (NODE_CORES * FULL))
        rows.append(
            {
                "share": f"{share:.0%}",
                "cores": round(mix["cores"]),
                "nodes": int(nodes),
                "memory": round(mix["memory"] / 1024),
                "disk": round(mix["disk"] / 1024, 2),
                "network": round(mix["disk"] * 8 * 2**30 / 86_400 / 1e9, 2),
            }
        )
    return rows


def archive_rows() -> list[Row]:
    """10,000 hours at 1280x720 with a face in every frame."""
    speed = {
        row["side"]: row["fps"] for row in rows_of("pipeline", "speed") if row["model"] == "gpen-lite-256"
    }
    plan = rows_of("segments", "plan")[0]["wall"] * rows_of("segments", "ray")[0]["wall"]
    rows: list[Row] = []
    for side in ("every frame", "fast"):
        core_hours = ARCHIVE_HOURS * 3600 * RATE * plan / (speed[side] / 2) / 3600
        rows.append(
            {
                "side": side,
                "core_hours": round(core_hours),
                "days": round(core_hours / (NODES * NODE_CORES) / 24, 1),
                "segments": ARCHIVE_HOURS * 60,
                "input": round(ARCHIVE_HOURS * 3600 * INPUT_MBPS / 8 / 1e6, 1),
                "network": round(INPUT_MBPS * ARCHIVE_HOURS * NODES * NODE_CORES / core_hours / 1e3 * 2, 2),
            }
        )
    return rows


def main() -> None:
    """Multiply, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_json_option(parser)
    arguments = parser.parse_args()
    tables = [
        Table(
            "cameras",
            f"{CAMERAS:,} cameras at 640x360 and 25 fps, preset fast; "
            f"nodes of {NODE_CORES} cores filled to {FULL:.0%}",
            {
                "share": "time with a face",
                "cores": "cores",
                "nodes": "nodes",
                "memory": "memory if each camera had a restorer of its own, GiB",
                "disk": "recordings, TiB a day",
                "network": "recordings, Gbit/s",
            },
            camera_rows(),
        ),
        Table(
            "archive",
            f"{ARCHIVE_HOURS:,} hours at 1280x720 and 25 fps, a face in every frame",
            {
                "side": "preset",
                "core_hours": "core-hours",
                "days": f"days on {NODES} nodes of {NODE_CORES} cores",
                "segments": "segments",
                "input": f"input at {INPUT_MBPS:g} Mbit/s, TB",
                "network": "reading and writing, Gbit/s",
            },
            archive_rows(),
        ),
    ]
    for table in tables:
        print(table.title)
        for row in table.rows:
            print("  ", ", ".join(f"{table.columns[key]}: {value}" for key, value in row.items()))
    write_json(arguments.json, "scaling", tables)


if __name__ == "__main__":
    main()
