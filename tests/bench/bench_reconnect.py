"""The time until a session is live again after an outage, and its resources after ten outages.

    python -m tests.bench.bench_reconnect [--json FILE]

An RTSP server (GStreamer, one keyframe a second) is killed and started again on its port after outages of
half a second to twenty seconds. The time runs from the moment at which the server listens again to the
first new picture that the session delivers to its recording.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import av

from stream.lab.bench.report import Row, Table
from stream.pipeline.processes import ChildProcess
from tests.bench.bench_live import session_body
from tests.bench.live_tools import add_json_option, process_figures, write_json
from tests.servers import Mount, rtsp_server

OUTAGES_S = (0.5, 1, 2, 4, 6, 8, 10, 10, 14, 20)
SETTLE_S = 4.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_json_option(parser)
    arguments = parser.parse_args()
    again: list[Row] = []
    with rtsp_server({"live": Mount(size=(640, 360))}) as server, tempfile.TemporaryDirectory() as name:
        job = ChildProcess("bench session", session_body, server.url("live"), [f"{name}/"], "fast", [])

        def report() -> dict:
            job.link.send(("report", None))
            return job.link.recv()

        def wait_beyond(frames: int) -> None:
            while report()["frames_out"] <= frames:
                time.sleep(0.02)

        wait_beyond(50)
        time.sleep(SETTLE_S)
        rows = []
        try:
            for outage_s in OUTAGES_S:
                server.kill()
                time.sleep(outage_s)
                before = report()["frames_out"]
                server.start()
                listening_s = time.monotonic()
                wait_beyond(before)
                live_s = time.monotonic() - listening_s
                time.sleep(SETTLE_S)
                rows.append(process_figures(job.pid))
                again.append({"outage": outage_s, "live": live_s})
                shown = {key: round(value, 1) for key, value in rows[-1].items()}
                print(f"outage {outage_s:g} s: live again after {live_s:.2f} s; {shown}", flush=True)
        finally:
            job.link.close()
            job.join(20)
        for key in ("rss_mb", "threads", "files"):
            first, most = rows[0][key], max(row[key] for row in rows)
            print(f"{key}: after the first {first:.1f}, most {most:.1f}: {most / first:.3f}")
        count = 0
        for path in sorted(Path(name).glob("*.mp4")):
            with av.open(str(path)) as container:
                times = [frame.pts for frame in container.decode(video=0)]
            assert times and times == sorted(set(times)), path
            count += len(times)
        columns = {"outage": "outage, s", "live": "live again after, s"}
        write_json(
            arguments.json, "reconnect", [Table("reconnect", "Live again after an outage", columns, again)]
        )
        print(f"{count} pictures in the recordings, all playable, times rising in each")


if __name__ == "__main__":
    main()
