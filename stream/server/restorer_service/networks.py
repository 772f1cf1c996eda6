"""The networks of a restorer: each is loaded once, on demand, and closed when no camera uses it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stream.errors import StreamError
from stream.models.engines import Engine, create_engine
from stream.pipeline.processes import start_thread
from stream.server.restorer_service.restorer_messages import EngineSettings

_log = logging.getLogger(__name__)


class Network:
    """A loaded network."""

    def __init__(self, path: str, engine: Engine, batch_size: int) -> None:
        self.engine, self.batch_size = engine, batch_size
        self._path, self._failing = path, False

    @property
    def gains_from_batches(self) -> bool:
        """Whether one call with several crops is faster than several calls: on a GPU, not on a CPU."""
        return not self.engine.name.endswith("cpu")

    def run(self, crops: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Restore crops f32[N,in,in,3] to f32[N,S,S,3]; all values are NaN if the call fails.

        The first of several failures in a row is logged.
        """
        try:
            restored = self.engine.restore(crops)
        except Exception as error:  # this call is lost; the next one may succeed
            if not self._failing:
                _log.warning("restorer: %s: %s: %s", self._path, type(error).__name__, error)
            self._failing = True
            side = self.engine.model.size
            return np.full((len(crops), side, side, 3), np.nan, np.float32)
        self._failing = False
        return restored


@dataclass(slots=True, eq=False)
class LoadingNetwork:
    """A network that is being loaded. The thread that loads it sets either `network` or `error`."""

    network: Network | None = None
    error: str = ""
    used_s: float = field(default_factory=time.monotonic)
    """`time.monotonic()` when a camera last used it."""

    @property
    def done(self) -> bool:
        """Whether it is loaded, or loading has failed."""
        return self.network is not None or bool(self.error)


class Networks:
    """All networks, by file and engine settings. Each is loaded in a thread of its own."""

    def __init__(self, threads: int, unused_s: float) -> None:
        """`threads`: of each engine. `unused_s`: a network without a camera is closed after this time."""
        self._threads, self._unused_s = threads, unused_s
        self._networks: dict[tuple[str, EngineSettings], LoadingNetwork] = {}
        self._loaders: list[threading.Thread] = []

    def get(self, path: str, settings: EngineSettings) -> LoadingNetwork:
        """The network of a file, which may still be loading. Loading that has failed is tried again."""
        # Another batch size makes no other network: that of the first camera holds for all.
        key = path, settings.model_copy(update={"batch_size": 0})
        loading = self._networks.get(key)
        if loading is None or loading.error:
            loading = self._networks[key] = LoadingNetwork()
            self._loaders = [thread for thread in self._loaders if thread.is_alive()]
            self._loaders.append(start_thread("load", self._load, loading, path, settings))
        return loading

    def drop_unused(self, used: Collection[LoadingNetwork]) -> None:
        """Close the networks that are not in `used` and have not been for a while."""
        now_s = time.monotonic()
        for key, loading in list(self._networks.items()):
            if loading in used:
                loading.used_s = now_s
            elif loading.done and now_s - loading.used_s > self._unused_s:
                del self._networks[key]
                if loading.network is not None:
                    loading.network.engine.close()

    def engines(self) -> list[Engine]:
        """The engines of all loaded networks."""
        return [one.network.engine for one in self._networks.values() if one.network is not None]

    def close(self) -> None:
        """Wait for networks that are being loaded, and close all."""
        for thread in self._loaders:
            thread.join()
        for engine in self.engines():
            engine.close()

    def _load(self, loading: LoadingNetwork, path: str, settings: EngineSettings) -> None:
        try:
            engine = create_engine(
                settings.kind,
                path,
                device=settings.device,
                batch_size=settings.batch_size,
                threads=self._threads,
                precision=settings.precision,
                fidelity=settings.fidelity,
            )
            loading.network = Network(path, engine, settings.batch_size)
        except StreamError as error:
            loading.error = str(error)
        except Exception as error:
            loading.error = f"{path}: cannot be loaded ({type(error).__name__}: {error})"
