"""All sinks of one session."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stream.live.packets import Message
from stream.live.sinks import SinkSpec
from stream.live.sinks.handle import SinkHandle, SinkReport, stop_all
from stream.live.status import Delays


class SinkGroup:
    """Runs the sinks and offers each message to all of them; `on_event` is that of `SinkHandle`.

    `start`, `check` and `stop` are called from one thread, the other methods from any.
    """

    def __init__(self, specs: Sequence[SinkSpec], on_event: Callable[[str, str], None]) -> None:
        self.delays = Delays()
        """Times from a picture's arrival to its delivery, over all sinks."""
        self._handles = [SinkHandle(spec, on_event=on_event, on_delay=self.delays.add) for spec in specs]

    def __len__(self) -> int:
        return len(self._handles)

    def start(self) -> None:
        """Start the process of each sink; returns at once."""
        for handle in self._handles:
            handle.start()

    def check(self) -> None:
        """Replace processes that died or hang, and report failures; to be called several times a second."""
        for handle in self._handles:
            handle.check()

    def wants(self, kind: type[Message]) -> bool:
        """Whether some sink wants messages of this kind now."""
        return any(handle.wants(kind) for handle in self._handles)

    def needs_keyframe(self) -> bool:
        """Whether some sink drops packets until a keyframe comes."""
        return any(handle.needs_keyframe() for handle in self._handles)

    def offer(self, message: Message) -> None:
        """Pass a message to every sink that accepts its kind; never blocks."""
        for handle in self._handles:
            handle.offer(message)

    def reports(self) -> tuple[SinkReport, ...]:
        """How each sink stands now."""
        return tuple(handle.report() for handle in self._handles)

    def stop(self, timeout_s: float) -> None:
        """Let every sink deliver what waits and end; those that hang are killed after about `timeout_s`."""
        stop_all(self._handles, timeout_s)
