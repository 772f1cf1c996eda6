"""A fleet's beginning: its coordinator is started in the cluster, or found there."""

from __future__ import annotations

from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from stream import __version__
from stream.errors import ClusterError
from stream.job.cluster import NAMESPACE
from stream.server.camera_config import ServerSettings
from stream.server.fleet.coordinator import COORDINATOR_CONCURRENCY, Coordinator
from stream.server.fleet.fleet_client import COORDINATOR_NAME, CoordinatorClient
from stream.server.fleet.machines import head_id

_START_S = 60.0
"""Longest wait for the coordinator's process."""
_CALL_S = 5.0


def start_fleet(state: Path, server: ServerSettings) -> CoordinatorClient:
    """Start the coordinator, or find the one that runs.

    It survives this process. It runs on the cluster's head if that is alive: other machines' deaths do not
    touch it there. Raises ClusterError if it cannot work, or works for other folders or another version.
    """
    # Nodes have other working folders: all paths are absolute.
    server = server.model_copy(
        update={"data": str(server.data_folder), "files": str(server.files_folder), "webhook": None}
    )
    head = head_id()
    place = NodeAffinitySchedulingStrategy(head, soft=True) if head is not None else "DEFAULT"
    options = {
        "name": COORDINATOR_NAME, "namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True,
        "num_cpus": 0, "max_restarts": -1, "max_task_retries": 0,
        "max_concurrency": COORDINATOR_CONCURRENCY, "scheduling_strategy": place,
    }  # fmt: skip
    try:
        handle = ray.remote(Coordinator).options(**options).remote(str(state), server)
    except (ray.exceptions.RayError, ConnectionError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ClusterError(f"the fleet's coordinator cannot be started ({reason})") from None
    client = CoordinatorClient(_CALL_S)
    hello = client.hello(_START_S)
    if hello.failure:
        ray.kill(handle)
        raise ClusterError(hello.failure)
    if hello.version != __version__:
        raise ClusterError(
            f"the fleet runs gpen-stream {hello.version}, this is {__version__}; end it with "
            "gpen-stream serve --on ADDRESS --end, and start it again"
        )
    for key, theirs, ours in (("state", hello.state, str(state)), ("data", hello.data, server.data)):
        if theirs != ours:
            raise ClusterError(
                f"--{key} {ours}: the fleet that runs uses {theirs}; name that, or end the fleet with --end"
            )
    return client


def end_fleet() -> None:
    """End all cameras, nodes and the coordinator. Raises ClusterError if no fleet runs in the cluster."""
    try:
        ray.get_actor(COORDINATOR_NAME, namespace=NAMESPACE)
    except ValueError:
        raise ClusterError("no fleet of cameras runs in this cluster") from None
    CoordinatorClient(_CALL_S).end()
