"""A fleet on a real cluster: nodes and coordinators that die and hang, a dashboard that comes and goes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import ray
from fleets import TestFleet, camera, check_recordings, is_gone, parent_of, running_fleet
from waiting import until

from stream.errors import ClusterError, ConfigError, NotFoundError
from stream.job.cluster import NAMESPACE
from stream.live.session.live_settings import LiveSettings
from stream.server.camera_config import load_cameras
from stream.server.fleet.fleet_client import COORDINATOR_NAME
from stream.server.fleet.fleet_start import start_fleet

SIX = tuple(f"camera-{number}" for number in range(6))
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with running_fleet(tmp_path_factory.mktemp("fleet"), nodes=3) as made:
        yield made


def data(fleet: TestFleet) -> Path:
    return fleet.server.data_folder


def recording(fleet: TestFleet, statuses) -> None:
    """Wait until every camera has recorded under its present lease."""
    for name in statuses:
        until(lambda name=name: fleet.supervisor.lease(name) in leases_by_name(fleet, name))


def leases_by_name(fleet: TestFleet, name: str) -> set[int]:
    """Lease numbers in the names of a camera's recordings that have a picture."""
    found = set()
    for path in (data(fleet) / name).glob("*.mp4"):
        if path.stat().st_size > 5000:
            found.add(int(path.stem.partition("Z-L")[2].partition("-")[0]))
    return found


def test_cameras_run_on_all_nodes_and_outlive_the_dashboard(fleet):
    fleet.open_dashboard(*SIX)
    before = fleet.live(*SIX)
    places = [one.node for one in before.values()]
    assert sorted(places.count(name) for name in fleet.machines) == [2, 2, 2]
    nodes = fleet.supervisor.nodes()
    assert [node.name for node in nodes] == sorted(fleet.machines)
    assert all(node.cores == 2 and len(node.cameras) == 2 and node.restorer.pid for node in nodes)
    assert fleet.supervisor.restorer().pid and fleet.supervisor.is_ready()

    fleet.open_dashboard(*SIX)
    after = fleet.live(*SIX)
    assert {name: one.pid for name, one in before.items()} == {name: one.pid for name, one in after.items()}


def test_pictures_come_from_a_node_while_somebody_watches(fleet):
    supervisor = fleet.open_dashboard(*SIX)
    fleet.live(*SIX)
    with supervisor.watch("camera-0", "restored") as viewer:
        assert until(lambda: viewer.next(5)).data[:2] == b"\xff\xd8"
    until(lambda: not supervisor._pictures._running)
    with pytest.raises(ConfigError, match="no preview"), supervisor.watch("camera-0", "x-ray"):
        pass
    with pytest.raises(NotFoundError), supervisor.watch("attic", "restored"):
        pass
    result = supervisor.test_source("test:")
    assert result.ok and result.jpeg[:2] == b"\xff\xd8"


def test_cameras_are_changed_added_and_removed_while_others_run(fleet):
    supervisor = fleet.open_dashboard(*SIX)
    before = fleet.live(*SIX)
    supervisor.change("camera-0", LiveSettings(strength=0.25))
    until(lambda: (now := supervisor.camera("camera-0").report) and now.settings.strength == 0.25)
    assert supervisor.camera("camera-0").pid == before["camera-0"].pid
    assert load_cameras(fleet.path).cameras["camera-0"].set["restore.strength"] == 0.25
    with pytest.raises(ConfigError, match="fastest"):
        supervisor.change("camera-0", LiveSettings(preset="fastest"))

    with pytest.raises(ConfigError, match=r"cameras\.attic\.to: camera-1/ is camera camera-1's"):
        supervisor.add("attic", camera("camera-1"))
    supervisor.add("attic", camera("attic"))
    with pytest.raises(ConfigError, match="there is such a camera already"):
        supervisor.add("attic", camera("attic"))
    pid = fleet.live("attic")["attic"].pid
    supervisor.replace("attic", camera("attic", preset="fast"))
    until(lambda: fleet.live("attic")["attic"].pid != pid)
    assert fleet.live("attic")["attic"].report.settings.preset == "fast"
    pid = fleet.live("attic")["attic"].pid
    supervisor.remove("attic")
    assert is_gone(pid)
    with pytest.raises(NotFoundError):
        supervisor.camera("attic")
    assert set(load_cameras(fleet.path).cameras) == set(SIX)
    after = fleet.live(*SIX)
    assert all(after[name].pid == before[name].pid for name in SIX)
    supervisor.replace("camera-0", camera("camera-0"))
    until(lambda: fleet.live("camera-0")["camera-0"].pid != before["camera-0"].pid)


def test_a_coordinator_that_is_killed_starts_again_and_interrupts_nothing(fleet):
    supervisor = fleet.open_dashboard(*SIX)
    before = fleet.live(*SIX)
    term = supervisor._view._term
    ray.kill(ray.get_actor(COORDINATOR_NAME, namespace=NAMESPACE), no_restart=False)
    until(lambda: supervisor._view._term > term)
    after = fleet.live(*SIX)
    assert {name: one.pid for name, one in before.items()} == {name: one.pid for name, one in after.items()}


def test_the_cameras_of_a_node_that_dies_run_elsewhere_and_never_twice(fleet):
    supervisor = fleet.open_dashboard(*SIX)
    before = fleet.live(*SIX)
    recording(fleet, before)
    victim = before["camera-0"].node
    lost = [name for name, one in before.items() if one.node == victim]
    fleet.kill_node(victim)
    until(lambda: all(is_gone(before[name].pid) for name in lost))
    until(lambda: victim not in {node.name for node in supervisor.nodes()})
    after = fleet.live(*SIX)
    assert all(after[name].node != victim for name in SIX)
    assert all(after[name].pid == before[name].pid for name in SIX if name not in lost)
    recording(fleet, after)
    assert "node_lost" in fleet.kinds()
    found = check_recordings(data(fleet))
    assert all(len(found[name]) >= 2 for name in lost)
    fleet.add_node()
    until(lambda: len(supervisor.nodes()) == 3)


def test_a_node_that_hangs_loses_its_cameras_and_runs_none_of_them_when_it_wakes_up(fleet):
    supervisor = fleet.open_dashboard(*SIX)
    before = fleet.live(*SIX)
    recording(fleet, before)
    hanging = before["camera-0"].node
    lost = [name for name, one in before.items() if one.node == hanging]
    node = parent_of(before["camera-0"].pid)
    os.kill(node, signal.SIGSTOP)
    try:
        until(lambda: all(is_gone(before[name].pid) for name in lost))
        assert not is_gone(node)
        after = fleet.live(*SIX)
        assert all(after[name].node != hanging for name in SIX)
    finally:
        os.kill(node, signal.SIGCONT)
    until(lambda: hanging in {node.name for node in supervisor.nodes() if node.state == "up"})
    again = fleet.live(*SIX)
    assert {name: one.pid for name, one in again.items()} == {name: one.pid for name, one in after.items()}
    recording(fleet, again)
    check_recordings(data(fleet))


def test_the_cameras_of_a_node_whose_process_is_killed_end_with_it_and_run_again(fleet):
    fleet.open_dashboard(*SIX)
    before = fleet.live(*SIX)
    node = parent_of(before["camera-1"].pid)
    held = [name for name, one in before.items() if parent_of(one.pid) == node]
    os.kill(node, signal.SIGKILL)
    until(lambda: all(is_gone(before[name].pid) for name in held))
    until(lambda: all(fleet.live(*SIX)[name].pid != before[name].pid for name in held))
    recording(fleet, held)
    check_recordings(data(fleet))


def test_a_fleet_that_runs_refuses_other_folders(fleet):
    with pytest.raises(ClusterError, match=r"--state .*: the fleet that runs uses .*; name that, or end"):
        start_fleet(fleet.state.with_name("other"), fleet.server)


def test_without_nodes_all_cameras_wait_and_say_so(fleet):
    supervisor = fleet.open_dashboard(*SIX)
    fleet.live(*SIX)
    for node in supervisor.nodes():
        fleet.kill_node(node.name)
    words = "waits for a node: none can run cameras"
    until(lambda: {one.words for one in supervisor.cameras()} == {words})
    assert {one.process for one in supervisor.cameras()} == {"waiting"} and not supervisor.nodes()
    assert not supervisor.is_ready()
    with pytest.raises(ClusterError, match="no node has joined that could test the source"):
        supervisor.test_source("test:")
