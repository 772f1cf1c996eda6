"""The coordinator's decisions: which node holds which camera. Pure logic: time is given, nothing is sent."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from pydantic import Field

from stream.config_live import Section
from stream.errors import ConfigError, NotFoundError
from stream.server.camera_config import CameraSettings
from stream.server.fleet.fleet_messages import FleetEvent, LeaseOrder, LeaseTimes, NodeReport, RenewalAnswer
from stream.server.fleet.placement import UNMEASURED_CORES, NodeLoad, best_move, choose_node, updated_cost

_GATHER_S = 20.0
"""After its start the coordinator waits for the nodes of all machines, but no longer than this: the first
node must not get all cameras."""
_MOVE_PAUSE_S = 30.0
"""Time between two moves."""
_STAY_S = 300.0
"""A camera stays at least so long before it is moved again."""
_EVENTS = 1000


@dataclass(frozen=True, slots=True)
class Lease:
    """The right of one node's run to run one camera."""

    number: int
    run: str
    since_s: float
    withdrawn: bool = False
    """Whether the node has to end the camera; nobody gets it before that is certain."""


@dataclass(slots=True)
class FleetCamera:
    """A camera of the fleet, wherever it runs."""

    name: str
    settings: CameraSettings
    passing: bool = False
    stamp: int = 1
    restart: int = 1
    cores: float | None = None
    """Estimate of its cost; None before it was measured."""
    measured_s: float = 0.0
    lease: Lease | None = None
    removed: bool = False
    waits: str = ""
    """Why it has no node, for people; empty if it has one or needs none."""


@dataclass(slots=True)
class NodeRun:
    """One run of a node's process, as far as it is not silent."""

    report: NodeReport
    heard_s: float
    joined_s: float
    known: bool = True
    """False: it holds leases by the saved state, and has not been heard of since the coordinator's start."""


class SavedCamera(Section):
    """A camera in the saved state."""

    settings: CameraSettings
    passing: bool
    stamp: int
    restart: int
    cores: float | None
    lease: int
    """Number of its lease; 0: none."""
    run: str
    """Who holds the lease."""
    removed: bool


class SavedBook(Section):
    """What a coordinator that is started again has to know."""

    next_number: int = 1
    cameras: dict[str, SavedCamera] = Field(default_factory=dict)


class LeaseBook:
    """All cameras, nodes and leases. Not thread-safe. Times are `time.monotonic()` of the coordinator.

    Rules: a lease's number is never used twice; it is shown to a node only after it was saved. A camera
    gets a new lease only when the old one is over: its node has reported that it no longer holds it, or
    has been silent for `expire_s`.
    """

    def __init__(self, now_s: float, times: LeaseTimes | None = None, saved: SavedBook | None = None) -> None:
        """`saved`: the state of the coordinator before; its nodes have `expire_s` from now to report."""
        self.times = times or LeaseTimes()
        self.cameras: dict[str, FleetCamera] = {}
        self.runs: dict[str, NodeRun] = {}
        self._by_run: dict[str, dict[str, FleetCamera]] = defaultdict(dict)
        """By run, the cameras whose leases it holds."""
        self.version = 0
        """It rises with every change that has to be saved, or that readers of `cameras` have to see."""
        self._saved_number = 0
        self._next_number = 1
        self._assign_from_s = now_s + _GATHER_S
        """No camera is given to a node before."""
        self._hold_until_s = now_s
        """Leases of the saved state hold until then, even if all nodes have joined."""
        self._moved_s = now_s
        self._events: deque[FleetEvent] = deque(maxlen=_EVENTS)
        self._poke: set[str] = set()
        if saved is not None:
            self._restore(saved, now_s)

    # --- cameras -----------------------------------------------------------------------------------

    def put(
        self, name: str, settings: CameraSettings, *, passing: bool = False, restart: bool = True
    ) -> None:
        """Add a camera or change its settings. `restart`: whether a process that runs has to start anew."""
        camera = self.cameras.get(name)
        if camera is None:
            self.cameras[name] = FleetCamera(name, settings, passing)
        elif camera.removed:
            raise ConfigError(f"cameras.{name}: is being removed; try again in a moment")
        elif (camera.settings, camera.passing) == (settings, passing) and not restart:
            return
        else:
            camera.settings, camera.passing = settings, passing
            camera.stamp += 1
            camera.restart += restart
        self._touch(name)

    def set_all(self, cameras: Mapping[str, CameraSettings]) -> None:
        """Have exactly these cameras. Those whose settings have not changed run on."""
        for name in [name for name in self.cameras if name not in cameras]:
            self.remove(name)
        for name, settings in cameras.items():
            known = self.cameras.get(name)
            if known is None or (known.settings != settings and not known.removed):
                self.put(name, settings)

    def remove(self, name: str) -> None:
        """Withdraw a camera; it is forgotten once it is certain that it does not run."""
        camera = self.cameras.get(name)
        if camera is None:
            raise NotFoundError(f"{name[:40]!r}: there is no such camera")
        camera.removed = True
        self._withdraw(camera)
        if camera.lease is None:
            del self.cameras[name]
        self.version += 1

    # --- nodes -------------------------------------------------------------------------------------

    def renew(self, report: NodeReport, now_s: float) -> RenewalAnswer:
        """Take a node's report; the answer names all that it may run.

        A report that is older than one taken before is answered with nothing: its sender ignores that.
        """
        run = self.runs.get(report.run)
        if run is not None and run.known and report.number <= run.report.number:
            return RenewalAnswer(())
        if report.leaves:
            self._leave(report)
            return RenewalAnswer(())
        if run is None or not run.known:
            self._add_event("", "node_joined", f"{report.name}: {report.cores:g} cores")
            self.version += 1
        joined_s = run.joined_s if run is not None else now_s
        self.runs[report.run] = NodeRun(report, now_s, joined_s)
        for camera in self._held_by(report.run):
            self._take_report(camera, report, now_s)
        return RenewalAnswer(tuple(self._orders(report)))

    def tick(self, now_s: float) -> frozenset[str]:
        """Expire, assign and balance; called several times a second.

        Returns the runs whose orders have changed since the last call: they should renew at once.
        """
        self._expire(now_s)
        for camera in self.cameras.values():
            if not camera.settings.enabled:
                self._withdraw(camera)
        if now_s >= self._assign_from_s:
            self._assign(now_s)
            self._balance(now_s)
        changed = frozenset(self._poke & self.runs.keys())
        self._poke.clear()
        return changed

    def expect(self, nodes: int, now_s: float) -> None:
        """Say how many machines the cluster has: once so many nodes have joined, none is waited for."""
        joined = sum(run.known for run in self.runs.values())
        if nodes and joined >= nodes:
            self._assign_from_s = min(self._assign_from_s, max(now_s, self._hold_until_s))

    def loads(self) -> dict[str, NodeLoad]:
        """By run, the nodes that can get cameras: of each machine the newest run."""
        newest: dict[str, NodeRun] = {}
        for run in self.runs.values():
            other = newest.get(run.report.node)
            if run.known and (other is None or run.joined_s > other.joined_s):
                newest[run.report.node] = run
        used: dict[str, float] = defaultdict(float)
        average = self._average_cost()
        for camera in self.cameras.values():
            if camera.lease is not None:
                used[camera.lease.run] += camera.cores if camera.cores is not None else average
        return {
            one.report.run: NodeLoad(
                one.report.run, one.report.cores if not one.report.problem else 0.0, used[one.report.run]
            )
            for one in newest.values()
        }

    # --- state and events --------------------------------------------------------------------------

    def to_saved(self) -> SavedBook:
        """The state that is saved at this version."""
        cameras = {
            name: SavedCamera(
                settings=camera.settings, passing=camera.passing, stamp=camera.stamp, restart=camera.restart,
                cores=camera.cores, removed=camera.removed,
                lease=camera.lease.number if camera.lease is not None else 0,
                run=camera.lease.run if camera.lease is not None else "",
            )
            for name, camera in self.cameras.items()
        }  # fmt: skip
        return SavedBook(next_number=self._next_number, cameras=cameras)

    def mark_saved(self, saved: SavedBook) -> None:
        """Note that this state is on disk: its leases may be shown to nodes."""
        self._saved_number = saved.next_number - 1

    def take_events(self) -> list[FleetEvent]:
        """What was decided since the last call, oldest first."""
        events = list(self._events)
        self._events.clear()
        return events

    # --- internals ---------------------------------------------------------------------------------

    def _restore(self, saved: SavedBook, now_s: float) -> None:
        self._next_number = saved.next_number
        self._saved_number = saved.next_number - 1
        self._hold_until_s = now_s + self.times.expire_s
        for name, one in saved.cameras.items():
            lease = Lease(one.lease, one.run, now_s, withdrawn=one.removed) if one.lease else None
            camera = self.cameras[name] = FleetCamera(
                name, one.settings, one.passing, one.stamp, one.restart, one.cores, now_s, lease, one.removed
            )
            if lease is None:
                continue
            self._by_run[one.run][name] = camera
            if one.run not in self.runs:
                unheard = NodeReport(one.run, node=f"unheard {one.run}", name="", cores=0.0, number=0)
                self.runs[one.run] = NodeRun(unheard, now_s, now_s, known=False)

    def _held_by(self, run: str) -> list[FleetCamera]:
        return list(self._by_run[run].values()) if run in self._by_run else []

    def _leave(self, report: NodeReport) -> None:
        """The node has ended all its cameras: others may run them at once."""
        self.runs.pop(report.run, None)
        for camera in self._held_by(report.run):
            self._end_lease(camera)
        self._add_event("", "node_left", f"{report.name}: has ended its cameras and left")

    def _take_report(self, camera: FleetCamera, report: NodeReport, now_s: float) -> None:
        lease = camera.lease
        if lease is not None and lease.withdrawn and lease.number not in report.holds:
            self._end_lease(camera)
        cost = report.costs.get(camera.name)
        if cost is not None:
            elapsed_s = now_s - camera.measured_s
            camera.cores = updated_cost(camera.cores, cost.cores, cost.degraded, elapsed_s)
            camera.measured_s = now_s

    def _orders(self, report: NodeReport) -> Iterator[LeaseOrder]:
        for camera in self._held_by(report.run):
            lease = camera.lease
            if lease is None or lease.withdrawn or lease.number > self._saved_number:
                continue
            is_known = report.holds.get(lease.number) == camera.stamp
            settings = None if is_known else camera.settings
            yield LeaseOrder(
                lease.number, camera.name, camera.stamp, camera.restart, settings, camera.passing
            )

    def _expire(self, now_s: float) -> None:
        silent = [run for run, one in self.runs.items() if now_s - one.heard_s > self.times.expire_s]
        for run in silent:
            held = self._held_by(run)
            name = self.runs.pop(run).report.name
            for camera in held:
                self._end_lease(camera)
            lost = f"; its cameras get other nodes: {', '.join(one.name for one in held)}" if held else ""
            if name or held:
                self._add_event("", "node_lost", f"{name or 'a node'}: is silent{lost}")

    def _assign(self, now_s: float) -> None:
        waiting = [one for one in self.cameras.values() if one.lease is None and one.settings.enabled]
        if not waiting:
            return
        loads, average = self.loads(), self._average_cost()
        cost = {one.name: one.cores if one.cores is not None else average for one in waiting}
        waiting.sort(key=lambda one: (-one.settings.priority, -cost[one.name], one.name))
        for camera in waiting:
            cores = cost[camera.name]
            run = choose_node(cores, loads.values())
            if run is None:
                self._say_waiting(camera, cores, loads)
                continue
            loads[run] = replace(loads[run], used=loads[run].used + cores)
            camera.lease = Lease(self._next_number, run, now_s)
            self._by_run[run][camera.name] = camera
            camera.waits = ""
            self._next_number += 1
            self._poke.add(run)
            self.version += 1
            place = self.runs[run].report.name
            self._add_event(camera.name, "camera_placed", f"runs on {place} (lease {camera.lease.number})")

    def _average_cost(self) -> float:
        """The mean of the measured costs, in cores: what a camera is taken for that was not measured."""
        known = [one.cores for one in self.cameras.values() if one.cores is not None]
        return sum(known) / len(known) if known else UNMEASURED_CORES

    def _say_waiting(self, camera: FleetCamera, cores: float, loads: Mapping[str, NodeLoad]) -> None:
        free = max((node.free for node in loads.values() if node.capacity > 0), default=None)
        was_said = bool(camera.waits)
        if free is None:
            camera.waits = "waits for a node: none can run cameras"
        else:
            most = f"no node has more than {max(0.0, free):.1f} free"
            camera.waits = f"waits for room: it needs {cores:.1f} cores, and {most}"
        if not was_said:
            self._add_event(camera.name, "camera_waits", f"{camera.waits}; add a node")

    def _balance(self, now_s: float) -> None:
        """Begin one move at most, and none while anything else is under way."""
        active = [one for one in self.cameras.values() if one.settings.enabled]
        unsettled = any(one.lease is None or one.lease.withdrawn for one in active)
        if unsettled or now_s - self._moved_s < _MOVE_PAUSE_S:
            return
        movable: dict[str, dict[str, float]] = {}
        for one in active:
            if one.lease is not None and one.cores is not None and now_s - one.lease.since_s >= _STAY_S:
                movable.setdefault(one.lease.run, {})[one.name] = one.cores
        move = best_move(self.loads(), movable)
        if move is None:
            return
        self._moved_s = now_s
        here, there = (self.runs[run].report.name for run in (move.from_run, move.to_run))
        self._add_event(move.camera, "camera_moved", f"from {here} to {there}, which has more room")
        self._withdraw(self.cameras[move.camera])

    def _withdraw(self, camera: FleetCamera) -> None:
        lease = camera.lease
        if lease is not None and not lease.withdrawn:
            camera.lease = replace(lease, withdrawn=True)
            self._poke.add(lease.run)

    def _end_lease(self, camera: FleetCamera) -> None:
        if camera.lease is not None:
            held = self._by_run[camera.lease.run]
            del held[camera.name]
            if not held:
                del self._by_run[camera.lease.run]
        camera.lease = None
        self.version += 1
        if camera.removed:
            self.cameras.pop(camera.name, None)

    def _touch(self, name: str) -> None:
        """Settings have changed: save them, and have the node ask for them at once."""
        self.version += 1
        lease = self.cameras[name].lease
        if lease is not None:
            self._poke.add(lease.run)

    def _add_event(self, camera: str, kind: str, text: str) -> None:
        self._events.append(FleetEvent(camera, kind, text))
