"""The time from SIGTERM to the end of `gpen-stream serve`, which promises to finish all outputs within 10 s.

    python -m tests.bench.bench_stop [--rounds 5] [--json FILE]

Two cameras restore the test picture and record it as mp4. The server is stopped in four situations: while the
network is loaded, while both cameras run, while the process of one camera is frozen (SIGSTOP), and while the
receiver of one output is frozen. Each recording must be playable afterwards, but for that of a frozen camera.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av

from stream.lab.bench.report import Row, Table
from tests.bench.live_tools import ROOT, add_json_option, write_json
from tests.servers import Mount, rtsp_server, wait_for

SITUATIONS = {
    "loading": "the network is being loaded",
    "running": "both cameras run",
    "frozen camera": "a camera's process is frozen",
    "frozen receiver": "an output's receiver is frozen",
}
SETTLE_S = 3.0


class ServerProcess:
    """`gpen-stream serve` in a folder of its own, with its address once it listens."""

    def __init__(self, folder: Path, outputs: dict[str, list[str]]) -> None:
        cameras = {
            name: {"source": "test:", "preset": "fast", "to": [f"{name}/", *to]}
            for name, to in outputs.items()
        }
        file = {"server": {"data": str(folder / "data"), "port": 0}, "cameras": cameras}
        (folder / "cameras.yaml").write_text(json.dumps(file))
        self._log = folder / "log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stream.cli", "serve", "--config", str(folder / "cameras.yaml")],
                cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=log, stderr=log,
            )  # fmt: skip
        wait_for(lambda: self._address() or self.process.poll() is not None)
        self.address = self._address()
        assert self.address, self._log.read_text()

    def _address(self) -> str:
        found = re.search(r"dashboard: (http://[^ ]*?:\d+)/", self._log.read_text())
        return found[1] if found else ""

    def cameras(self) -> list[dict]:
        """The statuses of all cameras."""
        with urllib.request.urlopen(f"{self.address}/api/cameras", timeout=30) as answer:
            return json.load(answer)

    def are_live(self) -> bool:
        """Whether every camera has restored faces."""
        return all((one["report"] or {}).get("faces_restored", 0) > 5 for one in self.cameras())

    def stop_s(self) -> float:
        """Send SIGTERM; the seconds to the end of the process. Its exit code must be 0."""
        began_s = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        assert code == 0, self._log.read_text()
        return time.monotonic() - began_s


@contextmanager
def server_in(folder: Path, outputs: dict[str, list[str]]) -> Iterator[ServerProcess]:
    """A server that is killed at the end of the block if it still runs."""
    server = ServerProcess(folder, outputs)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def stopped(situation: str) -> float:
    """Start a server, bring the situation about, and stop the server; the seconds that it needed."""
    with (
        tempfile.TemporaryDirectory() as name,
        rtsp_server({"out": Mount(record=True)}) as receiver,
    ):
        folder = Path(name)
        frozen = situation == "frozen receiver"
        with server_in(folder, {"door": [receiver.url("out")] if frozen else [], "yard": []}) as server:
            if situation != "loading":
                wait_for(server.are_live)
                time.sleep(SETTLE_S)
            if situation == "frozen camera":
                os.kill(next(one["pid"] for one in server.cameras() if one["name"] == "door"), signal.SIGSTOP)
            if frozen:
                receiver.stop()
                time.sleep(SETTLE_S)
            seconds = server.stop_s()
            if frozen:
                receiver.cont()
        check_recordings(folder / "data", {"yard"} if situation == "frozen camera" else {"door", "yard"})
    return seconds


def check_recordings(data: Path, cameras: set[str]) -> None:
    """Raise AssertionError if a camera has left a recording that cannot be decoded."""
    for camera in cameras:
        for path in (data / camera).glob("*.mp4"):
            with av.open(str(path)) as container:
                assert any(True for _ in container.decode(video=0)), path


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    add_json_option(parser)
    arguments = parser.parse_args()
    rows: list[Row] = []
    for situation, shown in SITUATIONS.items():
        times_s = [stopped(situation) for _ in range(arguments.rounds)]
        rows.append({"situation": shown, "median": statistics.median(times_s), "most": max(times_s)})
        print(f"{shown}: {', '.join(f'{one:.2f}' for one in times_s)} s", flush=True)
    columns = {"situation": "stopped while", "median": "ended after, s", "most": "at most, s"}
    write_json(arguments.json, "stop", [Table("stop", "End of the server after SIGTERM", columns, rows)])


if __name__ == "__main__":
    main()
