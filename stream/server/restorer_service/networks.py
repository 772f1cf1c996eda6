"""The networks that a restorer has loaded: each once, on demand, dropped when nobody uses it."""

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
    """One network that is loaded."""

    def __init__(self, path: str, engine: Engine, batch_size: int) -> None:
        self.engine, self.batch_size = engine, batch_size
        self._path, self._failing = path, False

    @property
    def batches(self) -> bool:
        """Whether several crops in one call cost less than one by one: on a GPU, not on a CPU."""
        return not self.engine.name.endswith("cpu")

    def run(self, crops: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The restored crops; NaN where the call fails, which is logged once until one goes well."""
        try:
            restored = self.engine.restore(crops)
        except Exception as error:  # this call is lost, the next one may go well
            if not self._failing:
                _log.warning("restorer: %s: %s: %s", self._path, type(error).__name__, error)
            self._failing = True
            side = self.engine.model.size
            return np.full((len(crops), side, side, 3), np.nan, np.float32)
        self._failing = False
        return restored


@dataclass(slots=True, eq=False)
class Loading:
    """A network on its way; the thread that loads it sets either `network` or `error`."""

    network: Network | None = None
    error: str = ""
    used_s: float = field(default_factory=time.monotonic)
    """When a client last had it, monotonic."""

    @property
    def settled(self) -> bool:
        """Whether it is loaded, or known to be impossible."""
        return self.network is not None or bool(self.error)


class Networks:
    """Every network by what it is and how it runs. Each is loaded in a thread of its own."""

    def __init__(self, threads: int, unused_s: float) -> None:
        self._threads, self._unused_s = threads, unused_s
        self._loadings: dict[tuple[str, EngineSettings], Loading] = {}
        self._loaders: list[threading.Thread] = []

    def get(self, path: str, settings: EngineSettings) -> Loading:
        """The network at `path`; it may still be on its way."""
        # Another size of batches is no other network: the first one's holds for all.
        key = path, settings.model_copy(update={"batch_size": 0})
        loading = self._loadings.get(key)
        if loading is None or loading.error:
            loading = self._loadings[key] = Loading()
            self._loaders = [thread for thread in self._loaders if thread.is_alive()]
            self._loaders.append(start_thread("load", self._load, loading, path, settings))
        return loading

    def drop_unused(self, used: Collection[Loading]) -> None:
        """Release what is not in `used`, and has not been for a while."""
        now_s = time.monotonic()
        for key, loading in list(self._loadings.items()):
            if loading in used:
                loading.used_s = now_s
            elif loading.settled and now_s - loading.used_s > self._unused_s:
                del self._loadings[key]
                if loading.network is not None:
                    loading.network.engine.close()

    def engines(self) -> list[Engine]:
        """Those that are loaded."""
        return [one.network.engine for one in self._loadings.values() if one.network is not None]

    def close(self) -> None:
        """Release all."""
        for thread in self._loaders:
            thread.join()
        for engine in self.engines():
            engine.close()

    def _load(self, loading: Loading, path: str, settings: EngineSettings) -> None:
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
