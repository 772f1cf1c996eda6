"""The machines of a Ray cluster, as places for cameras."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import ray


@dataclass(frozen=True, slots=True)
class ClusterMachine:
    """A machine of the cluster that is alive."""

    id: str
    """Ray's identity of it."""
    name: str
    """For people; unique in the cluster."""
    cores: float
    """Cores that it has given to Ray: `ray start --num-cpus`."""
    is_head: bool


def machines() -> list[ClusterMachine]:
    """All machines that are alive. Those without cores are left out: cameras are not wanted there."""
    alive = [one for one in ray.nodes() if one["Alive"]]
    names = [_name_of(one) for one in alive]
    count = Counter(names)
    return [
        ClusterMachine(
            one["NodeID"],
            name if count[name] == 1 else f"{name}-{one['NodeID'][:6]}",
            float(one["Resources"].get("CPU", 0.0)),
            "node:__internal_head__" in one["Resources"],
        )
        for one, name in zip(alive, names, strict=True)
        if one["Resources"].get("CPU", 0.0) > 0
    ]


def head_id() -> str | None:
    """Identity of the cluster's head; None if it does not say."""
    for one in ray.nodes():
        if one["Alive"] and "node:__internal_head__" in one["Resources"]:
            return str(one["NodeID"])
    return None


def _name_of(node: dict[str, object]) -> str:
    """The name that was given to `ray start --node-name`, or the host's."""
    given, address = str(node.get("NodeName") or ""), str(node.get("NodeManagerAddress") or "")
    host = str(node.get("NodeManagerHostname") or address)
    return given if given and given != address else host
