"""Stages -> running threads; the first error wins."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Self

from stream.picture.face import FrameWork
from stream.pipeline.channel import Channel, ChannelClosed, Overflow
from stream.pipeline.meter import Meter
from stream.pipeline.processes import start_thread
from stream.pipeline.stage import Feed, NamedStage, Source, Stage, run_stage

_CAPACITY = 4
"""Items between two stages: enough to even out their pace, few enough for the memory of 4K frames."""
_TICK_S = 0.1


class Pipeline:
    """A feed and named stages in a row, each stage in its own thread, with blocking channels between them.

    The first stage reads the feed; every other stage reads the results of the stage before it. The first
    error in any thread ends all threads; `run` raises it. `stop` ends the feed early; items that are
    already in the stages are still finished.
    """

    def __init__(self, feed: Feed[Any], stages: Sequence[NamedStage]) -> None:
        self.meters = {name: Meter(name) for name, _ in stages}
        self._feed, self._stages = feed, stages
        self._outputs: list[Channel[Any]] = [Channel(_CAPACITY, Overflow.BLOCK) for _ in stages]
        """The results of each stage, for the next stage or for the iterator over the pipeline."""
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._stopping = self._aborted = False
        self._threads: list[threading.Thread] = []

    @classmethod
    def from_source(cls, source: Source, stages: Sequence[NamedStage]) -> Self:
        """A pipeline whose first stage, "decode", is a source of frames."""
        reader = _Reader(source)
        return cls(reader, [("decode", reader), *stages])

    @property
    def stopped(self) -> bool:
        """Whether `stop` or Ctrl-C left items of the feed unprocessed."""
        return self._feed.cut_short or self._aborted

    def stop(self) -> None:
        """End the feed early. May be called from any thread and from a signal handler."""
        self._stopping = True
        self._feed.interrupt()

    def run(self, on_tick: Callable[[], None] | None = None) -> None:
        """Run to the end. Raises the first error once every thread has ended.

        The last stage is the sink; its results are dropped. `on_tick` is called ten times a second in the
        caller's thread; an error that it raises ends the run too. Ctrl-C ends the feed, waits until the
        stages have finished, and is raised again. A second Ctrl-C drops the items in the stages; only the
        sink still ends its file properly.
        """
        interrupted: KeyboardInterrupt | None = None
        self._start(keep_results=False)
        while alive := [thread for thread in self._threads if thread.is_alive()]:
            try:
                alive[-1].join(_TICK_S)
                if on_tick is not None:
                    on_tick()
            except KeyboardInterrupt as signal:
                interrupted = interrupted or signal
                if self._stopping:
                    self._aborted = True
                    self._discard(ChannelClosed(), self._outputs[:-2])
                    for channel in self._outputs[-2:-1]:
                        channel.close()  # the sink still ends its file properly
                self.stop()
            except BaseException as error:
                on_tick = None
                self._fail(error)
        if self._error is not None:
            raise self._error
        if interrupted is not None:
            raise interrupted

    def __iter__(self) -> Iterator[FrameWork]:
        """Run and yield the results of the last stage; leaving the iteration early stops all threads."""
        self._start(keep_results=True)
        try:
            yield from self._outputs[-1]
        except ChannelClosed:
            pass  # the error is raised below, after every thread has ended
        finally:
            self.stop()
            self._discard(ChannelClosed(), self._outputs)
            for thread in self._threads:
                thread.join()
        if self._error is not None:
            raise self._error

    def _start(self, keep_results: bool) -> None:
        inbox: Iterable[Any] = self._feed.items()
        for at, (name, stage) in enumerate(self._stages):
            output = self._outputs[at]
            outbox = output if keep_results or at + 1 < len(self._stages) else None
            body = partial(run_stage, stage, inbox, outbox, self.meters[name])
            self._threads.append(start_thread(name, self._guard, body, outbox))
            inbox = output

    def _guard(self, body: Callable[[], None], outbox: Channel[Any] | None) -> None:
        """Run a thread's body. Its error fails all channels; its end closes the channel to the next stage."""
        try:
            body()
        except ChannelClosed:
            self.stop()  # nobody reads the results any more; closing the channels wakes every writer
            for channel in self._outputs:
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
        self._discard(self._error, self._outputs)

    @staticmethod
    def _discard(reason: BaseException, channels: Sequence[Channel[Any]]) -> None:
        """Drop the items of these channels and wake the threads on both sides."""
        for channel in channels:
            channel.fail(reason)


class _Reader(Stage[None, FrameWork]):
    """A source as feed and as first stage: for the feed's only item the stage yields all frames."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._interrupted = threading.Event()
        self._cut_short = False

    def items(self) -> Iterator[None]:
        """See `Feed.items`."""
        yield None

    def interrupt(self) -> None:
        """See `Feed.interrupt`."""
        self._interrupted.set()

    @property
    def cut_short(self) -> bool:
        """See `Feed.cut_short`."""
        return self._cut_short

    def process(self, item: None) -> Iterator[FrameWork]:
        """Frames until the source ends or `interrupt` is called."""
        frames = self._source.frames()
        try:
            for frame in frames:
                yield FrameWork(frame)
                if self._interrupted.is_set():
                    self._cut_short = True
                    return
        finally:
            frames.close()
