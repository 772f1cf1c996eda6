"""A camera's side: an engine that has its crops restored by the shared process."""

from __future__ import annotations

import secrets
import socket
import time
from pathlib import Path

import numpy as np

from stream.config import Restore
from stream.engines.base import check_crops
from stream.errors import ModelError
from stream.model import ModelInfo
from stream.shared.lines import Lines, Place, map_slots

_AGAIN_S = 0.5
"""Between two attempts to reach a restorer that is not there."""
_LOAD_S = 90.0
"""A network may take so long to be converted and loaded, on its first use."""


class RemoteEngine:
    """An engine as `engines.base.Engine` describes it. For one thread.

    What is not answered within `timeout_s` comes out as NaN, and so do crops for a restorer that is
    gone; it is met again as soon as there is one. Raises ModelError where the network cannot be
    loaded.
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
        self._slots = None
        self._tried_s = 0.0
        self._closed = False
        self._meet(wait_s=_LOAD_S)

    def restore(self, crops: np.ndarray) -> np.ndarray:
        """See `Engine.restore`."""
        if self._closed:
            raise RuntimeError("the engine is closed")
        check_crops(crops, self.model)
        side = self.model.size
        restored = np.full((len(crops), side, side, 3), np.nan, np.float32)
        if self._lines is None and time.monotonic() - self._tried_s > _AGAIN_S:
            self._meet(wait_s=self._timeout_s)
        for at in range(0, len(crops), self._count):
            if self._lines is None:
                break
            part = crops[at : at + self._count]
            self._slots.crops[: len(part)] = part
            try:
                self._lines.send({"crops": len(part)})
                if self._lines.receive().get("crops") == len(part):
                    restored[at : at + len(part)] = self._slots.restored[: len(part)]
            except (OSError, EOFError):
                self._leave()
        return restored

    def close(self) -> None:
        """See `Engine.close`."""
        self._closed = True
        self._leave()

    def _meet(self, wait_s: float) -> None:
        """Connect, and hand over the file; where nobody is there, it is tried again later."""
        self._tried_s = time.monotonic()
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        channel.settimeout(wait_s)
        path = self._place.folder / f"crops-{secrets.token_hex(8)}"
        try:
            channel.connect(self._place.socket)
            slots = map_slots(path, self._count, self.model.in_size, self.model.size, create=True)
            lines = Lines(channel)
            lines.send(self._hello | {"file": path.name})
            answer = lines.receive()
        except (OSError, EOFError):
            channel.close()
            return
        finally:
            path.unlink(missing_ok=True)  # both sides have it mapped by now, or never will
        if "error" in answer:
            channel.close()
            raise ModelError(str(answer["error"]))
        channel.settimeout(self._timeout_s)
        self._lines, self._slots = lines, slots
        self.name, self.description = answer["name"], answer["description"]

    def _leave(self) -> None:
        if self._lines is not None:
            self._lines.channel.close()
        self._lines = self._slots = None
