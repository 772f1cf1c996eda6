"""A live session: one source, its stages and its sinks, which run until they are stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

import cv2

from stream.config import Config
from stream.live.packets import JpegPicture, Snapshot
from stream.live.session.control import Control
from stream.live.session.degradation import PERIOD_S, Degradation
from stream.live.session.delivery import DeliveryStage
from stream.live.session.event_rules import EventRules
from stream.live.session.graph import CreateEngine, Graph
from stream.live.session.graph_runner import GraphRunner
from stream.live.session.intake import Intake
from stream.live.session.live_settings import LiveSettings
from stream.live.session.load import GraphLoader
from stream.live.session.outlet import Outlet
from stream.live.session.pace_control import PaceControl
from stream.live.session.previews import Previews
from stream.live.session.session_meter import SessionMeter, memory_mb
from stream.live.session.session_report import SessionReport
from stream.live.session.snapshot_stage import SnapshotStage
from stream.live.sinks import SinkSpec
from stream.live.sinks.sink_group import SinkGroup
from stream.live.source.address import Address
from stream.live.source.capture import Capture
from stream.pipeline.cpu_budget import available_cores, budget
from stream.pipeline.pipeline import Pipeline

_FLUSH_S = 8.0
"""How long the sinks may take at the end to deliver what waits."""


class Session:
    """Connects the capture, the stages and the sinks of one camera, and runs them.

    The picture goes out from the first frame on. Faces are restored as soon as the network is loaded. A
    change of the model or the preset, or a stage that fails, interrupts the restoration for a while, but
    never the picture. `on_event(kind, text)` and `on_preview(kind, jpeg)` are called in the session's own
    threads and must not block. Raises ConfigError and ModelError.
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
        on_preview: Callable[[str, JpegPicture], None] = lambda kind, jpeg: None,
    ) -> None:
        self.name, self._address = name, address
        self._threads = budget(
            available_cores(), config.restore.threads, config.decode.threads, config.encode.threads
        )
        self._control = Control(config)
        self._meter, self._previews = SessionMeter(), Previews(on_preview)
        rules = EventRules(on_event)
        self._sinks = SinkGroup(sinks, on_event)
        capture = Capture(
            address,
            config.source,
            decoder_threads=self._threads.decoder,
            hardware=config.decode.hardware == "auto",
            on_status=rules.source_changed,
            on_audio=lambda packet: self._outlet.add_sound(packet),
        )
        self._intake = Intake(name, capture, config, self._control)
        snapshots = SnapshotStage(
            wants_pair=lambda: self._previews.wants_pair,
            wants_snapshots=lambda: self._sinks.wants(Snapshot),
            on_snapshot=self._sinks.offer,
        )
        self._loader = GraphLoader(
            name,
            config,
            preset,
            self._control,
            create=lambda config: Graph(
                config, self._control, create_engine, lambda text: on_event("model_failed", text), snapshots
            ),
            await_frame=self._intake.await_frame,
            on_event=on_event,
        )
        self._outlet = Outlet(
            self._sinks,
            config.live,
            note=f"faces restored by gpen-stream ({self._loader.loaded.model.name})",
            threads=self._threads.encoder,
            get_audio=lambda: capture.audio,
            get_rate=lambda: capture.rate,
        )
        inlet, budget_s = self._intake.inlet, config.latency.budget_ms / 1e3
        observers = rules.frame_delivered, self._previews.make
        self._delivery = DeliveryStage(self._outlet, inlet, budget_s, observers)
        self._runner = GraphRunner(inlet, self._delivery, self._control, on_event)
        degradation = Degradation(config.latency.give_way)
        self._pace = PaceControl(degradation, self._control, self._delivery, capture.drops, on_event)
        self._sampled_at_s = 0.0

    # --- running ---------------------------------------------------------------------------------

    def run(self, stop: threading.Event, on_tick: Callable[[], None] = lambda: None) -> None:
        """Run until `stop` is set or a file without loop ends; the sinks are flushed within 10 s.

        `on_tick` is called ten times a second in this thread.
        """
        cv2.setNumThreads(self._threads.cv2)
        self._meter.begin()
        self._sampled_at_s = time.monotonic()
        with ExitStack() as ending:  # the last callback runs first, and each runs even if another one fails
            ending.callback(self._loader.join)
            ending.callback(self._intake.join)
            ending.callback(self._outlet.close)
            ending.callback(self._sinks.stop, 0.0)  # in case the next one was interrupted
            ending.callback(self._sinks.stop, _FLUSH_S)
            ending.callback(self._intake.stop)
            ending.callback(self._loader.end)
            self._sinks.start()
            self._intake.start()
            while not self._intake.inlet.closed:
                self._run_graph(stop, on_tick)
            if (error := self._intake.error or self._loader.error) is not None:
                raise error

    @property
    def is_loading(self) -> bool:
        """Whether a network is being loaded, which nothing can interrupt; after `run` it is discarded."""
        return self._loader.is_loading

    def _run_graph(self, stop: threading.Event, on_tick: Callable[[], None]) -> None:
        """Run one pipeline, until another graph is ready, a stage fails or the source ends."""
        graph = self._loader.pop()
        if graph is not None:
            self._pace.degradation.settle()
        if not self._runner.run(graph, lambda pipeline: self._tick(stop, pipeline, on_tick)):
            self._loader.reload()

    def _tick(self, stop: threading.Event, pipeline: Pipeline, on_tick: Callable[[], None]) -> None:
        """Called ten times a second in the thread of `run`."""
        on_tick()
        if stop.is_set() or self._loader.error is not None:
            self._intake.stop()
            return
        self._sinks.check()
        now_s = time.monotonic()
        if now_s - self._sampled_at_s >= PERIOD_S:
            self._sampled_at_s = now_s
            self._meter.update(pipeline.meters, self._intake.capture.frames_in, self._delivery.delivered)
            bypassed = self._control.idle or self._control.passing
            if self._pace.update(now_s, restores=self._runner.graph is not None and not bypassed):
                self._runner.apply()
        if self._loader.advance():
            pipeline.stop()

    # --- from other threads ----------------------------------------------------------------------

    def change(self, changes: LiveSettings) -> None:
        """Apply changes: all of them or, with a ConfigError or ModelError, none.

        Strengths, interval and regions hold from the next frame. A model or preset holds as soon as it is
        loaded; where that fails, nothing changes (event "change_failed").
        """
        self._loader.change(changes)
        self._runner.apply()

    def watch(self, kinds: frozenset[str]) -> None:
        """Make previews of these kinds from now on: "restored", "pair". Raises ConfigError."""
        self._previews.watch(kinds)

    def report(self) -> SessionReport:
        """How the session stands; from any thread."""
        capture, meter, delivery = self._intake.capture, self._meter, self._delivery
        status, faces, degradation = capture.status, self._runner.faces, self._pace.degradation
        return SessionReport(
            name=self.name,
            source=self._address.shown,
            state=status.state,
            words=status.words(),
            detail=status.detail,
            take=delivery.epoch,
            size=delivery.size,
            codec=capture.facts["codec"] if capture.facts is not None else "",
            fps_in=meter.fps_in,
            fps_out=meter.fps_out,
            delay=self._sinks.delays.summary(),
            delay_stages=delivery.ages.summary(),
            faces=delivery.faces,
            faces_restored=faces.restored,
            faces_carried=faces.propagated,
            faces_left_alone=faces.left_alone,
            faces_not_finite=faces.not_finite,
            frames_in=capture.frames_in,
            frames_out=delivery.delivered,
            level=degradation.number,
            level_words=degradation.level.words,
            idle=self._control.idle,
            restoring=self._runner.graph is not None and not self._control.bypasses,
            drops=dict(capture.drops.by_cause),
            corrupt_packets=capture.corrupt_packets,
            connections=capture.connections,
            sinks=self._sinks.reports(),
            load=meter.load,
            stage_ms=_stage_ms(meter.stage_s),
            cpu_cores=meter.cpu_cores,
            memory_mb=memory_mb(),
            settings=self._loader.settings(),
            engine=self._loader.loaded.engine,
            notes=tuple(capture.notes),
            uptime_s=meter.uptime_s,
        )


def _stage_ms(stage_s: Mapping[str, float]) -> dict[str, float]:
    """Milliseconds a frame by stage; "decode" is 0, since the capture decodes while it waits for packets."""
    rounded = {name: round(1e3 * seconds, 2) for name, seconds in stage_s.items()}
    return {"decode": 0.0, **rounded} if rounded else {}
