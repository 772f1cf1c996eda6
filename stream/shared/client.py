"""A camera's side: an engine that has its crops restored by the shared process."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import numpy as np

from stream.config import Restore
from stream.engines.base import check_crops
from stream.errors import ModelError
from stream.model import ModelInfo
from stream.shared.lines import Lines, Place, Slots, map_slots, new_memory

_AGAIN_S = 0.5
"""Between two attempts to reach a restorer that is not there."""
_REFUSED_S = 10.0
"""Until a network that could not be loaded is asked for again."""
_LOAD_S = 90.0
"""A network may take so long to be converted and loaded, on its first use."""


class RemoteEngine:
    """An engine as `engines.base.Engine` describes it. For one thread.

    Where no restorer is there, or it loads the network again after a restart, crops come out as NaN
    at once: a live picture does not wait. What it does not answer within `timeout_s` comes out as NaN
    too. It is met again without an order. `priority` is the share, beside others' priorities.
    Raises ModelError where the network cannot be loaded.
    """

    def __init__(
        self,
        place: Place,
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
        self._hello = {
            "camera": camera,
            "priority": priority,
            "path": str(model_path),
            "count": self._count,
            "settings": {
                "kind": settings.engine,
                "device": settings.device,
                "batch_size": settings.batch_size,
                "precision": settings.precision,
                "fidelity": settings.fidelity,
            },
        }
        self._lines: Lines | None = None
        self._slots: Slots | None = None
        self._welcome = False
        """Whether the network is loaded there."""
        self._again_at_s = 0.0
        self._closed = False
        self._knock()
        if (error := self._hear(_LOAD_S)) is not None:
            raise ModelError(error)

    def restore(self, crops: np.ndarray) -> np.ndarray:
        """See `Engine.restore`."""
        if self._closed:
            raise RuntimeError("the engine is closed")
        check_crops(crops, self.model)
        side = self.model.size
        restored = np.full((len(crops), side, side, 3), np.nan, np.float32)
        if self._lines is None and time.monotonic() >= self._again_at_s:
            self._knock()
        if self._lines is not None and not self._welcome:
            self._hear(0.0)
        deadline_s = time.monotonic() + self._timeout_s
        for at in range(0, len(crops), self._count):
            if not self._welcome:
                break
            self._ask(crops[at : at + self._count], restored[at : at + self._count], deadline_s)
        return restored

    def close(self) -> None:
        """See `Engine.close`."""
        self._closed = True
        self._leave()

    def _ask(self, crops: np.ndarray, restored: np.ndarray, deadline_s: float) -> None:
        """Have as many crops restored as there are slots, into `restored`."""
        self._slots.crops[: len(crops)] = crops
        self._lines.channel.settimeout(max(0.01, deadline_s - time.monotonic()))
        try:
            self._lines.send({"crops": len(crops)})
            if self._lines.receive().get("crops") != len(crops):
                raise ConnectionError
            restored[:] = self._slots.restored[: len(crops)]
        except (OSError, EOFError):
            self._leave()  # a late answer would be taken for the next one

    def _knock(self) -> None:
        """Connect, and hand over the memory; where nobody is there, it is tried again later."""
        self._again_at_s = time.monotonic() + _AGAIN_S
        lines = Lines(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        lines.channel.settimeout(self._timeout_s)
        handle = -1
        try:
            lines.channel.connect(self._place.socket)
            handle = new_memory()
            self._slots = map_slots(handle, self._count, self.model.in_size, self.model.size, create=True)
            lines.send(self._hello, [handle])
        except OSError:
            lines.close()
            return
        finally:
            if handle >= 0:
                os.close(handle)
        self._lines = lines

    def _hear(self, wait_s: float) -> str | None:
        """Whether the network is loaded there by now; the error where it cannot be."""
        if self._lines is None:
            return None
        self._lines.channel.settimeout(wait_s)
        try:
            answer = self._lines.receive()
        except (BlockingIOError, TimeoutError):
            return None
        except (OSError, EOFError):
            self._leave()
            return None
        if "error" in answer:
            self._leave()
            self._again_at_s = time.monotonic() + _REFUSED_S
            return str(answer["error"])
        self._welcome = True
        self.name, self.description = answer["name"], answer["description"]
        return None

    def _leave(self) -> None:
        if self._lines is not None:
            self._lines.close()
        self._lines = self._slots = None
        self._welcome = False
