"""What runs on each node: it renews its leases, and has its supervisor run the cameras it was given."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from stream.errors import ClusterError, NotFoundError, StreamError
from stream.pipeline.processes import start_thread
from stream.server.camera_config import CamerasFile, ServerSettings, redacted
from stream.server.camera_lease import CameraLease
from stream.server.events import Events
from stream.server.fleet.cpu_usage import CpuUsage
from stream.server.fleet.fleet_messages import LeaseOrder, LeaseTimes, NodeReport, RenewalAnswer
from stream.server.fleet.node_leases import NodeLeases
from stream.server.supervisor.camera_status import CameraStatus
from stream.server.supervisor.supervisor import Supervisor

LOG = logging.getLogger(__name__)
RENEWAL_TIMEOUT_S = 1.5
"""A renewal without an answer is given up after this time, and another is sent."""
_RETRY_S = 30.0
"""Pause before a camera whose settings this node refuses is tried again."""


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Who a node is."""

    run: str
    """Identity of its process."""
    node: str
    """Identity of the machine in the cluster."""
    name: str
    """The machine's name for people."""
    cores: float
    """Cores for cameras."""


@dataclass(slots=True)
class _Held:
    """A lease whose camera runs, or may still run."""

    order: LeaseOrder
    ending: bool = False
    refusal: str = ""
    """Why this node cannot run it, in one line."""
    tried_s: float = 0.0


class NodeAgent:
    """Runs a node's cameras. `renew` brings a report to the coordinator; it raises ClusterError.

    A camera runs only under its lease: its process gets the time at which it has to be gone, and the
    kernel ends it then, even if this process hangs or has died.
    """

    def __init__(
        self,
        identity: NodeIdentity,
        server: ServerSettings,
        renew: Callable[[NodeReport], RenewalAnswer],
        times: LeaseTimes | None = None,
        *,
        problem: str = "",
    ) -> None:
        """`problem`: why this node cannot run cameras; empty if it can."""
        self.identity, self._renew, self._times = identity, renew, times or LeaseTimes()
        self.supervisor = Supervisor(CamerasFile(server=server), None, Events())
        self._leases = NodeLeases(self._times)
        self._held: dict[int, _Held] = {}
        self._lock = threading.Lock()
        """Held while `_held` is read or changed, never while anything is waited for."""
        self._usage = CpuUsage()
        self._problem = problem
        self._woken, self._ended = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start to renew; returns at once."""
        try:
            self.supervisor.start()
        except OSError as error:
            folder = self.supervisor.server.data_folder
            self._problem = f"server.data: {folder} cannot be made ({error.strerror})"
        self._thread = start_thread("leases", self._run)

    def stop(self) -> None:
        """End all cameras within 10 s, and tell the coordinator that they have ended."""
        self._ended.set()
        self._woken.set()
        if self._thread is not None:
            self._thread.join()
        self.supervisor.stop()
        with self._lock:
            self._held.clear()
        self._renew_once(leaves=True)

    def wake(self) -> None:
        """Renew at once: there are other orders."""
        self._woken.set()

    def cameras(self) -> list[CameraStatus]:
        """The state of all cameras of this node now."""
        name = self.identity.name
        running = [replace(status, node=name) for status in self.supervisor.cameras()]
        with self._lock:
            refused = [held for held in self._held.values() if held.refusal]
        return running + [self._refused_status(held) for held in refused]

    # --- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ended.is_set():
            began_s = time.monotonic()
            pause_s = self._times.renew_s if self._renew_once() else self._times.retry_s
            self._woken.wait(max(0.0, began_s + pause_s - time.monotonic()))
            self._woken.clear()

    def _renew_once(self, leaves: bool = False) -> bool:
        """Renew the leases; returns whether the coordinator has answered."""
        number = self._leases.begin(time.monotonic())
        try:
            answer = self._renew(self._report(number, leaves))
        except ClusterError:  # the next one may be answered; without an answer all cameras end
            return False
        if self._leases.take(number, answer) and not self._ended.is_set():
            self._follow(self._leases.may_run(time.monotonic()))
        return True

    def _report(self, number: int, leaves: bool) -> NodeReport:
        me, supervisor = self.identity, self.supervisor
        costs = self._usage.measure(supervisor.cameras(), supervisor.restorer(), time.monotonic())
        with self._lock:
            holds = {lease: held.order.stamp for lease, held in self._held.items()}
        return NodeReport(me.run, me.node, me.name, me.cores, number, holds, costs, self._problem, leaves)

    def _follow(self, orders: dict[int, LeaseOrder]) -> None:
        """Run what was ordered, and end everything else."""
        with self._lock:
            held = dict(self._held)
        for number, one in held.items():
            if number not in orders and not one.ending:
                one.ending = True
                start_thread(f"end {one.order.camera}", self._end, number, one)
        busy = {one.order.camera for one in held.values() if one.ending}
        extended = []
        for number, order in orders.items():
            known = held.get(number)
            if known.ending if known is not None else order.camera in busy:
                continue  # its earlier process has to be gone first
            if known is None or known.refusal:
                self._begin(order, known)
            elif known.order.stamp != order.stamp:
                self._change(known, order)
            if (now := self._held.get(number)) is not None and not now.refusal:
                extended.append(order.camera)
        self.supervisor.extend_leases(extended, self._leases.until_s)

    def _begin(self, order: LeaseOrder, known: _Held | None) -> None:
        now_s = time.monotonic()
        if known is not None and known.order.stamp == order.stamp and now_s - known.tried_s < _RETRY_S:
            return
        one = _Held(order, tried_s=now_s)
        with self._lock:
            self._held[order.number] = one
        lease = CameraLease(order.number, self._leases.until_s)
        try:
            self.supervisor.add(order.camera, order.known_settings, passing=order.passing, lease=lease)
        except StreamError as error:
            one.refusal = str(error)
            self.supervisor.events.add(order.camera, "camera_refused", f"{self.identity.name}: {error}")

    def _change(self, known: _Held, order: LeaseOrder) -> None:
        """Take other settings: with another process, or as those of the session that has them already."""
        try:
            if order.restart != known.order.restart:
                self.supervisor.replace(order.camera, order.known_settings)
            else:
                self.supervisor.adopt(order.camera, order.known_settings, order.passing)
        except StreamError as error:
            self.supervisor.events.add(order.camera, "camera_refused", f"{self.identity.name}: {error}")
        known.order = order

    def _end(self, number: int, one: _Held) -> None:
        """End a camera and, once it is gone, report that its lease is not held any more."""
        if not one.refusal:
            try:
                self.supervisor.remove(one.order.camera)
            except NotFoundError:
                LOG.warning("%s: was gone already", one.order.camera)
        with self._lock:
            self._held.pop(number, None)
        self._woken.set()

    def _refused_status(self, held: _Held) -> CameraStatus:
        order, settings = held.order, held.order.known_settings
        try:
            shown = redacted(settings)
        except StreamError:  # such as a variable that this machine's environment lacks
            shown = settings.model_copy(update={"source": "***", "to": ()})
        words = f"refused by {self.identity.name}: {held.refusal}"
        return CameraStatus(order.camera, shown, "broken", words, 0, 0, 0, None, self.identity.name)
