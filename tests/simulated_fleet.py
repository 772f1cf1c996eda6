"""A fleet without processes: the product's own decisions, with simulated time, clocks, network and faults.

Clocks of the machines differ by an offset and run at their own rates. Messages take time and may be lost.
Whenever a camera starts it is checked that it runs nowhere else.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from stream.server.camera_config import CameraSettings
from stream.server.fleet.fleet_messages import CameraCost, LeaseOrder, LeaseTimes, NodeReport
from stream.server.fleet.lease_book import LeaseBook, SavedBook
from stream.server.fleet.node_leases import NodeLeases

RENEWAL_TIMEOUT_S = 1.5
TICK_S = 0.5


@dataclass
class Network:
    """How messages travel."""

    delay_s: tuple[float, float] = (0.001, 0.01)
    loss: float = 0.0


@dataclass
class Running:
    """A camera's process on a node. It ends at the lease's end by itself, as the kernel's timer has it."""

    order: LeaseOrder
    began_s: float
    ends_s: float
    stopping: bool = False


class SimulatedNode:
    """One machine: its clock, its leases and its cameras' processes."""

    def __init__(self, fleet: Fleet, name: str, cores: float, rate: float, offset_s: float) -> None:
        self.fleet, self.name, self.cores = fleet, name, cores
        self.rate, self.offset_s = rate, offset_s
        self.alive = True
        self.cut_off = False
        self.hangs_until_s = 0.0
        self.running: dict[int, Running] = {}
        self.leases = NodeLeases(fleet.times)
        self._run = f"{name}-{next(fleet.runs)}"
        self._answered = True
        fleet.at(fleet.random.uniform(0, 1), self._renew)

    def clock(self) -> float:
        return self.offset_s + self.rate * self.fleet.now_s

    def true_time(self, clock_s: float) -> float:
        return (clock_s - self.offset_s) / self.rate

    def runs(self, camera: str) -> bool:
        """Whether a process of this camera exists here now."""
        now_s = self.fleet.now_s
        return any(one.order.camera == camera and now_s < one.ends_s for one in self.running.values())

    def die(self) -> None:
        """The whole machine is gone, with all its processes."""
        self.alive = False
        self._end_all()

    def _end_all(self) -> None:
        for one in self.running.values():
            self.fleet.record(one.order.camera, one.began_s, min(one.ends_s, self.fleet.now_s))
        self.running.clear()

    def poke(self) -> None:
        if self.alive and self._answered:
            self._renew(again=False)

    def _awake(self, later: Callable[[], None]) -> bool:
        """Whether it can act now; a node that hangs acts when it wakes up."""
        if self.alive and self.fleet.now_s < self.hangs_until_s:
            self.fleet.at(self.hangs_until_s - self.fleet.now_s, later)
            return False
        return self.alive

    def _renew(self, again: bool = True) -> None:
        if not self._awake(lambda: self._renew(again)):
            return
        self._forget_ended()
        number = self.leases.begin(self.clock())
        holds = {number: one.order.stamp for number, one in self.running.items()}
        costs = {
            one.order.camera: CameraCost(self.fleet.cost(one.order.camera), degraded=False)
            for one in self.running.values()
        }
        report = NodeReport(self._run, self.name, self.name, self.cores, number, holds, costs)
        self._answered = False
        self.fleet.send(self, lambda: self.fleet.receive(self, report))
        if again:
            self.fleet.at(self.fleet.times.renew_s / self.rate, self._renew)

    def fail(self, number: int) -> None:
        """The renewal of this number has failed: try again soon."""
        if self._awake(lambda: self.fail(number)) and self.leases.is_newest(number):
            self.fleet.at(self.fleet.times.retry_s / self.rate, lambda: self._retry(number))

    def _retry(self, number: int) -> None:
        if self.leases.is_newest(number):
            self._renew(again=False)

    def take(self, number: int, answer) -> None:
        if not self._awake(lambda: self.take(number, answer)) or not self.leases.take(number, answer):
            return
        self._answered = True
        self._forget_ended()
        wanted = self.leases.may_run(self.clock())
        ends_s = self.true_time(self.leases.until_s)
        for number, one in self.running.items():
            if (
                number not in wanted and not one.stopping
            ):  # it finishes its files, at the old lease's end at most
                one.stopping = True
                one.ends_s = min(one.ends_s, self.fleet.now_s + self.fleet.random.uniform(0.1, 3.0))
            elif number in wanted and not one.stopping:
                one.ends_s = ends_s
        for number, order in wanted.items():
            if number not in self.running:
                self.fleet.check_start(self, order)
                self.running[number] = Running(order, self.fleet.now_s + self.fleet.start_s, ends_s)

    def _forget_ended(self) -> None:
        for number in [number for number, one in self.running.items() if one.ends_s <= self.fleet.now_s]:
            one = self.running.pop(number)
            self.fleet.record(one.order.camera, one.began_s, one.ends_s)


@dataclass
class Fleet:
    """The coordinator, its nodes and what has happened."""

    random: random.Random
    times: LeaseTimes = field(default_factory=LeaseTimes)
    network: Network = field(default_factory=Network)
    start_s: float = 2.5
    """From an order to the camera's first picture."""
    cost: Callable[[str], float] = lambda _: 0.4
    now_s: float = 0.0

    def __post_init__(self) -> None:
        self.runs = itertools.count()
        self._order = itertools.count()
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self.nodes: list[SimulatedNode] = []
        self.book: LeaseBook | None = LeaseBook(self.now_s, self.times)
        self.saved = SavedBook()
        self.messages = 0
        self.saves = 0
        self.starts: list[tuple[float, str, int]] = []
        """Time, camera and lease number of every start."""
        self.lived_s: dict[str, float] = defaultdict(float)
        """By camera, the seconds for which it delivered pictures."""
        self.kinds: list[str] = []
        self.at(0, self._tick)

    # --- faults ------------------------------------------------------------------------------------

    def add_node(self, name: str, cores: float = 2.0, rate: float = 1.0, offset_s: float = 0.0):
        self.nodes.append(SimulatedNode(self, name, cores, rate, offset_s))
        return self.nodes[-1]

    def stop_coordinator(self, for_s: float) -> None:
        """The coordinator dies, and another starts from the saved state."""
        self.book = None

        def start() -> None:
            saved = SavedBook.model_validate_json(self.saved.model_dump_json())
            self.book = LeaseBook(self.now_s, self.times, saved)

        self.at(for_s, start)

    # --- time and messages -------------------------------------------------------------------------

    def at(self, in_s: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now_s + in_s, next(self._order), do))

    def run(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self._queue and self._queue[0][0] <= end_s:
            self.now_s, _, do = heapq.heappop(self._queue)
            do()
        self.now_s = end_s

    def send(self, node: SimulatedNode, do: Callable[[], None]) -> None:
        """Carry a message between a node and the coordinator, or lose it."""
        if not node.cut_off and self.random.random() >= self.network.loss:
            self.at(self.random.uniform(*self.network.delay_s), do)

    def receive(self, node: SimulatedNode, report: NodeReport) -> None:
        if self.book is not None:
            self.messages += 1
            answer = self.book.renew(report, self.now_s)
            self._save()
            self.send(node, lambda: node.take(report.number, answer))
        else:  # the cluster says that the coordinator does not run
            self.send(node, lambda: node.fail(report.number))

    def _tick(self) -> None:
        if self.book is not None:
            self.book.expect(len(self.nodes), self.now_s)
            poked = self.book.tick(self.now_s)
            self._save()
            for node in self.nodes:
                if any(node._run == run for run in poked):
                    self.send(node, node.poke)
            self.kinds += [event.kind for event in self.book.take_events()]
        self.at(TICK_S, self._tick)

    def _save(self) -> None:
        if self.book.version != self.saved_version:
            self.saved, self.saved_version = self.book.to_saved(), self.book.version
            self.saves += 1
            self.book.mark_saved(self.saved)

    saved_version = 0

    # --- what is checked ---------------------------------------------------------------------------

    def check_start(self, node: SimulatedNode, order: LeaseOrder) -> None:
        for other in self.nodes:
            assert not other.runs(order.camera), (
                f"{self.now_s:.2f} s: {order.camera} starts on {node.name} and runs on {other.name}"
            )
        numbers = [number for _, camera, number in self.starts if camera == order.camera]
        assert not numbers or order.number >= max(numbers), "a lease's number has not risen"
        self.starts.append((self.now_s, order.camera, order.number))

    def record(self, camera: str, began_s: float, ended_s: float) -> None:
        self.lived_s[camera] += max(0.0, ended_s - began_s)

    def finish(self) -> None:
        """Count what still runs."""
        for node in self.nodes:
            node._end_all()

    def where(self) -> dict[str, str]:
        """By camera, the node that runs it now."""
        return {
            one.order.camera: node.name
            for node in self.nodes
            for one in node.running.values()
            if self.now_s < one.ends_s and node.alive
        }


def cameras(count: int, **settings) -> dict[str, CameraSettings]:
    return {f"camera-{number}": CameraSettings(source="test:", **settings) for number in range(count)}
