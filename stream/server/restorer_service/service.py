"""The restorer's process: takes crops of many cameras, runs the networks, fair shares by priority."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Never

import numpy as np
from pydantic import TypeAdapter

from stream.live.status import Delays
from stream.pipeline.processes import Connection
from stream.server.restorer_service.fair_share import Fair
from stream.server.restorer_service.networks import Loading, Network, Networks
from stream.server.restorer_service.protocol import Lines, RestorerAddress, SharedCrops, map_slots
from stream.server.restorer_service.restorer_messages import (
    Crops,
    FromClient,
    Hello,
    Refused,
    RestorerReport,
    Welcome,
)

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
_FROM_CLIENT: TypeAdapter[FromClient] = TypeAdapter(FromClient)


@dataclass(slots=True, eq=False)
class _Seat:
    """A camera whose network is loaded, and what it waits for."""

    lines: Lines[FromClient]
    camera: str
    priority: float
    network: Network
    slots: SharedCrops
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


@dataclass(slots=True, eq=False)
class _Client:
    """Whoever is connected."""

    lines: Lines[FromClient]
    since_s: float = field(default_factory=time.monotonic)
    wish: tuple[Hello, Loading] | None = None
    """Its hello, and the network that it asks for."""
    seat: _Seat | None = None
    """From its welcome on."""


class RestorerService:
    """Serves clients until the link's other end is closed. One thread, and one for each network that loads.

    On a CPU one crop is run at a time: a batch gains nothing there, and a shorter call lets the next
    camera in sooner. On a GPU crops of several cameras share a call.
    """

    def __init__(self, place: RestorerAddress, threads: int, unused_s: float = _UNUSED_S) -> None:
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
        self._fair: Fair[_Seat] = Fair()
        self._awaited: _Seat | None = None
        self._await_until_s = 0.0
        self._crops: Counter[str] = Counter()
        self._calls, self._busy_s = 0, 0.0
        self._delays = Delays()

    def run(self, link: Connection[RestorerReport, Never]) -> None:
        """Until the link says so, or closes; a report goes over it once a second."""
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
            client: _Client | None = key.data
            if client is None:
                self._accept()
                continue
            try:
                client.lines.read()
                while (message := client.lines.buffered()) is not None:
                    self._take(client, message)
            except (OSError, EOFError):
                self._forget(client.lines)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it is gone already
            channel, _ = self._listener.accept()
            if len(self._clients) >= _CLIENTS:
                channel.close()
                return
            channel.setblocking(False)
            client = self._clients[channel] = _Client(Lines(channel, _FROM_CLIENT))
            self._selector.register(channel, selectors.EVENT_READ, client)

    def _take(self, client: _Client, message: FromClient) -> None:
        """ConnectionError for a message that has no place here."""
        match message:
            case Hello() if client.wish is None:
                client.wish = message, self._networks.get(message.path, message.settings)
            case Crops(crops=count) if (seat := client.seat) is not None:
                if not seat.asked:
                    seat.asked, seat.done = min(count, len(seat.slots.crops)), 0
                    seat.asked_s = time.monotonic()
            case _:
                raise ConnectionError("a message out of its turn")

    def _welcome(self) -> None:
        """Answer those whose network has been loaded since."""
        for client in list(self._clients.values()):
            if client.wish is None or client.seat is not None:
                continue
            (hello, loading), lines = client.wish, client.lines
            if not loading.settled:
                continue
            try:
                if (network := loading.network) is None:
                    lines.send(Refused(error=loading.error))
                    self._forget(lines)
                    continue
                engine = network.engine
                in_size, size = engine.model.in_size, engine.model.size
                slots = map_slots(lines.handles[0], hello.count, in_size, size, create=False)
                client.seat = _Seat(lines, hello.camera, max(0.1, hello.priority), network, slots)
                lines.send(Welcome(name=engine.name, description=engine.description))
            except (OSError, ValueError, LookupError, OverflowError):
                self._forget(lines)

    def _serve(self) -> float:
        """One call of a network, for those whose turn it is; how long it may be listened meanwhile, s."""
        waiting = [seat for client in self._clients.values() if (seat := client.seat) and seat.asked]
        if not waiting:
            return _POLL_S
        order = self._fair.order(waiting)
        if (pause_s := self._patience(order[0])) > 0:
            return pause_s
        network = order[0].network
        chosen = shared_call(order, network.batch_size) if network.batches else [(order[0], 1)]
        batch = np.concatenate([seat.slots.crops[seat.done : seat.done + count] for seat, count in chosen])
        began = time.perf_counter()
        restored = network.run(batch)
        took_s = time.perf_counter() - began
        self._busy_s += took_s
        self._calls += 1
        at = 0
        for seat, count in chosen:
            seat.slots.restored[seat.done : seat.done + count] = restored[at : at + count]
            at += count
            seat.done += count
            work_s = took_s * count / len(batch)
            self._fair.charge(seat, work_s, seat.priority, turn=seat is order[0])
            self._crops[seat.camera] += count
            if not seat.left:
                self._answer(seat)
        return 0.0

    def _answer(self, seat: _Seat) -> None:
        now_s, count = time.monotonic(), seat.asked
        seat.asked = seat.done = 0
        self._delays.add(1e3 * (now_s - seat.asked_s))
        if not seat.network.batches and now_s >= seat.slow_until_s:
            self._awaited, self._await_until_s = seat, now_s + _RETURN_S
        try:
            seat.lines.send(Crops(crops=count))
        except OSError:
            self._forget(seat.lines)

    def _patience(self, first: _Seat) -> float:
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
            if client.wish is None and now_s - client.since_s > _HELLO_S:
                self._forget(client.lines)
        self._networks.drop_unused({one.wish[1] for one in self._clients.values() if one.wish is not None})

    def _forget(self, lines: Lines[FromClient]) -> None:
        client = self._clients.pop(lines.channel, None)
        if client is not None:
            self._selector.unregister(lines.channel)
            if client.seat is not None:
                self._fair.forget(client.seat)
                if client.seat is self._awaited:
                    self._awaited = None
        lines.close()

    def _report(self, load: float) -> RestorerReport:
        engines = self._networks.engines()
        return RestorerReport(
            cameras=sum(client.wish is not None for client in self._clients.values()),
            calls=self._calls,
            crops=dict(self._crops),
            load=round(load, 3),
            models=tuple(sorted(engine.model.name for engine in engines)),
            engine=engines[0].name if engines else "",
            delay=self._delays.summary(),
        )

    def _close(self) -> None:
        for client in list(self._clients.values()):
            self._forget(client.lines)
        self._selector.close()
        self._listener.close()
        Path(self._place.socket).unlink(missing_ok=True)
        self._networks.close()


def shared_call(order: list[_Seat], batch_size: int) -> list[tuple[_Seat, int]]:
    """Whose crops share the first one's call, and how many of each: `batch_size` at most together."""
    chosen: list[tuple[_Seat, int]] = []
    for seat in order:
        if seat.network is order[0].network and (count := min(seat.left, batch_size)):
            chosen.append((seat, count))
            batch_size -= count
    return chosen


def _told(link: Connection[RestorerReport, Never], report: RestorerReport) -> bool:
    """False where the other side is gone, or says that it is time to end."""
    try:
        if link.poll(0):
            link.recv()
            return False
        link.send(report)
    except (EOFError, OSError):
        return False
    return True


def run_restorer(
    link: Connection[RestorerReport, Never], place: RestorerAddress, threads: int, unused_s: float = _UNUSED_S
) -> None:
    """Body of the restorer's process. `threads` are the network's; whoever comes finds it at `place`."""
    RestorerService(place, threads, unused_s).run(link)
