"""Typed calls to the actors of a fleet. Ray's errors become a ClusterError of one line."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from stream.errors import ClusterError, StreamError
from stream.job.cluster import NAMESPACE
from stream.live.packets import JpegPicture
from stream.live.session.live_settings import LiveSettings
from stream.server.camera_config import CameraSettings
from stream.server.fleet.fleet_messages import (
    CoordinatorFacts,
    NodeReport,
    NodeSnapshot,
    Overview,
    RenewalAnswer,
)
from stream.server.supervisor.source_test import SourceTestResult

COORDINATOR_NAME = "fleet coordinator"


def node_actor_name(machine_id: str) -> str:
    """Name of the actor on a machine."""
    return f"fleet node {machine_id}"


class ActorClient:
    """An actor by its name. Without an answer a call raises ClusterError; the next looks for it anew."""

    def __init__(self, actor: str, timeout_s: float, shown: str) -> None:
        """`shown`: what error messages call it."""
        self._actor, self._timeout_s, self.shown = actor, timeout_s, shown
        self._handle: Any = None
        self._lock = threading.Lock()

    def begin(self, method: str, *arguments: object) -> Any:
        """Begin a call; the answer's reference."""
        with self._lock:
            try:
                if self._handle is None:
                    self._handle = ray.get_actor(self._actor, namespace=NAMESPACE)
                return getattr(self._handle, method).remote(*arguments)
            except (ValueError, ray.exceptions.RayError, ConnectionError) as error:
                self._handle = None
                raise ClusterError(f"{self.shown}: does not run; {_line(error)}") from None

    def answer(self, reference: Any, timeout_s: float) -> Any:
        """The answer to a call. An error that the method raised for a user is raised here."""
        try:
            return ray.get(reference, timeout=timeout_s)
        except ray.exceptions.GetTimeoutError:
            raise ClusterError(f"{self.shown}: does not answer; try again in a moment") from None
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, StreamError):
                raise error.cause from None
            raise ClusterError(f"{self.shown}: {_line(error.cause)}; see its log") from None
        except (ray.exceptions.RayError, ConnectionError) as error:
            with self._lock:
                self._handle = None
            raise ClusterError(f"{self.shown}: is gone; {_line(error)}") from None

    def call(self, method: str, *arguments: object, timeout_s: float | None = None) -> Any:
        """Call a method and wait for its answer."""
        return self.answer(self.begin(method, *arguments), timeout_s or self._timeout_s)


class CoordinatorClient(ActorClient):
    """The coordinator of the cluster's fleet."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(COORDINATOR_NAME, timeout_s, "the fleet's coordinator")

    def renew(self, report: NodeReport) -> RenewalAnswer:
        """See `Coordinator.renew`."""
        answer: RenewalAnswer = self.call("renew", report)
        return answer

    def hello(self, timeout_s: float) -> CoordinatorFacts:
        """See `Coordinator.hello`."""
        answer: CoordinatorFacts = self.call("hello", timeout_s=timeout_s)
        return answer

    def overview(self, version: int, event: int) -> Overview:
        """See `Coordinator.overview`."""
        answer: Overview = self.call("overview", version, event)
        return answer

    def set_all(self, cameras: Mapping[str, CameraSettings]) -> None:
        """See `Coordinator.set_all`."""
        self.call("set_all", cameras)

    def put(self, name: str, settings: CameraSettings, passing: bool, restart: bool) -> None:
        """See `Coordinator.put`."""
        self.call("put", name, settings, passing, restart)

    def remove(self, name: str) -> None:
        """See `Coordinator.remove`."""
        self.call("remove", name)

    def end(self) -> None:
        """End the whole fleet: all cameras, all nodes and the coordinator."""
        self.call("end", timeout_s=30)
        with self._lock:
            if self._handle is not None:
                ray.kill(self._handle)
            self._handle = None


class NodeClient(ActorClient):
    """The node on one machine."""

    def __init__(self, machine_id: str, name: str) -> None:
        super().__init__(node_actor_name(machine_id), 2.0, name)

    def change(self, name: str, changes: LiveSettings) -> None:
        """See `FleetNode.change`; it may take 10 s."""
        self.call("change", name, changes, timeout_s=12)

    def test_source(self, source: str) -> SourceTestResult:
        """See `FleetNode.test_source`; it may take 40 s, if others are being tested."""
        answer: SourceTestResult = self.call("test_source", source, timeout_s=45)
        return answer

    def picture(self, name: str, kind: str, wait_s: float) -> JpegPicture | None:
        """See `FleetNode.picture`."""
        answer: JpegPicture | None = self.call("picture", name, kind, wait_s, timeout_s=wait_s + 2)
        return answer

    def begin_snapshot(self, event: int) -> Any:
        """Begin to ask for a snapshot; the answer's reference for `snapshots`."""
        return self.begin("snapshot", event)


def snapshots(references: Sequence[Any], timeout_s: float) -> list[NodeSnapshot | None]:
    """The answers of many nodes that were asked at the same time; None for those that have not answered."""
    done, _ = ray.wait(list(references), num_returns=len(references), timeout=timeout_s)
    answers: list[NodeSnapshot | None] = []
    for reference in references:
        try:
            answers.append(ray.get(reference, timeout=timeout_s) if reference in done else None)
        except (ray.exceptions.RayError, ConnectionError):
            answers.append(None)
    return answers


def _line(error: BaseException) -> str:
    """An error in one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
