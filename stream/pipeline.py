"""Stages -> running threads; the first error wins."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from stream.channel import Channel, Closed, Overflow
from stream.face import FrameWork
from stream.frame import Frame
from stream.inlet import Inlet
from stream.metrics import Meter
from stream.stage import Stage, run_stage
from stream.workers import start_thread

QUEUE = 4
"""Items between two stages: enough to even out their pace, few enough to hold 4K frames."""
_POLL_S = 0.1


class Source(Protocol):
    """Where frames come from; runs in the decoder's thread."""

    frames_in: int

    def frames(self) -> Iterator[Frame]:
        """Frames in order; the generator is closed where it is left."""


class Pipeline:
    """A source, named stages in a row, one thread each, bounded channels that block between them.

    The first error of any thread wakes all others and is raised by `run`. `stop` ends the source;
    what is on its way is still finished.

    An `Inlet` in the source's place is live: its frames come from a thread of their own, which
    outlives this pipeline, and whoever is last in the row tells it that a frame is `done`.
    """

    def __init__(self, source: Source | Inlet, stages: Sequence[tuple[str, Stage]]) -> None:
        self.meters = {name: Meter(name) for name in ("decode", *(name for name, _ in stages))}
        self._inlet = source if isinstance(source, Inlet) else None
        self._feed = _Feed(source)
        self._stages = stages
        self._channels = [Channel(QUEUE, Overflow.BLOCK) for _ in range(len(stages) + 1)]
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._aborted = False
        self._threads: list[threading.Thread] = []

    @property
    def stopped(self) -> bool:
        """Whether `stop` or a Ctrl-C kept frames of the source from going through."""
        return self._feed.cut_short or self._aborted

    def stop(self) -> None:
        """End the source early; may be called from any thread or a signal handler."""
        self._feed.stopping.set()
        if self._inlet is not None:
            self._inlet.leave()

    def run(self, on_tick: Callable[[], None] | None = None) -> None:
        """Run to the end, or raise the first error once every thread has ended.

        The last stage is the sink: what it yields is thrown away. `on_tick` is called ten times a
        second, in the caller's thread; an error of its own ends the run too. Ctrl-C stops the
        source, waits for what is on its way, and is raised again; a second one waits no longer.
        """
        interrupted: KeyboardInterrupt | None = None
        self._start(keep_results=False)
        while any(thread.is_alive() for thread in self._threads):
            try:
                next(t for t in reversed(self._threads) if t.is_alive()).join(_POLL_S)
                if on_tick is not None:
                    on_tick()
            except StopIteration:
                break
            except KeyboardInterrupt as signal:
                interrupted = interrupted or signal
                if self._feed.stopping.is_set():
                    self._aborted = True
                    self._abandon(Closed(), self._channels[:-2])
                    self._channels[-2].close()  # the sink still ends its file as it should
                self.stop()
            except BaseException as error:
                on_tick = None
                self._fail(error)
        if self._error is not None:
            raise self._error
        if interrupted is not None:
            raise interrupted

    def __iter__(self) -> Iterator[FrameWork]:
        """Run, and hand out what the last stage yields; leaving early stops everything."""
        self._start(keep_results=True)
        try:
            yield from self._channels[-1]
        except Closed:
            pass  # the error is raised below, once every thread has ended
        finally:
            self.stop()
            self._abandon(Closed(), self._channels)
            for thread in self._threads:
                thread.join()
        if self._error is not None:
            raise self._error

    def _start(self, keep_results: bool) -> None:
        jobs: list[tuple[str, Callable[[], None], Channel | None]]
        jobs = [("decode", self._decode, self._channels[0])] if self._inlet is None else []
        for i, (name, stage) in enumerate(self._stages):
            inbox, meter = self._channels[i], self.meters[name]
            if i == 0 and self._inlet is not None:
                inbox = self._inlet.works()
            outbox = self._channels[i + 1] if keep_results or i + 1 < len(self._stages) else None
            jobs.append((name, lambda s=stage, i=inbox, o=outbox, m=meter: run_stage(s, i, o, m), outbox))
        for name, body, outbox in jobs:
            self._threads.append(start_thread(name, self._guard, body, outbox))

    def _guard(self, body: Callable[[], None], outbox: Channel | None) -> None:
        """Run a thread's body; its error reaches all channels, its end the next stage."""
        try:
            body()
        except Closed:
            self.stop()  # nobody wants the results any more: wake every writer
            for channel in self._channels:
                channel.close()
        except BaseException as error:
            self._fail(error)
        finally:
            if outbox is not None:
                outbox.close()

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._error = self._error or error
        self.stop()
        self._abandon(self._error, self._channels)

    @staticmethod
    def _abandon(reason: BaseException, channels: Sequence[Channel]) -> None:
        """Throw away what is on its way there, and wake the threads on both sides."""
        for channel in channels:
            channel.fail(reason)

    def _decode(self) -> None:
        """The source is fed through the same loop as every stage: a stage of frames only."""
        run_stage(self._feed, ((),), self._channels[0], self.meters["decode"])


class _Feed:
    """The source as a stage: one item in, all frames out."""

    def __init__(self, source: Source | Inlet) -> None:
        self.stopping = threading.Event()
        self.cut_short = False
        """Whether the source was left before its end."""
        self._source = source

    def open(self) -> None:
        """The source opens itself."""

    def process(self, _: tuple) -> Iterator[FrameWork]:
        """Frames until the source ends or is stopped."""
        frames = self._source.frames()
        try:
            for frame in frames:
                yield FrameWork(frame)
                if self.stopping.is_set():
                    self.cut_short = True
                    return
        finally:
            frames.close()

    def flush(self) -> tuple:
        """Nothing is held back."""
        return ()

    def close(self) -> None:
        """The source closes itself."""
