"""The networks that a restorer has loaded: each once, on demand, dropped when nobody uses it."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stream.engines import Engine, create_engine
from stream.errors import StreamError
from stream.workers import start_thread

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Network:
    """One network, loaded or being loaded; `engine` and `error` are set by the loading thread."""

    path: str
    batch_size: int = 1
    engine: Engine | None = None
    error: str = ""
    loading: threading.Thread | None = None
    used_s: float = field(default_factory=time.monotonic)
    failing: bool = False
    """Whether its last call went wrong."""

    @property
    def settled(self) -> bool:
        """Loaded, or known to be impossible."""
        return self.engine is not None or bool(self.error)

    @property
    def batches(self) -> bool:
        """Whether several crops in one call cost less than one by one: on a GPU, not on a CPU."""
        return self.engine is not None and not self.engine.name.endswith("cpu")

    def run(self, crops: np.ndarray) -> np.ndarray:
        """The restored crops; NaN where the call fails, which is said once until one goes well."""
        self.used_s = time.monotonic()
        try:
            restored = self.engine.restore(crops)
        except Exception as error:  # this call is lost, the next one may go well
            if not self.failing:
                _log.warning("restorer: %s: %s: %s", self.path, type(error).__name__, error)
            self.failing = True
            return np.full((len(crops), *(self.engine.model.size,) * 2, 3), np.nan, np.float32)
        self.failing = False
        return restored


class Networks:
    """Every network by what it is and how it runs. Each is loaded in a thread of its own."""

    def __init__(self, threads: int, unused_s: float) -> None:
        self._threads, self._unused_s = threads, unused_s
        self._networks: dict[str, Network] = {}

    def get(self, path: str, settings: dict[str, Any]) -> Network:
        """The network at `path`; it may still be loading. `settings` are those of `create_engine`."""
        batch_size = int(settings["batch_size"])
        # Another size of batches is no other network: the first one's holds for all.
        key = json.dumps([path, settings | {"batch_size": 0}], sort_keys=True)
        network = self._networks.get(key)
        if network is None or network.error:
            network = self._networks[key] = Network(path, batch_size)
            network.loading = start_thread("load", self._load, network, dict(settings))
        return network

    def drop_unused(self, used: Collection[Network]) -> None:
        """Release what is not in `used`, and has not been for a while."""
        now_s = time.monotonic()
        for key, network in list(self._networks.items()):
            if network in used:
                network.used_s = now_s
            elif network.settled and now_s - network.used_s > self._unused_s:
                del self._networks[key]
                if network.engine is not None:
                    network.engine.close()

    def engines(self) -> list[Engine]:
        """Those that are loaded."""
        return [one.engine for one in self._networks.values() if one.engine is not None]

    def close(self) -> None:
        """Release all."""
        for network in self._networks.values():
            network.loading.join()
            if network.engine is not None:
                network.engine.close()

    def _load(self, network: Network, settings: dict[str, Any]) -> None:
        try:
            kind = settings.pop("kind")
            network.engine = create_engine(kind, network.path, threads=self._threads, **settings)
        except StreamError as error:
            network.error = str(error)
        except Exception as error:
            network.error = f"{network.path}: cannot be loaded ({type(error).__name__}: {error})"
