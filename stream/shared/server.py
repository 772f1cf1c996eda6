"""The restorer's process: takes crops of many cameras, runs the network, fair shares by priority."""

from __future__ import annotations

import json
import selectors
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stream.engines import create_engine
from stream.errors import StreamError
from stream.shared.fair import Fair
from stream.shared.lines import Lines, Place, Slots, map_slots
from stream.workers import Connection, start_thread

_UNUSED_S = 60.0
"""A network that nobody has asked for so long is dropped."""
_POLL_S = 0.2
_REPORT_S = 1.0


@dataclass(slots=True, eq=False)
class _Network:
    """One network, loaded or being loaded; `engine` and `error` are set by the loading thread."""

    key: str
    engine: Any = None
    error: str = ""
    loading: threading.Thread | None = None
    used_s: float = field(default_factory=time.monotonic)

    @property
    def settled(self) -> bool:
        return self.engine is not None or bool(self.error)


@dataclass(slots=True, eq=False)
class _Client:
    """A camera that is connected."""

    lines: Lines
    camera: str = ""
    priority: float = 1.0
    network: _Network | None = None
    file: Path | None = None
    """Until it has been mapped."""
    count: int = 0
    slots: Slots | None = None
    waiting: int = 0
    """Crops that wait in its slots."""


class Restorer:
    """Serves clients until the link's other end is closed. One thread, and one for each network that loads.

    On a CPU one client's crops are run at a time: a batch gains nothing there, and a shorter call
    lets the next one in sooner. On a GPU crops of several clients share a call.
    """

    def __init__(self, place: Place, threads: int) -> None:
        self._place, self._threads = place, threads
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        Path(place.socket).unlink(missing_ok=True)
        self._listener.bind(place.socket)
        self._listener.listen(64)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._clients: dict[socket.socket, _Client] = {}
        self._networks: dict[str, _Network] = {}
        self._fair = Fair()
        self._crops: Counter[str] = Counter()
        self._calls, self._busy_s = 0, 0.0

    def run(self, link: Connection) -> None:
        """Until the link says so, or closes; ("report", dict) goes over it once a second."""
        told_s, busy_s = time.monotonic(), 0.0
        try:
            while True:
                idle = not any(client.waiting for client in self._clients.values())
                self._listen(_POLL_S if idle else 0.0)
                self._welcome()
                self._serve()
                self._drop_unused()
                now = time.monotonic()
                if now - told_s >= _REPORT_S:
                    if link.poll(0):
                        link.recv()  # the order to end, or the end of the other side
                        return
                    link.send(("report", self._report((self._busy_s - busy_s) / (now - told_s))))
                    told_s, busy_s = now, self._busy_s
        except (EOFError, OSError):  # the supervisor is gone
            return
        finally:
            self._close()

    def _listen(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            if key.fileobj is self._listener:
                channel, _ = self._listener.accept()
                channel.setblocking(False)
                self._clients[channel] = _Client(Lines(channel))
                self._selector.register(channel, selectors.EVENT_READ)
                continue
            client = self._clients[key.fileobj]
            try:
                client.lines.read()
                while (message := client.lines.buffered()) is not None:
                    self._take(client, message)
            except (OSError, EOFError, KeyError, TypeError, ValueError):
                self._forget(client)

    def _take(self, client: _Client, message: dict) -> None:
        if client.network is None:
            client.camera, client.priority = str(message["camera"]), max(0.1, float(message["priority"]))
            client.count = int(message["count"])
            client.file = self._place.folder / Path(message["file"]).name
            client.network = self._network(message["path"], message["settings"])
        elif client.slots is not None and not client.waiting:
            client.waiting = max(0, min(int(message["crops"]), client.count))

    def _network(self, path: str, settings: dict[str, Any]) -> _Network:
        key = json.dumps([path, settings], sort_keys=True)
        network = self._networks.get(key)
        if network is None or network.error:
            network = self._networks[key] = _Network(key)
            network.loading = start_thread("load", self._load, network, path, settings)
        return network

    def _load(self, network: _Network, path: str, settings: dict[str, Any]) -> None:
        kind = settings.pop("kind")
        try:
            network.engine = create_engine(kind, path, threads=self._threads, **settings)
        except StreamError as error:
            network.error = str(error)
        except Exception as error:
            network.error = f"{path}: cannot be loaded ({type(error).__name__}: {error})"

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
                model = network.engine.model
                client.slots = map_slots(client.file, client.count, model.in_size, model.size, create=False)
                facts = {"name": network.engine.name, "description": network.engine.description}
                client.lines.send(facts)
            except (OSError, ValueError):
                self._forget(client)

    def _serve(self) -> None:
        """One call of a network, for those whose turn it is."""
        waiting = {id(client): client for client in self._clients.values() if client.waiting}
        if not waiting:
            return
        order = [waiting[one] for one in self._fair.order(waiting)]
        network, chosen = order[0].network, order[:1]
        if not network.engine.name.endswith("cpu"):
            room = order[0].count - order[0].waiting
            for client in order[1:]:
                if client.network is network and client.waiting <= room:
                    chosen.append(client)
                    room -= client.waiting
        crops = [client.slots.crops[: client.waiting] for client in chosen]
        batch = np.concatenate(crops) if len(crops) > 1 else np.array(crops[0])
        began = time.perf_counter()
        try:
            restored = network.engine.restore(batch)
        except Exception as error:  # this call is lost, the next one may go well
            print(f"restorer: {type(error).__name__}: {error}", flush=True)
            restored = None
        self._busy_s += time.perf_counter() - began
        self._calls += 1
        network.used_s = time.monotonic()
        at = 0
        for client in chosen:
            count, client.waiting = client.waiting, 0
            part = np.nan if restored is None else restored[at : at + count]
            client.slots.restored[:count] = part
            at += count
            self._fair.charge(id(client), count, client.priority)
            self._crops[client.camera] += count
            try:
                client.lines.send({"crops": count})
            except OSError:
                self._forget(client)

    def _drop_unused(self) -> None:
        used = {client.network.key for client in self._clients.values() if client.network}
        now = time.monotonic()
        for key, network in list(self._networks.items()):
            if key in used:
                network.used_s = now
            elif network.settled and now - network.used_s > _UNUSED_S:
                del self._networks[key]
                if network.engine is not None:
                    network.engine.close()

    def _forget(self, client: _Client) -> None:
        channel = client.lines.channel
        if self._clients.pop(channel, None) is not None:
            self._selector.unregister(channel)
        channel.close()
        self._fair.forget(id(client))

    def _report(self, load: float) -> dict[str, Any]:
        engines = [n.engine for n in self._networks.values() if n.engine is not None]
        return {
            "cameras": len(self._clients),
            "calls": self._calls,
            "crops": dict(self._crops),
            "load": round(load, 3),
            "models": sorted(engine.model.name for engine in engines),
            "engine": engines[0].name if engines else "",
        }

    def _close(self) -> None:
        for client in list(self._clients.values()):
            self._forget(client)
        self._listener.close()
        self._selector.close()
        Path(self._place.socket).unlink(missing_ok=True)
        for network in self._networks.values():
            network.loading.join()
            if network.engine is not None:
                network.engine.close()


def run_restorer(link: Connection, place: Place, threads: int) -> None:
    """Body of the restorer's process."""
    Restorer(place, threads).run(link)
