"""Segments restored by a real Ray cluster of three machines on this one: the bytes of one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from films import film, packets_sha256
from waiting import until

from stream import Options, Status, load_config, restore_file
from stream.errors import ClusterError, EncodeError, PlanError
from stream.job.executors import ray_executor
from stream.job.executors.segment_worker import Beat, WorkerSettings, restore_segment
from stream.job.outlook import job_status
from stream.job.segments.work_folder import WorkFolder
from stream.media.claim import OutputClaim

pytestmark = pytest.mark.timeout(500)
CONFIG = load_config("fast", None, ["restore.precision=fp32"])
SEGMENT_S = 2.0


@pytest.fixture(scope="module")
def movie(tmp_path_factory):
    path = tmp_path_factory.mktemp("movie") / "film.mp4"
    return film(path, frames=120, cuts=(80, 100), options={"preset": "ultrafast"})


@pytest.fixture(scope="module")
def expected(movie, tmp_path_factory):
    """The packets that one process gives."""
    path = tmp_path_factory.mktemp("alone") / "out.mp4"
    restore_file(movie, path, CONFIG, options=Options(segment_s=SEGMENT_S))
    return packets_sha256(path)


@pytest.fixture(scope="module")
def cluster():
    """Three nodes of one core each; their address."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    for _ in range(2):
        cluster.add_node(**node)
    cluster.wait_for_nodes()
    yield cluster.address
    cluster.shutdown()


def options(address, **changes):
    return Options(segment_s=SEGMENT_S, on=address, **changes)


def busy_worker(folder, but=0):
    """The number of a process that is in the middle of a segment, other than `but`; 0: none is."""
    for lease in folder.glob("*.lease"):
        try:
            beat = Beat.model_validate_json(lease.read_bytes())
        except (OSError, ValueError):
            continue
        process = int(beat.worker.rpartition(":")[2])
        if beat.frames_in > 5 and process != but:
            return process
    return 0


def run_and(movie, target, given, action):
    """Restore in a thread of its own, and do `action` meanwhile; the outcome."""
    outcomes = []
    thread = threading.Thread(
        target=lambda: outcomes.append(restore_file(movie, target, CONFIG, options=given))
    )
    thread.start()
    try:
        action()
    finally:
        thread.join()
    return outcomes[0]


def test_three_workers_give_the_bytes_of_one_process(movie, expected, cluster, tmp_path):
    target, seen = tmp_path / "out.mp4", []
    outcome = restore_file(movie, target, CONFIG, options=options(cluster), progress=seen.append)
    assert outcome.status is Status.COMPLETE and packets_sha256(target) == expected
    workers = {segment["worker"] for segment in outcome.report["segments"]}
    assert len(workers) > 1 and max(done.workers for done in seen) > 1
    assert seen[-1].segments_done == seen[-1].segments_total == len(outcome.report["segments"])
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_a_worker_that_is_killed_and_one_that_hangs_cost_their_segments_only(
    movie, expected, cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr(ray_executor, "_LEASE_S", 8.0)
    target, harmed = tmp_path / "out.mp4", []
    folder = WorkFolder(target).path

    def harm():
        harmed.append(until(lambda: busy_worker(folder)))
        os.kill(harmed[0], signal.SIGKILL)
        harmed.append(until(lambda: busy_worker(folder, but=harmed[0])))
        os.kill(harmed[1], signal.SIGSTOP)

    run_and(movie, target, options(cluster), harm)
    assert packets_sha256(target) == expected
    until(lambda: not _runs(harmed[1]))


def _runs(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_driver_that_is_killed_is_started_again(movie, expected, cluster, tmp_path):
    target = tmp_path / "out.mp4"
    command = [sys.executable, "-m", "stream.cli", "restore", movie, target, "--preset=fast", "--segment=2"]
    command += ["--set=restore.precision=fp32", "--on", cluster]
    driver = subprocess.Popen([*map(str, command)], stderr=subprocess.DEVNULL)
    until(lambda: driver.poll() is not None or list(WorkFolder(target).path.glob("0????.json")), 300)
    driver.kill()
    driver.wait()
    assert job_status(target).segments_done >= 1
    outcome = restore_file(movie, target, CONFIG, options=options(cluster))
    assert any(segment["earlier"] for segment in outcome.report["segments"])
    assert packets_sha256(target) == expected


def test_a_second_driver_is_refused(movie, cluster, tmp_path):
    target = tmp_path / "out.mp4"
    with OutputClaim(target), pytest.raises(EncodeError, match=r"is being written by another run \(process"):
        restore_file(movie, target, CONFIG, options=options(cluster))


@pytest.mark.parametrize("allowed", [False, True])
def test_a_machine_that_computes_other_bits_is_refused_unless_it_is_allowed(movie, tmp_path, allowed):
    """The worker's own code, in this process: the plan was made where other instructions are known."""
    target = tmp_path / "out.mp4"
    restore_file(movie, target, CONFIG, options=Options(segment_s=SEGMENT_S, keep_segments=True))
    folder = WorkFolder(target)
    plan = folder.read_plan()
    machine = plan.machine | {"instructions": "abacus"}
    folder.begin(plan.model_copy(update={"machine": machine}))
    worker = WorkerSettings(1, allowed)
    if allowed:
        restore_segment(str(target), 2, "lease", worker)
        assert folder.receipt(plan.segments[2]) is not None
    else:
        with pytest.raises(PlanError, match=r"instructions is .*, was abacus; leave this machine out"):
            restore_segment(str(target), 2, "lease", worker)


def test_a_cluster_without_room_is_told(movie, cluster, tmp_path):
    with pytest.raises(ClusterError, match="no machine of the cluster has 64 cores, the largest has 1"):
        restore_file(movie, tmp_path / "out.mp4", CONFIG, options=options(cluster, worker_cores=64))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("skew_s", [-60, 60])
def test_a_worker_whose_clock_is_a_minute_off_is_as_good_as_another(tmp_path, skew_s):
    """Only whether its lease changes counts, never the time that the file or the worker tells."""
    attempt = ray_executor.Attempt(segment=None, lease=tmp_path / "lease", task=None)
    for count in (1, 2):
        attempt.lease.write_text(Beat(count=count, frames_in=count).model_dump_json())
        os.utime(attempt.lease, times=(time.time() + skew_s,) * 2)
        attempt.renew()
        assert attempt.beat.count == count and not attempt.is_silent()
