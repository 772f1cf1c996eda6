"""The stage protocol and the one loop that runs every stage."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from stream.channel import Channel, Closed
from stream.errors import StageError, StreamError
from stream.metrics import Meter

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)


class Stage(Protocol[In, Out]):
    """One step of the pipeline. All four methods run in the stage's own thread; it knows no queue."""

    def open(self) -> None:
        """Acquire handles and devices."""

    def process(self, item: In) -> Iterable[Out]:
        """None, one or several results for an item."""

    def flush(self) -> Iterable[Out]:
        """What was held back; called once, at the end of the stream only, never after an error."""

    def close(self) -> None:
        """Release everything; always called."""


def run_stage(stage: Stage, inbox: Iterable, outbox: Channel | None, meter: Meter) -> None:
    """Feed a stage from `inbox` until it ends, then flush. Errors are raised, after `close`.

    An unexpected exception becomes a StageError that names the stage and keeps it as its cause.
    """

    def timed(results: Iterable) -> None:
        iterator = iter(results)
        while True:
            with meter.measure():
                result = next(iterator, _END)
            if result is _END:
                return
            if outbox is not None:
                outbox.put(result)

    try:
        try:
            stage.open()
            for item in inbox:
                timed(_lazily(stage.process, item))
            timed(_lazily(stage.flush))
        finally:
            stage.close()
    except (StreamError, MemoryError, Closed):
        raise
    except Exception as error:
        raise StageError(f"{meter.name}: {type(error).__name__}: {error}") from error


_END = object()


def _lazily(call, *arguments):
    """Run `call` only when the first result is asked for, so that its time is measured."""
    yield from call(*arguments) or ()
