"""The protocols that a pipeline is made of, and the one loop that runs every stage."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import Any, Protocol, TypeVar

from stream.errors import StageError, StreamError
from stream.picture.face import FrameWork
from stream.picture.frame import Frame
from stream.pipeline.channel import Channel, Closed
from stream.pipeline.meter import Meter

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)


class Feed(Protocol[Out]):
    """What the first stage of a pipeline reads."""

    def works(self) -> Iterator[Out]:
        """Items in order, for one pipeline; waits for them."""

    def leave(self) -> None:
        """End `works` before its items are used up; from any thread."""

    @property
    def cut_short(self) -> bool:
        """Whether `leave` kept items from being read."""


class Source(Protocol):
    """Decoded frames of files. It opens with the first frame and closes with the generator."""

    frames_in: int
    """Frames handed out so far."""
    notes: list[str]
    """What the user should know of the input, one line each."""

    @property
    def corrupt_packets(self) -> int:
        """Packets that were damaged."""

    def frames(self) -> Generator[Frame, None, None]:
        """Frames in order; the reader may close the generator at any of them. Raises SourceError."""


class Stage(Protocol[In, Out]):
    """One step of the pipeline. All four methods run in the stage's own thread; it knows no queue.

    Only `process` has to be written: the others do nothing by default.
    """

    def open(self) -> None:
        """Acquire handles and devices."""
        return None

    def process(self, item: In) -> Iterable[Out]:
        """None, one or several results for an item."""

    def flush(self) -> Iterable[Out]:
        """What was held back; called once, at the end of the stream only, never after an error."""
        return ()

    def close(self) -> None:
        """Release everything; always called."""
        return None


class Sink(Stage[FrameWork, None], Protocol):
    """The last stage: writes frames and yields nothing."""

    frames_out: int
    """Frames written so far."""
    notes: list[str]
    """What the user should know of the output, one line each."""


NamedStage = tuple[str, Stage[Any, Any]]
"""A stage and the name of its thread, its meter and its errors."""


def run_stage(stage: Stage[In, Out], inbox: Iterable[In], outbox: Channel[Out] | None, meter: Meter) -> None:
    """Feed a stage from `inbox` until it ends, then flush. Errors are raised, after `close`.

    An unexpected exception becomes a StageError that names the stage and keeps it as its cause.
    """

    def timed(call: Callable[[], Iterable[Out]]) -> None:
        results = _lazily(call)
        while True:
            with meter.measure():
                try:
                    result = next(results)
                except StopIteration:
                    return
            if outbox is not None:
                outbox.put(result)

    try:
        try:
            stage.open()
            for item in inbox:
                timed(partial(stage.process, item))
            timed(stage.flush)
        finally:
            stage.close()
    except (StreamError, MemoryError, Closed):
        raise
    except Exception as error:
        raise StageError(f"{meter.name}: {type(error).__name__}: {error}") from error


def _lazily(call: Callable[[], Iterable[Out]]) -> Iterator[Out]:
    """Run `call` only when the first result is asked for, so that its time is measured."""
    yield from call()
