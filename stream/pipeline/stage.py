"""The protocols of a pipeline's parts, and the loop that runs every stage."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import Any, Protocol, TypeVar

from stream.errors import StageError, StreamError
from stream.picture.face import FrameWork
from stream.picture.frame import Frame
from stream.pipeline.channel import Channel, ChannelClosed
from stream.pipeline.meter import Meter

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)


class Feed(Protocol[Out]):
    """The input of a pipeline's first stage."""

    def items(self) -> Iterator[Out]:
        """Items in order, for one pipeline; the iterator waits for each."""

    def interrupt(self) -> None:
        """End `items` although items are left. May be called from any thread."""

    @property
    def cut_short(self) -> bool:
        """Whether items were left when `interrupt` was called."""


class Source(Protocol):
    """Decoded frames of files. The source opens with the first frame and closes with the generator."""

    frames_in: int
    """Frames that `frames` has yielded."""
    notes: list[str]
    """Remarks for the user about the input, one line each."""

    @property
    def corrupt_packets(self) -> int:
        """Number of damaged packets."""

    def frames(self) -> Generator[Frame, None, None]:
        """Frames in order; the reader may close the generator after any of them. Raises SourceError."""


class Stage(Protocol[In, Out]):
    """One step of a pipeline. All four methods run in the stage's own thread.

    A subclass has to write only `process`. The other methods do nothing by default.
    """

    def open(self) -> None:
        """Acquire handles and devices."""
        return None

    def process(self, item: In) -> Iterable[Out]:
        """The results for an item: none, one or several."""

    def flush(self) -> Iterable[Out]:
        """The results that are still due after the last item. Called once, and never after an error."""
        return ()

    def close(self) -> None:
        """Release handles and devices. Always called, also after an error."""
        return None


class Sink(Stage[FrameWork, None], Protocol):
    """The last stage: writes frames and yields nothing."""

    frames_out: int
    """Frames that were written."""
    notes: list[str]
    """Remarks for the user about the output, one line each."""


NamedStage = tuple[str, Stage[Any, Any]]
"""A stage, and its name in the threads, the report and the error messages."""


def run_stage(stage: Stage[In, Out], inbox: Iterable[In], outbox: Channel[Out] | None, meter: Meter) -> None:
    """Run a stage on all items of `inbox`, then flush it; its results go to `outbox`.

    An exception is raised after `close`. An unexpected one becomes the cause of a StageError that names
    the stage.
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
    except (StreamError, MemoryError, ChannelClosed):
        raise
    except Exception as error:
        raise StageError(f"{meter.name}: {type(error).__name__}: {error}") from error


def _lazily(call: Callable[[], Iterable[Out]]) -> Iterator[Out]:
    """Start `call` only when the first result is requested, so that the meter includes the call."""
    yield from call()
