"""Loads the graph for other settings in a thread, while the running graph goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from stream.config import Config
from stream.faces.assembly import Setup
from stream.live.session.control import Control
from stream.live.session.graph import Graph
from stream.live.session.live_settings import LiveSettings
from stream.models.info import ModelInfo
from stream.picture.frame import Frame
from stream.pipeline.processes import start_thread

_LONGEST_END_S = 9.5
"""Longest time from `end` until `join` returns. Loading a network cannot be interrupted."""


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """The settings of the newest graph."""

    config: Config
    preset: str
    model: ModelInfo
    engine: str = ""
    """Name of the engine; empty until the first graph is loaded."""


class GraphLoader:
    """Knows the settings that were asked for, and loads a graph whenever they need one.

    `create(config)` makes a graph, in the loader's thread. `await_frame()` waits for a frame and returns the
    newest one, or None at the end of the source. `on_event(kind, text)` is called when a change could not be
    loaded. Raises ConfigError and ModelError.
    """

    def __init__(
        self,
        name: str,
        config: Config,
        preset: str,
        control: Control,
        *,
        create: Callable[[Config], Graph],
        await_frame: Callable[[], Frame | None],
        on_event: Callable[[str, str], None],
    ) -> None:
        self.loaded = LoadedSettings(config, preset, Setup.of(config).model)
        self.error: Exception | None = None
        """Why the first graph could not be loaded: the session ends with it."""
        self._name, self._control = name, control
        self._create, self._await_frame, self._on_event = create, await_frame, on_event
        self._lock = threading.Lock()
        self._requested = config, preset
        """Settings and preset that were asked for."""
        self._must_load = True
        """Whether a graph for the settings asked for is to be loaded next."""
        self._thread: threading.Thread | None = None
        self._ready: Graph | None = None
        self._ended_at_s: float | None = None

    @property
    def is_loading(self) -> bool:
        """Whether a network is being loaded, which nothing can interrupt."""
        return self._thread is not None and self._thread.is_alive()

    def settings(self) -> LiveSettings:
        """All settings as they hold now; `model` is the loaded model's name."""
        control, loaded = self._control, self.loaded
        settings = LiveSettings.of(control.settings, loaded.preset, control.passing)
        return settings.model_copy(update={"model": loaded.model.name})

    def change(self, changes: LiveSettings) -> None:
        """Apply changes to the control, and load what they need: see `Session.change`."""
        with self._lock:
            requested = self._requested
        config, preset = changes.applied(*requested)
        if changes.loads:
            Setup.of(config)  # raises if there is no such model
        with self._lock:
            self._requested = config, preset
            self._must_load |= changes.loads
            self._control.change(config, changes.passing)

    def reload(self) -> None:
        """Load a graph for the same settings: the running one has failed."""
        with self._lock:
            self._must_load = True

    def advance(self) -> bool:
        """Start to load if that is due; returns whether a graph is ready.

        To be called several times a second.
        """
        with self._lock:
            if self._must_load and not self.is_loading:
                self._must_load = False
                self._thread = start_thread(f"load {self._name}", self._load, *self._requested)
            return self._ready is not None

    def pop(self) -> Graph | None:
        """The graph that is ready, which then belongs to the caller; None if there is none."""
        with self._lock:
            graph, self._ready = self._ready, None
        return graph

    def end(self) -> None:
        """Discard what is ready, and whatever is loaded from now on."""
        with self._lock:
            self._ended_at_s = time.monotonic()
            graph, self._ready = self._ready, None
        if graph is not None:
            graph.discard()

    def join(self) -> None:
        """Wait for the loader's thread, but no longer than 9.5 s after `end`."""
        if self._thread is not None and self._ended_at_s is not None:
            self._thread.join(max(0.0, self._ended_at_s + _LONGEST_END_S - time.monotonic()))

    def _load(self, config: Config, preset: str) -> None:
        """The body of the loader's thread."""
        try:
            graph = self._create(config)
            self._warm(graph)
        except Exception as error:
            if self.loaded.engine:
                self._revert()
                reason = " ".join(str(error).split())
                self._on_event("change_failed", f"{reason}; the settings stay as they were")
            else:
                self.error = error
            return
        with self._lock:
            if self._ended_at_s is not None:
                graph.discard()
                return
            if self._ready is not None:
                self._ready.discard()
            self._ready = graph
            self.loaded = LoadedSettings(config, preset, graph.model, graph.engine_name)

    def _warm(self, graph: Graph) -> None:
        frame = self._await_frame()
        if frame is None or self._ended_at_s is not None:
            return
        try:
            graph.warm(frame)
        except Exception:
            graph.discard()
            raise

    def _revert(self) -> None:
        """Return to the loaded settings, but keep changes that need no loading."""
        with self._lock:
            if not self._must_load:  # else other settings have been asked for since
                changes = LiveSettings.of(*self._requested, self._control.passing).without_loading()
                self._requested = changes.applied(self.loaded.config, self.loaded.preset)
                self._control.change(self._requested[0])
