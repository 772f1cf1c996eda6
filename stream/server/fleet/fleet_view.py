"""What the dashboard knows of a fleet: it asks the coordinator and all nodes once a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from stream.errors import ClusterError
from stream.server.events import Events
from stream.server.fleet.fleet_client import CoordinatorClient, NodeClient, snapshots
from stream.server.fleet.fleet_messages import CameraPlace, NodePlace, NodeSnapshot, Overview
from stream.server.supervisor.camera_status import CameraStatus, NodeState, NodeStatus, RestorerStatus

_ANSWER_S = 1.5
"""Longest wait for the nodes' answers; one that hangs must not delay the others."""
_SILENT_S = 3.0
"""A node that has not renewed for this long is shown as silent."""


@dataclass(slots=True)
class _Seen:
    """A node, and its newest answer."""

    client: NodeClient
    snapshot: NodeSnapshot | None = None
    event: int = -1


class FleetView:
    """The newest state of coordinator and nodes. `refresh` is called from several threads."""

    def __init__(self, coordinator: CoordinatorClient, events: Events) -> None:
        """`events`: where the events of coordinator and nodes go."""
        self.places: Mapping[str, CameraPlace] = {}
        self.waits: Mapping[str, str] = {}
        self.reachable = False
        """Whether the coordinator has answered at last."""
        self._coordinator, self._events = coordinator, events
        self._nodes: dict[str, tuple[NodePlace, float]] = {}
        """By machine, with the time at which this was said."""
        self._seen: dict[str, _Seen] = {}
        self._term = self._version = self._event = -1
        self._refreshing = threading.Lock()

    def refresh(self) -> None:
        """Ask the coordinator. While it does not answer, the state before stays."""
        with self._refreshing:
            try:
                overview = self._coordinator.overview(self._version, self._event)
                if overview.term != self._term:  # another one: its numbers begin anew
                    event = -1 if self._term == -1 else 0
                    overview = self._coordinator.overview(-1, event)
            except ClusterError as error:
                if self.reachable:
                    self._events.add("", "coordinator_silent", f"{error}; cameras end if this lasts")
                self.reachable = False
                return
            self._take(overview)

    def ask_nodes(self) -> None:
        """Ask all nodes for their cameras; called once a second by one thread."""
        asked: list[tuple[_Seen, object]] = []
        for machine, (place, _) in list(self._nodes.items()):
            seen = self._seen.setdefault(machine, _Seen(NodeClient(machine, place.name)))
            try:
                asked.append((seen, seen.client.begin_snapshot(seen.event)))
            except ClusterError:
                seen.snapshot = None
        answers = snapshots([reference for _, reference in asked], _ANSWER_S) if asked else []
        for (seen, _), answer in zip(asked, answers, strict=True):
            self._take_snapshot(seen, answer)
        for machine in self._seen.keys() - self._nodes.keys():
            del self._seen[machine]

    def client(self, camera: str) -> NodeClient | None:
        """The node that runs a camera; None if none does."""
        place = self.places.get(camera)
        seen = self._seen.get(place.node) if place is not None else None
        return seen.client if seen is not None else None

    def any_client(self) -> NodeClient | None:
        """The node with the lowest load; None without nodes."""
        usable = [
            place for place, _ in self._nodes.values() if not place.problem and place.node in self._seen
        ]
        best = min(usable, key=lambda place: place.used / place.cores, default=None)
        return self._seen[best.node].client if best is not None else None

    def status(self, camera: str) -> CameraStatus | None:
        """What the camera's node says of it; None if it has none, or if that says nothing."""
        place = self.places.get(camera)
        seen = self._seen.get(place.node) if place is not None else None
        if seen is None or seen.snapshot is None:
            return None
        return next((one for one in seen.snapshot.cameras if one.name == camera), None)

    def node_name(self, camera: str) -> str:
        """Name of the node that holds the camera's lease; empty if none does."""
        place = self.places.get(camera)
        known = self._nodes.get(place.node) if place is not None else None
        return known[0].name if known is not None else ""

    def nodes(self) -> list[NodeStatus]:
        """The state of all nodes, by name."""
        now_s = time.monotonic()
        found = []
        for machine, (place, at_s) in self._nodes.items():
            silence_s = place.silence_s + now_s - at_s
            seen = self._seen.get(machine)
            snapshot = seen.snapshot if seen is not None else None
            cameras = sorted(name for name, one in self.places.items() if one.node == machine)
            state: NodeState = "up"
            words = "up"
            if place.problem:
                state, words = "unusable", place.problem
            elif silence_s > _SILENT_S:
                state, words = "silent", f"silent for {silence_s:.0f} s"
            found.append(
                NodeStatus(
                    place.name, state, words, place.cores, round(place.used, 2), tuple(cameras),
                    round(silence_s, 1), snapshot.restorer if snapshot is not None else None,
                )
            )  # fmt: skip
        return sorted(found, key=lambda one: one.name)

    def restorers(self) -> list[RestorerStatus]:
        """The restorers of all nodes that have answered at last."""
        answered = [seen.snapshot for seen in list(self._seen.values()) if seen.snapshot is not None]
        return [one.restorer for one in answered if one.restorer is not None]

    def _take(self, overview: Overview) -> None:
        now_s = time.monotonic()
        if overview.cameras is not None:
            self.places = overview.cameras
        self.waits, self.reachable = overview.waits, True
        self._nodes = {place.node: (place, now_s) for place in overview.nodes}
        if self._event >= 0 or overview.term != self._term != -1:
            for event in overview.events.items:
                self._events.add(event.camera, event.kind, event.text)
        self._term, self._version = overview.term, overview.version
        self._event = overview.events.last

    def _take_snapshot(self, seen: _Seen, answer: NodeSnapshot | None) -> None:
        before, seen.snapshot = seen.snapshot, answer
        if answer is None:
            return
        if before is not None and before.run != answer.run:
            seen.event = 0  # another process: all its events are new
            return
        for event in answer.events.items:
            text = event.text if event.camera else f"{seen.client.shown}: {event.text}"
            self._events.add(event.camera, event.kind, text)
        seen.event = answer.events.last
