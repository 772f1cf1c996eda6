"""A camera's side: an engine that has its crops restored by the shared process."""

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
from stream.server.restorer_service.protocol import Lines, RestorerAddress, SharedCrops, map_slots, new_memory
from stream.server.restorer_service.restorer_messages import (
    Crops,
    EngineSettings,
    FromRestorer,
    Hello,
    Refused,
    Welcome,
)

_AGAIN_S = 0.5
"""Between two attempts to reach a restorer that is not there."""
_REFUSED_S = 10.0
"""Until a network that could not be loaded is asked for again."""
_LOAD_S = 90.0
"""A network may take so long to be converted and loaded, on its first use."""
_FROM_RESTORER: TypeAdapter[FromRestorer] = TypeAdapter(FromRestorer)


@dataclass(slots=True)
class _Link:
    """To a restorer, which shares the slots."""

    lines: Lines[FromRestorer]
    slots: SharedCrops
    welcome: bool = False
    """Whether the network is loaded there."""


class RemoteEngine:
    """An engine as `engines.base.Engine` describes it. For one thread.

    Where no restorer is there, or it loads the network again after a restart, crops come out as NaN
    at once: a live picture does not wait. What it does not answer within `timeout_s` comes out as NaN
    too. It is met again without an order. `priority` is the share, beside others' priorities.
    Raises ModelError where the network cannot be loaded.
    """

    def __init__(
        self,
        place: RestorerAddress,
        camera: str,
        model: ModelInfo,
        model_path: Path,
        settings: Restore,
        *,
        priority: int = 5,
        timeout_s: float = 2.0,
    ) -> None:
        self.model, self.name = model, "shared"
        self.description = "the restorer of all cameras"
        self._place, self._timeout_s = place, timeout_s
        self._count = settings.batch_size
        self._hello = Hello(
            camera=camera,
            priority=priority,
            path=str(model_path),
            count=self._count,
            settings=EngineSettings(
                kind=settings.engine,
                device=settings.device,
                batch_size=settings.batch_size,
                precision=settings.precision,
                fidelity=settings.fidelity,
            ),
        )
        self._link: _Link | None = None
        self._again_at_s = 0.0
        self._closed = False
        self._knock()
        if (error := self._hear(_LOAD_S)) is not None:
            raise ModelError(error)

    def restore(self, crops: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """See `Engine.restore`."""
        if self._closed:
            raise RuntimeError("the engine is closed")
        check_crops(crops, self.model)
        side = self.model.size
        restored = np.full((len(crops), side, side, 3), np.nan, np.float32)
        if self._link is None and time.monotonic() >= self._again_at_s:
            self._knock()
        if self._link is not None and not self._link.welcome:
            self._hear(0.0)
        deadline_s = time.monotonic() + self._timeout_s
        for at in range(0, len(crops), self._count):
            link = self._link
            if link is None or not link.welcome:
                break
            self._ask(link, crops[at : at + self._count], restored[at : at + self._count], deadline_s)
        return restored

    def close(self) -> None:
        """See `Engine.close`."""
        self._closed = True
        self._leave()

    def _ask(
        self,
        link: _Link,
        crops: npt.NDArray[np.float32],
        restored: npt.NDArray[np.float32],
        deadline_s: float,
    ) -> None:
        """Have as many crops restored as there are slots, into `restored`."""
        lines, slots = link.lines, link.slots
        slots.crops[: len(crops)] = crops
        lines.channel.settimeout(max(0.01, deadline_s - time.monotonic()))
        try:
            lines.send(Crops(crops=len(crops)))
            if lines.receive() != Crops(crops=len(crops)):
                raise ConnectionError("not the answer that was asked for")
            restored[:] = slots.restored[: len(crops)]
        except (OSError, EOFError):
            self._leave()  # a late answer would be taken for the next one

    def _knock(self) -> None:
        """Connect, and hand over the memory; where nobody is there, it is tried again later."""
        self._again_at_s = time.monotonic() + _AGAIN_S
        lines = Lines(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), _FROM_RESTORER)
        lines.channel.settimeout(self._timeout_s)
        handle = -1
        try:
            lines.channel.connect(self._place.socket)
            handle = new_memory()
            slots = map_slots(handle, self._count, self.model.in_size, self.model.size, create=True)
            lines.send(self._hello, [handle])
        except OSError:
            lines.close()
            return
        finally:
            if handle >= 0:
                os.close(handle)
        self._link = _Link(lines, slots)

    def _hear(self, wait_s: float) -> str | None:
        """Whether the network is loaded there by now; the error where it cannot be."""
        link = self._link
        if link is None:
            return None
        link.lines.channel.settimeout(wait_s)
        try:
            answer = link.lines.receive()
        except (BlockingIOError, TimeoutError):
            return None
        except (OSError, EOFError):
            self._leave()
            return None
        match answer:
            case Refused(error=error):
                self._leave()
                self._again_at_s = time.monotonic() + _REFUSED_S
                return error
            case Welcome():
                link.welcome = True
                self.name, self.description = answer.name, answer.description
            case Crops():
                self._leave()
        return None

    def _leave(self) -> None:
        if self._link is not None:
            self._link.lines.close()
        self._link = None
