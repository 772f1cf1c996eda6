"""The restorer's process: takes crops of many cameras, runs the networks, fair shares by priority."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stream.shared.fair import Fair
from stream.shared.lines import Lines, Place, Slots, map_slots
from stream.shared.networks import Network, Networks
from stream.status import Delays
from stream.workers import Connection

_UNUSED_S = 60.0
"""A network that nobody has had for so long is dropped."""
_POLL_S = 0.2
_REPORT_S = 1.0
_HELLO_S = 10.0
"""Whoever connects has said by then what for."""
_CLIENTS = 256
"""At most; more cannot be cameras."""
_RETURN_S = 0.005
"""A camera that has just been answered asks again within so long, where it has more to ask."""
_PATIENCE_S = 1.0
"""Who did not is not waited for until then."""


@dataclass(slots=True, eq=False)
class _Client:
    """A camera that is connected."""

    lines: Lines
    since_s: float = field(default_factory=time.monotonic)
    camera: str = ""
    priority: float = 1.0
    network: Network | None = None
    count: int = 0
    """Slots."""
    slots: Slots | None = None
    asked: int = 0
    """Crops in the slots; 0: it does not wait."""
    done: int = 0
    """Of these."""
    asked_s: float = 0.0
    slow_until_s: float = 0.0

    @property
    def left(self) -> int:
        """Crops that wait for the network."""
        return self.asked - self.done


class Restorer:
    """Serves clients until the link's other end is closed. One thread, and one for each network that loads.

    On a CPU one crop is run at a time: a batch gains nothing there, and a shorter call lets the next
    camera in sooner. On a GPU crops of several cameras share a call.
    """

    def __init__(self, place: Place, threads: int, unused_s: float = _UNUSED_S) -> None:
        self._place = place
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        Path(place.socket).unlink(missing_ok=True)
        self._listener.bind(place.socket)
        self._listener.listen(64)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._clients: dict[socket.socket, _Client] = {}
        self._networks = Networks(threads, unused_s)
        self._fair = Fair()
        self._awaited: _Client | None = None
        self._await_until_s = 0.0
        self._crops: Counter[str] = Counter()
        self._calls, self._busy_s = 0, 0.0
        self._delays = Delays()

    def run(self, link: Connection) -> None:
        """Until the link says so, or closes; ("report", dict) goes over it once a second."""
        told_s, busy_s = time.monotonic(), 0.0
        pause_s = _POLL_S
        try:
            while True:
                self._listen(pause_s)
                self._welcome()
                pause_s = self._serve()
                now_s = time.monotonic()
                if now_s - told_s < _REPORT_S:
                    continue
                self._tidy(now_s)
                report = self._report((self._busy_s - busy_s) / (now_s - told_s))
                if not _told(link, report):
                    return
                told_s, busy_s = now_s, self._busy_s
        finally:
            self._close()

    def _listen(self, pause_s: float) -> None:
        for key, _ in self._selector.select(pause_s):
            if key.fileobj is self._listener:
                self._accept()
                continue
            client = self._clients[key.fileobj]
            try:
                client.lines.read()
                while (message := client.lines.buffered()) is not None:
                    self._take(client, message)
            except (OSError, EOFError, LookupError, TypeError, ValueError, ArithmeticError):
                self._forget(client)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it is gone already
            channel, _ = self._listener.accept()
            if len(self._clients) >= _CLIENTS:
                channel.close()
                return
            channel.setblocking(False)
            self._clients[channel] = _Client(Lines(channel))
            self._selector.register(channel, selectors.EVENT_READ)

    def _take(self, client: _Client, message: dict[str, Any]) -> None:
        if client.network is None:
            client.camera, client.priority = str(message["camera"]), max(0.1, float(message["priority"]))
            client.count = int(message["count"])
            client.network = self._networks.get(str(message["path"]), dict(message["settings"]))
        elif client.slots is not None and not client.asked:
            client.asked, client.done = max(0, min(int(message["crops"]), client.count)), 0
            client.asked_s = time.monotonic()

    def _welcome(self) -> None:
        """Answer those whose network has been loaded since."""
        for client in list(self._clients.values()):
            network = client.network
            if network is None or client.slots is not None or not network.settled:
                continue
            try:
                if network.error:
                    client.lines.send({"error": network.error})
                    self._forget(client)
                    continue
                model, memory = network.engine.model, client.lines.handles[0]
                client.slots = map_slots(memory, client.count, model.in_size, model.size, create=False)
                client.lines.send({"name": network.engine.name, "description": network.engine.description})
            except (OSError, ValueError, LookupError, OverflowError):
                self._forget(client)

    def _serve(self) -> float:
        """One call of a network, for those whose turn it is; how long it may be listened meanwhile, s."""
        waiting = [client for client in self._clients.values() if client.asked]
        if not waiting:
            return _POLL_S
        order = self._fair.order(waiting)
        if (pause_s := self._patience(order[0])) > 0:
            return pause_s
        network = order[0].network
        chosen = shared_call(order, network.batch_size) if network.batches else [(order[0], 1)]
        batch = np.concatenate(
            [client.slots.crops[client.done : client.done + count] for client, count in chosen]
        )
        began = time.perf_counter()
        restored = network.run(batch)
        took_s = time.perf_counter() - began
        self._busy_s += took_s
        self._calls += 1
        at = 0
        for client, count in chosen:
            client.slots.restored[client.done : client.done + count] = restored[at : at + count]
            at += count
            client.done += count
            work_s = took_s * count / len(batch)
            self._fair.charge(client, work_s, client.priority, turn=client is order[0])
            self._crops[client.camera] += count
            if not client.left:
                self._answer(client)
        return 0.0

    def _answer(self, client: _Client) -> None:
        now_s, count = time.monotonic(), client.asked
        client.asked = client.done = 0
        self._delays.add(1e3 * (now_s - client.asked_s))
        if not client.network.batches and now_s >= client.slow_until_s:
            self._awaited, self._await_until_s = client, now_s + _RETURN_S
        try:
            client.lines.send({"crops": count})
        except OSError:
            self._forget(client)

    def _patience(self, first: _Client) -> float:
        """How long the one that was answered last is waited for, because its share is not used up, s.

        Without that, cameras that ask for one crop after the other would take turns, whatever their
        priority (Iyer and Druschel, "Anticipatory scheduling", 2001).
        """
        awaited, left_s = self._awaited, self._await_until_s - time.monotonic()
        if awaited is None or awaited.asked or not self._fair.precedes(awaited, first):
            self._awaited = None
            return 0.0
        if left_s <= 0:
            awaited.slow_until_s = time.monotonic() + _PATIENCE_S
            self._awaited = None
        return max(0.0, left_s)

    def _tidy(self, now_s: float) -> None:
        for client in list(self._clients.values()):
            if client.network is None and now_s - client.since_s > _HELLO_S:
                self._forget(client)
        self._networks.drop_unused({client.network for client in self._clients.values()})

    def _forget(self, client: _Client) -> None:
        channel = client.lines.channel
        if self._clients.pop(channel, None) is not None:
            self._selector.unregister(channel)
        client.lines.close()
        self._fair.forget(client)
        if client is self._awaited:
            self._awaited = None

    def _report(self, load: float) -> dict[str, Any]:
        engines = self._networks.engines()
        return {
            "cameras": sum(client.network is not None for client in self._clients.values()),
            "calls": self._calls,
            "crops": dict(self._crops),
            "load": round(load, 3),
            "models": sorted(engine.model.name for engine in engines),
            "engine": engines[0].name if engines else "",
            "delay": self._delays.summary(),
        }

    def _close(self) -> None:
        for client in list(self._clients.values()):
            self._forget(client)
        self._selector.close()
        self._listener.close()
        Path(self._place.socket).unlink(missing_ok=True)
        self._networks.close()


def shared_call(order: list[_Client], batch_size: int) -> list[tuple[_Client, int]]:
    """Whose crops share the first one's call, and how many of each: `batch_size` at most together."""
    chosen: list[tuple[_Client, int]] = []
    for client in order:
        if client.network is order[0].network and (count := min(client.left, batch_size)):
            chosen.append((client, count))
            batch_size -= count
    return chosen


def _told(link: Connection, report: dict[str, Any]) -> bool:
    """False where the other side is gone, or says that it is time to end."""
    try:
        if link.poll(0):
            link.recv()
            return False
        link.send(("report", report))
    except (EOFError, OSError):
        return False
    return True


def run_restorer(link: Connection, place: Place, threads: int, unused_s: float = _UNUSED_S) -> None:
    """Body of the restorer's process. `threads` are the network's; whoever comes finds it at `place`."""
    Restorer(place, threads, unused_s).run(link)
