"""The restorer's process: it runs the networks for the crops of many cameras, with shares by priority."""

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
from stream.server.restorer_service.networks import LoadingNetwork, Network, Networks
from stream.server.restorer_service.protocol import MessageSocket, RestorerAddress, SharedCrops, map_crops
from stream.server.restorer_service.restorer_messages import (
    CropCount,
    FromClient,
    Hello,
    Refused,
    RestorerReport,
    Welcome,
)
from stream.server.restorer_service.stride_scheduler import StrideScheduler

_UNUSED_S = 60.0
"""A network without a camera is closed after this time."""
_POLL_S = 0.2
_REPORT_S = 1.0
_HELLO_S = 10.0
"""A client that has sent no Hello within this time is disconnected."""
_MAX_CLIENTS = 256
"""More clients than this cannot all be cameras."""
_RETURN_S = 0.005
"""A camera that has more crops sends them within this time after an answer."""
_SLOW_S = 1.0
"""A camera that did not is not waited for during this time."""
_FROM_CLIENT: TypeAdapter[FromClient] = TypeAdapter(FromClient)


@dataclass(slots=True, eq=False)
class _Camera:
    """A client whose network is loaded, and the request that it waits for."""

    messages: MessageSocket[FromClient]
    name: str
    priority: float
    network: Network
    memory: SharedCrops
    requested: int = 0
    """Crops in the memory that are to be restored; 0: the camera waits for nothing."""
    done: int = 0
    """How many of these have been restored."""
    requested_at_s: float = 0.0
    """`time.monotonic()` of the request."""
    slow_until_s: float = 0.0
    """`time.monotonic()` until which the restorer does not wait for the camera."""

    @property
    def left(self) -> int:
        """Crops of the request that are still to be restored."""
        return self.requested - self.done


@dataclass(slots=True, eq=False)
class _Client:
    """A connected process."""

    messages: MessageSocket[FromClient]
    connected_at_s: float = field(default_factory=time.monotonic)
    request: tuple[Hello, LoadingNetwork] | None = None
    """Its Hello, and the network that it asks for."""
    camera: _Camera | None = None
    """Set as soon as the network is loaded."""


class RestorerService:
    """Serves cameras until the other end of its link is closed.

    It runs in one thread, beside one for each network that is being loaded. On a CPU one crop is restored
    at a time: a batch is no faster there, and after a shorter call the next camera's turn comes sooner. On
    a GPU crops of several cameras share a call.
    """

    def __init__(self, address: RestorerAddress, threads: int, unused_s: float = _UNUSED_S) -> None:
        self._address = address
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        Path(address.socket).unlink(missing_ok=True)
        self._listener.bind(address.socket)
        self._listener.listen(64)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._clients: dict[socket.socket, _Client] = {}
        self._networks = Networks(threads, unused_s)
        self._scheduler: StrideScheduler[_Camera] = StrideScheduler()
        self._awaited: _Camera | None = None
        """The camera that was answered last, as long as its next request is waited for."""
        self._await_until_s = 0.0
        self._crops: Counter[str] = Counter()
        self._calls, self._busy_s = 0, 0.0
        self._delays = Delays()

    def run(self, link: Connection[RestorerReport, Never]) -> None:
        """Serve until the link brings a message or is closed; a report is sent over it once a second."""
        reported_at_s, busy_s = time.monotonic(), 0.0
        pause_s = _POLL_S
        try:
            while True:
                self._receive(pause_s)
                self._answer_loaded()
                pause_s = self._restore_next()
                now_s = time.monotonic()
                if now_s - reported_at_s < _REPORT_S:
                    continue
                self._drop_unused(now_s)
                report = self._report((self._busy_s - busy_s) / (now_s - reported_at_s))
                if not _send_report(link, report):
                    return
                reported_at_s, busy_s = now_s, self._busy_s
        finally:
            self._close()

    def _receive(self, pause_s: float) -> None:
        """Wait `pause_s` at most for clients and messages, and handle them."""
        for key, _ in self._selector.select(pause_s):
            client: _Client | None = key.data
            if client is None:
                self._accept()
                continue
            try:
                client.messages.read()
                while (message := client.messages.buffered()) is not None:
                    self._handle(client, message)
            except (OSError, EOFError):
                self._disconnect(client.messages)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it has already left
            connection, _ = self._listener.accept()
            if len(self._clients) >= _MAX_CLIENTS:
                connection.close()
                return
            connection.setblocking(False)
            client = self._clients[connection] = _Client(MessageSocket(connection, _FROM_CLIENT))
            self._selector.register(connection, selectors.EVENT_READ, client)

    def _handle(self, client: _Client, message: FromClient) -> None:
        """Handle a message; ConnectionError if the client may not send it now."""
        match message:
            case Hello() if client.request is None:
                client.request = message, self._networks.get(message.path, message.settings)
            case CropCount(crops=count) if (camera := client.camera) is not None:
                if not camera.requested:
                    camera.requested, camera.done = min(count, len(camera.memory.crops)), 0
                    camera.requested_at_s = time.monotonic()
            case _:
                raise ConnectionError("a message that is not allowed now")

    def _answer_loaded(self) -> None:
        """Answer the clients whose network has been loaded meanwhile."""
        for client in list(self._clients.values()):
            if client.request is None or client.camera is not None:
                continue
            (hello, loading), messages = client.request, client.messages
            if not loading.done:
                continue
            try:
                if (network := loading.network) is None:
                    messages.send(Refused(error=loading.error))
                    self._disconnect(messages)
                    continue
                engine = network.engine
                in_size, size = engine.model.in_size, engine.model.size
                memory = map_crops(messages.handles[0], hello.count, in_size, size, create=False)
                client.camera = _Camera(messages, hello.camera, max(0.1, hello.priority), network, memory)
                messages.send(Welcome(name=engine.name, description=engine.description))
            except (OSError, ValueError, LookupError, OverflowError):
                self._disconnect(messages)

    def _restore_next(self) -> float:
        """Make one call of a network, for the cameras whose turn it is.

        Returns how long the service may wait for messages before the next call, in s.
        """
        waiting = [camera for one in self._clients.values() if (camera := one.camera) and camera.requested]
        if not waiting:
            return _POLL_S
        order = self._scheduler.order(waiting)
        if (pause_s := self._pause_for_awaited(order[0])) > 0:
            return pause_s
        network = order[0].network
        chosen = shared_call(order, network.batch_size) if network.gains_from_batches else [(order[0], 1)]
        batch = np.concatenate([one.memory.crops[one.done : one.done + count] for one, count in chosen])
        started_s = time.perf_counter()
        restored = network.run(batch)
        call_s = time.perf_counter() - started_s
        self._busy_s += call_s
        self._calls += 1
        first = 0
        for camera, count in chosen:
            camera.memory.restored[camera.done : camera.done + count] = restored[first : first + count]
            first += count
            camera.done += count
            work_s = call_s * count / len(batch)
            self._scheduler.charge(camera, work_s, camera.priority, own_turn=camera is order[0])
            self._crops[camera.name] += count
            if not camera.left:
                self._answer(camera)
        return 0.0

    def _answer(self, camera: _Camera) -> None:
        now_s, count = time.monotonic(), camera.requested
        camera.requested = camera.done = 0
        self._delays.add(1e3 * (now_s - camera.requested_at_s))
        if not camera.network.gains_from_batches and now_s >= camera.slow_until_s:
            self._awaited, self._await_until_s = camera, now_s + _RETURN_S
        try:
            camera.messages.send(CropCount(crops=count))
        except OSError:
            self._disconnect(camera.messages)

    def _pause_for_awaited(self, first: _Camera) -> float:
        """How long to wait, in s, for the next request of the camera that was answered last.

        It is waited for if its share is not used up, so that it would precede `first`. Otherwise cameras
        that request one crop after the other would take turns, whatever their priority (Iyer and
        Druschel, "Anticipatory scheduling", 2001).
        """
        awaited, left_s = self._awaited, self._await_until_s - time.monotonic()
        if awaited is None or awaited.requested or not self._scheduler.precedes(awaited, first):
            self._awaited = None
            return 0.0
        if left_s <= 0:
            awaited.slow_until_s = time.monotonic() + _SLOW_S
            self._awaited = None
        return max(0.0, left_s)

    def _drop_unused(self, now_s: float) -> None:
        """Disconnect clients that never sent a Hello, and close networks that no camera uses."""
        for client in list(self._clients.values()):
            if client.request is None and now_s - client.connected_at_s > _HELLO_S:
                self._disconnect(client.messages)
        requests = [client.request for client in self._clients.values() if client.request is not None]
        self._networks.drop_unused({loading for _, loading in requests})

    def _disconnect(self, messages: MessageSocket[FromClient]) -> None:
        client = self._clients.pop(messages.connection, None)
        if client is not None:
            self._selector.unregister(messages.connection)
            if client.camera is not None:
                self._scheduler.remove(client.camera)
                if client.camera is self._awaited:
                    self._awaited = None
        messages.close()

    def _report(self, load: float) -> RestorerReport:
        engines = self._networks.engines()
        return RestorerReport(
            cameras=sum(client.request is not None for client in self._clients.values()),
            calls=self._calls,
            crops=dict(self._crops),
            load=round(load, 3),
            models=tuple(sorted(engine.model.name for engine in engines)),
            engine=engines[0].name if engines else "",
            delay=self._delays.summary(),
        )

    def _close(self) -> None:
        for client in list(self._clients.values()):
            self._disconnect(client.messages)
        self._selector.close()
        self._listener.close()
        Path(self._address.socket).unlink(missing_ok=True)
        self._networks.close()


def shared_call(order: list[_Camera], batch_size: int) -> list[tuple[_Camera, int]]:
    """The cameras whose crops share a call with those of the first, and how many crops of each.

    Together they have at most `batch_size` crops.
    """
    chosen: list[tuple[_Camera, int]] = []
    for camera in order:
        if camera.network is order[0].network and (count := min(camera.left, batch_size)):
            chosen.append((camera, count))
            batch_size -= count
    return chosen


def _send_report(link: Connection[RestorerReport, Never], report: RestorerReport) -> bool:
    """Send a report; False if the other side is gone, or sends anything: that means to end."""
    try:
        if link.poll(0):
            link.recv()
            return False
        link.send(report)
    except (EOFError, OSError):
        return False
    return True


def run_restorer(
    link: Connection[RestorerReport, Never],
    address: RestorerAddress,
    threads: int,
    unused_s: float = _UNUSED_S,
) -> None:
    """Body of the restorer's process. `threads`: of each network's engine."""
    RestorerService(address, threads, unused_s).run(link)
