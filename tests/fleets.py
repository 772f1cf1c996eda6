"""A Ray cluster of several nodes on this machine, with a fleet of cameras on it, and its recordings."""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import av
from ray.cluster_utils import Cluster
from waiting import until

from stream.job.cluster import connect
from stream.live.source import time_strip
from stream.live.status import ConnectionState
from stream.server.camera_config import CameraSettings, CamerasFile, ServerSettings
from stream.server.events import Events
from stream.server.fleet.fleet_start import start_fleet
from stream.server.fleet.fleet_supervisor import FleetSupervisor
from stream.server.supervisor.camera_status import CameraStatus

Result = TypeVar("Result")
STORE_BYTES = 80 * 2**20
CORES = 2


def camera(name: str, **settings) -> CameraSettings:
    """A small test picture, recorded with the time in each frame. Its face stays as it is, to spare cores."""
    small = {"source.size": "160x120", "source.rate": 5.0, "record.free_gb": 0.0}
    everywhere = ((0.0, 0.0, 1.0, 1.0),)
    return CameraSettings(source="test:", to=(f"{name}/",), set=small, exclude=everywhere, **settings)


def patiently(start: Callable[[], Result], attempts: int = 4) -> Result:
    """Start processes of Ray, which gives a machine half a minute for it; a busy one may need another try."""
    for attempt in range(attempts):
        try:
            return start()
        except Exception as error:
            if attempt + 1 == attempts or "startup" not in str(error):
                raise
    raise AssertionError


def new_cluster(**head) -> Cluster:
    """A cluster of one node on this machine."""
    head = {"include_dashboard": False, "object_store_memory": STORE_BYTES} | head
    return patiently(lambda: Cluster(initialize_head=True, head_node_args=head))


class TestFleet:
    """A cluster whose head runs no cameras, and nodes that do."""

    __test__ = False

    def __init__(self, folder: Path, nodes: int) -> None:
        self.cluster = new_cluster(num_cpus=0)
        self.server = ServerSettings(data=str(folder / "data"))
        self.state = folder / "state"
        self.machines = {}
        for _ in range(nodes):
            self.add_node()
        self.connection = connect(self.cluster.address, "test")
        self.coordinator = start_fleet(self.state, self.server)
        self.path = folder / "cameras.yaml"
        self.supervisor: FleetSupervisor | None = None

    def add_node(self) -> str:
        """Start another node; its name."""
        name = f"node-{len(self.machines)}"
        options = {"num_cpus": CORES, "object_store_memory": STORE_BYTES, "node_name": name}
        self.machines[name] = patiently(lambda: self.cluster.add_node(**options))
        return name

    def kill_node(self, name: str) -> None:
        """End all processes of Ray on a node by SIGKILL."""
        self.cluster.remove_node(self.machines[name], allow_graceful=False)

    def open_dashboard(self, *names: str) -> FleetSupervisor:
        """What the dashboard would run with these cameras; the one before is closed."""
        self.close_dashboard()
        file = CamerasFile(server=self.server, cameras={name: camera(name) for name in names})
        self.supervisor = FleetSupervisor(file, self.path, Events(), self.coordinator)
        self.supervisor.start()
        return self.supervisor

    def close_dashboard(self) -> None:
        if self.supervisor is not None:
            self.supervisor.stop()
            self.supervisor = None

    def live(self, *names: str) -> dict[str, CameraStatus]:
        """The states of these cameras, once all of them deliver pictures on nodes that are up."""

        def all_of_them() -> dict[str, CameraStatus] | None:
            up = {node.name for node in self.supervisor.nodes() if node.state == "up"}
            found = {one.name: one for one in self.supervisor.cameras() if one.name in names}
            good = [
                one
                for one in found.values()
                if one.node in up and one.report is not None and one.report.state is ConnectionState.LIVE
            ]
            return found if len(good) == len(names) else None

        return until(all_of_them)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.supervisor.events.since(0)]

    def close(self) -> None:
        self.close_dashboard()
        self.coordinator.end()
        self.connection.close()
        self.cluster.shutdown()


@contextmanager
def running_fleet(folder: Path, nodes: int) -> Iterator[TestFleet]:
    fleet = TestFleet(folder, nodes)
    try:
        yield fleet
    finally:
        fleet.close()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def is_gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def recorded_times(path: Path) -> list[int]:
    """The times in a recording's frames, ms; every frame has to be readable."""
    with av.open(str(path)) as video:
        times = [time_strip.read(frame.to_ndarray(format="gray")) for frame in video.decode(video=0)]
    assert times and None not in times, path
    return times


def leases(data: Path) -> dict[str, dict[int, list[list[int]]]]:
    """By camera and lease number, the times in each recording, ms."""
    found = defaultdict(lambda: defaultdict(list))
    for path in sorted(data.glob("*/*.mp4")):
        number = int(path.stem.partition("Z-L")[2].partition("-")[0])
        found[path.parent.name][number].append(recorded_times(path))
    return found


def check_recordings(data: Path) -> dict[str, dict[int, list[list[int]]]]:
    """Every recording can be read to its end, and no two leases of a camera recorded at the same time."""
    found = leases(data)
    for name, by_number in found.items():
        spans = []
        for number, recordings in by_number.items():
            times = [time for recording in recordings for time in recording]
            spans.append((min(times), max(times), number))
        for before, after in itertools.pairwise(sorted(spans)):
            assert before[1] < after[0], f"{name}: leases {before[2]} and {after[2]} at the same time"
            assert before[2] < after[2], f"{name}: the numbers do not rise"
    return found
