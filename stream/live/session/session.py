"""A live session: one source, its stages, its sinks; runs until it is stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

import cv2

from stream.config import Config
from stream.errors import ConfigError, StageError
from stream.faces.assembly import Setup
from stream.live.packets import AudioPacket, Jpeg, Snapshot
from stream.live.session.degradation import PERIOD_S, Degradation, PaceSample
from stream.live.session.event_rules import EventRules, SessionCounts
from stream.live.session.graph import Control, CreateEngine, DeliveryStage, Graph
from stream.live.session.inlet import Inlet
from stream.live.session.live_settings import LiveSettings
from stream.live.session.motion_gate import MotionGate
from stream.live.session.outlet import Outlet
from stream.live.session.previews import KINDS, Previews
from stream.live.session.session_meter import SessionMeter, memory_mb
from stream.live.session.session_report import SessionReport
from stream.live.session.snapshot_stage import SnapshotStage
from stream.live.sinks import SinkSpec
from stream.live.sinks.handle import SinkHandle, stop_all
from stream.live.source.address import Address
from stream.live.source.capture import Capture
from stream.picture.face import FrameWork
from stream.picture.frame import Frame
from stream.pipeline.cpu_budget import available_cores, budget
from stream.pipeline.pipeline import Pipeline
from stream.pipeline.processes import start_thread

_CHECK_S = 0.2
_FLUSH_S = 8.0
"""For the sinks to deliver what waits."""
_END_S = 9.5
"""For all that a stop has to wait for; the longest is a network that is being loaded."""
_FAILURES = 3
"""So many unexpected failures of a stage within a minute end the session."""


class Session:
    """Capture, stages and sinks of one camera.

    The picture goes out from the first frame on; faces are restored as soon as the network is
    loaded. A change of model or preset, and a stage that fails, cost the restoration for a while,
    never the picture. `on_event(kind, text)` and `on_preview(kind, jpeg)` are called in the
    session's own threads and must not block. Raises ConfigError and ModelError.
    """

    def __init__(
        self,
        name: str,
        address: Address,
        sinks: Sequence[SinkSpec],
        config: Config,
        *,
        preset: str = "default",
        create_engine: CreateEngine | None = None,
        on_event: Callable[[str, str], None] = lambda kind, text: None,
        on_preview: Callable[[str, Jpeg], None] = lambda kind, jpeg: None,
        create_capture: Callable[..., Capture] = Capture,
    ) -> None:
        self.name, self._address = name, address
        self._create_engine, self._on_event = create_engine, on_event
        self._model = Setup.of(config).model
        self._control = Control(config, config.detect.interval)
        self._relief = Degradation(config.latency.give_way)
        self._gate = MotionGate(config.motion)
        self._gauges, self._previews = SessionMeter(), Previews(on_preview)
        self._watch = EventRules(on_event)
        threads = budget(
            available_cores(), config.restore.threads, config.decode.threads, config.encode.threads
        )
        self._cv2_threads = threads.cv2
        self._handles = [SinkHandle(spec, on_event=on_event) for spec in sinks]
        self._capture = create_capture(
            address,
            config.source,
            decoder_threads=threads.decoder,
            hardware=config.decode.hardware == "auto",
            on_status=self._watch.tell,
            on_audio=self._hear,
        )
        self._outlet = Outlet(
            self._handles,
            config.live,
            note=f"faces restored by gpen-stream ({self._model.name})",
            threads=threads.encoder,
            audio_of=lambda: self._capture.audio,
            rate_of=lambda: self._capture.rate,
        )
        self._tap = SnapshotStage(
            wants_pair=lambda: "pair" in self._previews.wanted,
            wants_snapshots=lambda: any(handle.wants(Snapshot) for handle in self._handles),
            on_snapshot=self._offer,
        )
        self._budget_s = config.latency.budget_ms / 1e3
        self._inlet = Inlet(config.latency.in_flight, self._budget_s, self._capture.drops)
        self._tail = DeliveryStage(self._outlet, self._inlet, self._budget_s, self._after)
        self._lock = threading.Lock()
        self._graph: Graph | None = None
        self._ready: Graph | None = None
        self._loading: threading.Thread | None = None
        self._reader: threading.Thread | None = None
        self._ended_s: float | None = None
        self._asked = self._loaded = config, preset
        """Settings and preset as they were asked for, and those of the newest graph."""
        self._must_load = True
        """Whether a graph of the settings asked for is to be loaded next."""
        self._engine_name = ""
        self._load_failed: Exception | None = None
        """Of the first graph: the session ends with it."""
        self._source_failed: Exception | None = None
        self._newest: Frame | None = None
        self._has_frame = threading.Event()
        """Set with the first frame, and at the end."""
        self._failures: list[float] = []
        self._counts = SessionCounts()
        self._began_s = time.monotonic()
        self._checked_s = self._judged_s = 0.0
        self._last = PaceSample(0, 0, 0, 0)

    # --- running ---------------------------------------------------------------------------------

    def run(self, stop: threading.Event, on_tick: Callable[[], None] = lambda: None) -> None:
        """Run until `stop` is set or a file without loop ends; sinks are flushed within 10 s.

        `on_tick` is called ten times a second in this thread.
        """
        cv2.setNumThreads(self._cv2_threads)
        self._began_s = self._judged_s = time.monotonic()
        with ExitStack() as ending:  # the last one first, whatever becomes of those before
            ending.callback(self._leave)
            ending.callback(self._outlet.close)
            ending.callback(stop_all, self._handles, 0.0)  # where the next was interrupted
            ending.callback(stop_all, self._handles, _FLUSH_S)
            ending.callback(self._outlet.flush)
            ending.callback(self._inlet.close)
            ending.callback(self._capture.stop)
            ending.callback(self._end)
            self._outlet.open()
            for handle in self._handles:
                handle.start()
            self._reader = start_thread(f"capture {self.name}", self._read)
            while not self._inlet.closed:
                self._run_graph(stop, on_tick)
            if (error := self._source_failed or self._load_failed) is not None:
                raise error

    @property
    def is_loading(self) -> bool:
        """Whether a network is being loaded, which nothing can interrupt; after `run`, for nobody."""
        return self._loading is not None and self._loading.is_alive()

    def _end(self) -> None:
        with self._lock:  # from here on the loader throws away what it has loaded
            self._ended_s = time.monotonic()
            graphs = [graph for graph in (self._graph, self._ready) if graph is not None]
            self._graph = self._ready = None
        for graph in graphs:
            graph.discard()

    def _leave(self) -> None:
        """Wait for the threads; for a loader no longer than a stop may take."""
        if self._reader is not None:
            self._reader.join()
        if self._loading is not None and self._ended_s is not None:
            self._loading.join(max(0.0, self._ended_s + _END_S - time.monotonic()))

    def _run_graph(self, stop: threading.Event, on_tick: Callable[[], None]) -> None:
        """One pipeline, until another graph is ready, a stage fails, or the source ends."""
        with self._lock:
            if self._ready is not None:
                self._graph, self._ready = self._ready, None
                self._relief.settle()
                self._apply()  # what has changed since the graph was loaded
        stages = self._graph.stages if self._graph is not None else []
        pipeline = Pipeline(self._inlet, [*stages, ("outlet", self._tail)])
        try:
            pipeline.run(lambda: self._tick(stop, pipeline, on_tick))
        except StageError as error:
            self._recover(error)
        finally:
            if self._graph is not None:
                self._counts.keep(self._graph.restore)
                self._graph = None  # its stages are closed

    def _recover(self, error: StageError) -> None:
        now = time.monotonic()
        self._failures = [at for at in self._failures if now - at < 60] + [now]
        if len(self._failures) > _FAILURES:
            raise error
        self._on_event("stage_failed", f"{error}; frames go out as they came until it is built anew")
        self._must_load = True

    def _read(self) -> None:
        """The capture's thread."""
        try:
            for frame in self._capture.frames():
                passes = self._gate.admit(frame)
                if self._gate.closed is not self._control.idle:
                    self._control.idle = self._gate.closed
                self._newest = frame
                self._has_frame.set()
                if passes:
                    self._inlet.put(frame)
                else:
                    self._capture.drops.add("idle")
        except Exception as error:
            self._source_failed = error
        finally:
            self._inlet.close()
            self._has_frame.set()

    def _tick(self, stop: threading.Event, pipeline: Pipeline, on_tick: Callable[[], None]) -> None:
        """Ten times a second, in the caller's thread."""
        now = time.monotonic()
        on_tick()
        if stop.is_set() or self._load_failed is not None:
            self._capture.stop()
            self._inlet.close()
            return
        if now - self._checked_s >= _CHECK_S:
            self._checked_s = now
            for handle in self._handles:
                handle.check()
        if now - self._judged_s >= PERIOD_S:
            self._judged_s = now
            self._judge(now, pipeline)
        with self._lock:
            if self._must_load and not self.is_loading:
                self._must_load = False
                self._loading = start_thread(f"load {self.name}", self._load, *self._asked)
            if self._ready is not None:
                pipeline.stop()

    def _judge(self, now: float, pipeline: Pipeline) -> None:
        """Once a second: how the machine keeps up, and what has to give way."""
        tail, drops, gauges = self._tail, self._capture.drops.by_cause, self._gauges
        gauges.second(pipeline.meters, self._capture.frames_in, tail.delivered)
        total = PaceSample(tail.delivered, tail.late, drops["overrun"] + drops["late"], 0)
        last, self._last = self._last, total
        second = PaceSample(
            total.delivered - last.delivered,
            total.late - last.late,
            total.dropped - last.dropped,
            self._control.wanted,
        )
        restores = self._graph is not None and not (self._control.idle or self._control.passing)
        if restores and self._relief.judge(now, second):
            self._control.level = self._relief.level
            self._apply()
            self._on_event("level_changed", f"level {self._relief.at}: {self._relief.level.words}")

    def _load(self, config: Config, preset: str) -> None:
        """In a thread of its own: a graph for other settings, while the old one runs on."""
        try:
            graph = Graph(config, self._control, self._create_engine, self._tell_trouble, self._tap)
            self._has_frame.wait()
            if (frame := self._newest) is not None and self._ended_s is None:
                graph.warm(frame)
        except Exception as error:
            if self._engine_name:
                self._take_back()
                self._on_event(
                    "change_failed", f"{' '.join(str(error).split())}; the settings stay as they were"
                )
            else:
                self._load_failed = error
            return
        with self._lock:
            if self._ended_s is not None:
                graph.discard()
                return
            if self._ready is not None:
                self._ready.discard()
            self._ready, self._loaded, self._model = graph, (config, preset), graph.model
            self._engine_name = graph.engine_name
            self._control.keyframes = config.detect.interval

    def _take_back(self) -> None:
        """The settings asked for could not be loaded: ask for those that need no loading only."""
        with self._lock:
            if not self._must_load:  # else something else has been asked for since
                held = LiveSettings.of(*self._asked, self._control.passing).at_once()
                self._asked = held.applied(*self._loaded)
                self._control.settings, _ = self._asked

    def _hear(self, packet: AudioPacket) -> None:
        self._outlet.hear(packet)

    def _offer(self, snapshot: Snapshot) -> None:
        for handle in self._handles:
            handle.offer(snapshot)

    def _after(self, work: FrameWork) -> None:
        """In the last stage's thread, once a frame has gone to the sinks."""
        self._counts.add(work)
        self._watch.faces(len(work.faces), work.frame.arrived_at_s)
        self._previews.make(work)

    def _tell_trouble(self, text: str) -> None:
        self._on_event("model_failed", text)

    def _apply(self) -> None:
        if (graph := self._graph) is not None:
            graph.follow(self._control)

    # --- from other threads ----------------------------------------------------------------------

    def change(self, changes: LiveSettings) -> None:
        """Apply changes: all of them or, with a ConfigError or ModelError, none.

        Strengths, interval and regions hold from the next frame; a model or preset as soon as it is
        loaded, and where that fails nothing changes (event "change_failed").
        """
        with self._lock:
            asked = self._asked
        changed, preset = changes.applied(*asked)
        if changes.loads:
            Setup.of(changed)  # refuses a model that is not here
        with self._lock:
            self._asked = changed, preset
            self._must_load |= changes.loads
            self._control.settings = changed
            if changes.passing is not None:
                self._control.passing = changes.passing
        self._apply()

    def watch(self, kinds: frozenset[str]) -> None:
        """Which previews are made from now on: "restored", "pair"."""
        unknown = kinds - KINDS
        if unknown:
            raise ConfigError(f"{min(unknown)}: no preview; choose of {', '.join(sorted(KINDS))}")
        self._previews.wanted = kinds

    def report(self) -> SessionReport:
        """How the session stands; from any thread."""
        capture, gauges, control, relief = self._capture, self._gauges, self._control, self._relief
        status, counts = capture.status, self._counts
        graph = self._graph
        settings = LiveSettings.of(control.settings, self._loaded[1], control.passing)
        return SessionReport(
            name=self.name,
            source=self._address.shown,
            state=status.state,
            words=status.words(),
            detail=status.detail,
            take=counts.epoch,
            size=counts.size,
            codec=capture.facts["codec"] if capture.facts is not None else "",
            fps_in=gauges.fps_in,
            fps_out=gauges.fps_out,
            delay=self._outlet.delay.summary(),
            delay_stages=self._tail.ages.summary(),
            faces=counts.faces,
            faces_restored=counts.restored + (graph.restore.faces_restored if graph else 0),
            faces_carried=counts.carried + (graph.restore.faces_carried if graph else 0),
            faces_left_alone=counts.left_alone + (graph.restore.faces_left_alone if graph else 0),
            faces_not_finite=counts.not_finite + (graph.restore.not_finite if graph else 0),
            frames_in=capture.frames_in,
            frames_out=self._tail.delivered,
            level=relief.at,
            level_words=relief.level.words,
            idle=control.idle,
            restoring=graph is not None and not control.untouched,
            drops=dict(capture.drops.by_cause),
            corrupt_packets=capture.corrupt_packets,
            connections=capture.connections,
            sinks=tuple(handle.report() for handle in self._handles),
            load=gauges.load,
            stage_ms=_stage_ms(gauges.stage_s),
            cpu_cores=gauges.cpu_cores,
            memory_mb=memory_mb(),
            settings=settings.model_copy(update={"model": self._model.name}),
            engine=self._engine_name,
            notes=tuple(capture.notes),
            uptime_s=round(time.monotonic() - self._began_s, 1),
        )


def _stage_ms(stage_s: Mapping[str, float]) -> dict[str, float]:
    """Milliseconds a frame by stage; "decode" is 0, since the capture decodes while it waits for packets."""
    spent = {name: round(1e3 * spent_s, 2) for name, spent_s in stage_s.items()}
    return {"decode": 0.0, **spent} if spent else {}
