"""The coordinator of a fleet, an actor of the cluster: it finds nodes and leases the cameras to them."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from stream import __version__
from stream.errors import ClusterError
from stream.job.cluster import NAMESPACE
from stream.pipeline.processes import exit_process, start_thread
from stream.server.camera_config import CameraSettings, ServerSettings
from stream.server.fleet.actor_process import prepare_process
from stream.server.fleet.fleet_client import node_actor_name
from stream.server.fleet.fleet_messages import (
    CameraPlace,
    CoordinatorFacts,
    FleetEvent,
    NodePlace,
    NodeReport,
    Numbered,
    Overview,
    RenewalAnswer,
)
from stream.server.fleet.lease_book import LeaseBook
from stream.server.fleet.machines import ClusterMachine, machines
from stream.server.fleet.node import NODE_CONCURRENCY, FleetNode
from stream.server.fleet.state_folder import StateFolder

LOG = logging.getLogger(__name__)
COORDINATOR_CONCURRENCY = 64
"""Calls at a time; each takes far less than a millisecond."""
_TICK_S = 0.25
_FIND_S = 2.0
"""Pause between two looks at the machines of the cluster."""
_EVENTS = 1000


class Coordinator:
    """The actor. Its decisions are those of `LeaseBook`; it saves them, and talks to the nodes.

    Ray starts it again if its process or its machine dies; it takes up the state in its folder. Where the
    network was cut, an earlier one may still run: it ends as soon as it sees that it was replaced.
    """

    def __init__(self, state: str, server: ServerSettings) -> None:
        """`state`: folder of the state; `server`: with absolute paths. Errors are told by `hello`."""
        prepare_process()
        self._state, self._server, self._failure = state, server, ""
        self._lock = threading.Lock()
        """Held while the book is used; never while anything is waited for."""
        self._saving = threading.Lock()
        self._saved_version = 0
        self._handles: dict[str, Any] = {}
        """By machine, the actor of its node."""
        self._events: deque[tuple[int, FleetEvent]] = deque(maxlen=_EVENTS)
        self._machine_count = 0
        self._ended = threading.Event()
        try:
            self._folder = StateFolder(Path(state))
            self._book = LeaseBook(time.monotonic(), saved=self._folder.load())
        except ClusterError as error:
            self._failure = str(error)
            return
        start_thread("ticks", self._tick_until_end)
        start_thread("machines", self._find_until_end)

    # --- for nodes ---------------------------------------------------------------------------------

    def renew(self, report: NodeReport) -> RenewalAnswer:
        """Take a node's report, and say what it has to run."""
        with self._lock:
            answer = self._book.renew(report, time.monotonic())
        return answer

    # --- for the dashboard -------------------------------------------------------------------------

    def hello(self) -> CoordinatorFacts:
        """Who this is."""
        return CoordinatorFacts(__version__, self._state, self._server.data, self._failure)

    def set_all(self, cameras: Mapping[str, CameraSettings]) -> None:
        """Have exactly these cameras; those that have not changed run on."""
        with self._lock:
            self._book.set_all(cameras)
        self._save()

    def put(self, name: str, settings: CameraSettings, passing: bool, restart: bool) -> None:
        """Add a camera or change its settings: see `LeaseBook.put`."""
        with self._lock:
            self._book.put(name, settings, passing=passing, restart=restart)
        self._save()

    def remove(self, name: str) -> None:
        """Begin to remove a camera; it is in the overview until it has ended."""
        with self._lock:
            self._book.remove(name)
        self._save()

    def overview(self, version: int, event: int) -> Overview:
        """The fleet now. `version`: of the cameras that the caller knows; `event`: the last one it has."""
        now_s = time.monotonic()
        with self._lock:
            book = self._book
            nodes = tuple(self._node_places(now_s))
            cameras = None if version == book.version else dict(self._camera_places())
            waits = {one.name: one.waits for one in book.cameras.values() if one.waits}
            newest = self._events[-1][0] if self._events else 0
            events = tuple(one for number, one in self._events if number > event)
            return Overview(self._folder.term, book.version, nodes, cameras, waits, Numbered(newest, events))

    def end(self) -> None:
        """End all nodes with their cameras, and forget the leases. The actor itself is to be killed then."""
        self._ended.set()
        calls = [handle.stop.remote() for handle in self._handles.values()]
        with contextlib.suppress(ray.exceptions.RayError):
            ray.wait(calls, num_returns=len(calls), timeout=20) if calls else None
        for handle in self._handles.values():
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(handle)
        self._save()

    # --- internals ---------------------------------------------------------------------------------

    def _node_places(self, now_s: float) -> list[NodePlace]:
        loads = self._book.loads()
        return [
            NodePlace(
                node=run.report.node, name=run.report.name, cores=run.report.cores, used=loads[name].used,
                silence_s=now_s - run.heard_s, problem=run.report.problem,
            )
            for name, run in self._book.runs.items()
            if name in loads
        ]  # fmt: skip

    def _camera_places(self) -> list[tuple[str, CameraPlace]]:
        places = []
        for name, one in self._book.cameras.items():
            lease = one.lease
            run = self._book.runs.get(lease.run) if lease is not None else None
            node = run.report.node if run is not None and run.known else ""
            number = lease.number if lease is not None else 0
            places.append((name, CameraPlace(one.settings, one.passing, node, number)))
        return places

    def _tick_until_end(self) -> None:
        """Body of a thread: decide, save, and only then tell the nodes."""
        number = 0
        while not self._ended.wait(_TICK_S):
            if self._folder.is_superseded():
                LOG.warning("fleet: another coordinator has taken over; this one ends")
                exit_process(0)
            with self._lock:
                now_s = time.monotonic()
                self._book.expect(self._machine_count, now_s)
                changed = self._book.tick(now_s)
                nodes = [self._book.runs[run].report.node for run in changed]
                for event in self._book.take_events():
                    number += 1
                    self._events.append((number, event))
                    LOG.info("%s %s: %s", event.camera or "fleet", event.kind, event.text)
            self._save()
            for node in nodes:
                if (handle := self._handles.get(node)) is not None:
                    handle.wake.remote()

    def _save(self) -> None:
        """Save the book if it has changed. Its new leases are shown to nodes only afterwards."""
        with self._saving:
            with self._lock:
                version = self._book.version
                if version == self._saved_version:
                    return
                saved = self._book.to_saved()
            try:
                self._folder.save(saved)
            except ClusterError as error:  # tried again at the next tick; leases that are shown go on
                LOG.warning("fleet: %s", error)
                return
            self._saved_version = version
            with self._lock:
                self._book.mark_saved(saved)

    def _find_until_end(self) -> None:
        """Body of a thread: give every machine of the cluster its node."""
        while True:
            try:
                found = machines()
                for machine in found:
                    self._start_node(machine)
                self._machine_count = len(found)
            except (ray.exceptions.RayError, ConnectionError, ValueError, RuntimeError) as error:
                LOG.warning("fleet: the machines cannot be listed (%s)", " ".join(str(error).split())[:200])
            if self._ended.wait(_FIND_S):
                return

    def _start_node(self, machine: ClusterMachine) -> None:
        """Start a machine's node, or find the one that runs there, unless it reports already."""
        with self._lock:
            heard = {run.report.node for run in self._book.runs.values() if run.known}
        if machine.id in heard and machine.id in self._handles:
            return
        place = NodeAffinitySchedulingStrategy(machine.id, soft=False)
        options = {
            "name": node_actor_name(machine.id), "namespace": NAMESPACE, "lifetime": "detached",
            "get_if_exists": True, "num_cpus": 0, "max_restarts": -1, "max_task_retries": 0,
            "max_concurrency": NODE_CONCURRENCY, "scheduling_strategy": place,
        }  # fmt: skip
        self._handles[machine.id] = (
            ray.remote(FleetNode).options(**options).remote(machine, self._server, __version__)
        )
