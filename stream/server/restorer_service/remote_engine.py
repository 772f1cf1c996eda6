"""The camera's side: an engine whose crops are restored by the shared process."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from stream.config import Restore
from stream.errors import ModelError
from stream.models.engines.engine import check_crops
from stream.models.info import ModelInfo
from stream.server.restorer_service.protocol import (
    MessageSocket,
    RestorerAddress,
    SharedCrops,
    map_crops,
    new_memory,
)
from stream.server.restorer_service.restorer_messages import (
    CropCount,
    EngineSettings,
    FromRestorer,
    Hello,
    Refused,
    Welcome,
)

_RECONNECT_S = 0.5
"""Pause between two attempts to connect to a restorer."""
_RELOAD_S = 10.0
"""Pause before a network that could not be loaded is requested again."""
_LOAD_S = 90.0
"""Longest time for a network to be converted and loaded, on its first use."""
_FROM_RESTORER: TypeAdapter[FromRestorer] = TypeAdapter(FromRestorer)


@dataclass(slots=True)
class _Link:
    """A connection to a restorer, and the memory shared with it."""

    messages: MessageSocket[FromRestorer]
    memory: SharedCrops
    loaded: bool = False
    """Whether the restorer has loaded the network."""


class RemoteEngine:
    """An `Engine` that runs in the restorer's process. For one thread.

    A live picture does not wait. Crops come out as NaN at once while no restorer runs, or while one loads
    the network after a restart. They come out as NaN, too, if the restorer does not answer in time. The
    engine connects again by itself.
    """

    def __init__(
        self,
        address: RestorerAddress,
        camera: str,
        model: ModelInfo,
        model_path: Path,
        settings: Restore,
        *,
        priority: int = 5,
        timeout_s: float = 2.0,
    ) -> None:
        """Connect, and wait until the network is loaded if a restorer runs.

        `priority`: weight of this camera's share of the restorer, against the others' weights.
        `timeout_s`: longest wait for the answer to a call. Raises ModelError if the network cannot be
        loaded.
        """
        self.model, self.name = model, "shared"
        self.description = "the restorer of all cameras"
        self._address, self._timeout_s = address, timeout_s
        self._capacity = settings.batch_size
        self._hello = Hello(
            camera=camera,
            priority=priority,
            path=str(model_path),
            count=self._capacity,
            settings=EngineSettings(
                kind=settings.engine,
                device=settings.device,
                batch_size=settings.batch_size,
                precision=settings.precision,
                fidelity=settings.fidelity,
            ),
        )
        self._link: _Link | None = None
        self._retry_at_s = 0.0
        self._closed = False
        self._connect()
        if (error := self._poll_loaded(_LOAD_S)) is not None:
            raise ModelError(error)

    def restore(self, crops: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Restore crops as `Engine.restore` does, or return NaN."""
        if self._closed:
            raise RuntimeError("the engine is closed")
        check_crops(crops, self.model)
        side = self.model.size
        restored = np.full((len(crops), side, side, 3), np.nan, np.float32)
        if self._link is None and time.monotonic() >= self._retry_at_s:
            self._connect()
        if self._link is not None and not self._link.loaded:
            self._poll_loaded(0.0)
        deadline_s = time.monotonic() + self._timeout_s
        for first in range(0, len(crops), self._capacity):
            link = self._link
            if link is None or not link.loaded:
                break
            part = slice(first, first + self._capacity)
            self._call(link, crops[part], restored[part], deadline_s)
        return restored

    def close(self) -> None:
        """Disconnect from the restorer; idempotent."""
        self._closed = True
        self._disconnect()

    def _call(
        self,
        link: _Link,
        crops: npt.NDArray[np.float32],
        restored: npt.NDArray[np.float32],
        deadline_s: float,
    ) -> None:
        """Have at most `_capacity` crops restored, into `restored`; disconnect if that fails."""
        link.memory.crops[: len(crops)] = crops
        link.messages.connection.settimeout(max(0.01, deadline_s - time.monotonic()))
        try:
            link.messages.send(CropCount(crops=len(crops)))
            if link.messages.receive() != CropCount(crops=len(crops)):
                raise ConnectionError("the answer does not fit the request")
            restored[:] = link.memory.restored[: len(crops)]
        except (OSError, EOFError):
            self._disconnect()  # a late answer would be mistaken for the next one

    def _connect(self) -> None:
        """Connect and send the memory. If no restorer listens, a later call tries again."""
        self._retry_at_s = time.monotonic() + _RECONNECT_S
        messages = MessageSocket(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), _FROM_RESTORER)
        messages.connection.settimeout(self._timeout_s)
        handle = -1
        try:
            messages.connection.connect(self._address.socket)
            handle = new_memory()
            memory = map_crops(handle, self._capacity, self.model.in_size, self.model.size, create=True)
            messages.send(self._hello, [handle])
        except OSError:
            messages.close()
            return
        finally:
            if handle >= 0:
                os.close(handle)
        self._link = _Link(messages, memory)

    def _poll_loaded(self, wait_s: float) -> str | None:
        """Wait `wait_s` at most until the restorer has loaded the network; the error if it cannot."""
        link = self._link
        if link is None:
            return None
        link.messages.connection.settimeout(wait_s)
        try:
            answer = link.messages.receive()
        except (BlockingIOError, TimeoutError):
            return None
        except (OSError, EOFError):
            self._disconnect()
            return None
        match answer:
            case Refused(error=error):
                self._disconnect()
                self._retry_at_s = time.monotonic() + _RELOAD_S
                return error
            case Welcome():
                link.loaded = True
                self.name, self.description = answer.name, answer.description
            case CropCount():
                self._disconnect()
        return None

    def _disconnect(self) -> None:
        if self._link is not None:
            self._link.messages.close()
        self._link = None
