"""Epochs as the outlet sends them, to a sink in this process or to a handle in real time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from flashes import RATE, coded, sound, wait_for

from stream.config import parse_config
from stream.live.packets import EpochStart, Message, Packet
from stream.live.sinks import create, parse_sink
from stream.live.sinks.audio import AudioCoder
from stream.live.sinks.handle import SinkHandle
from stream.live.sinks.sink import SinkError

CONFIG = parse_config({"record": {"free_gb": 0.0}})


def opened(text: str, *messages: Message):
    """A sink in this process, for what the process adds nothing to."""
    sink = create(parse_sink(text, CONFIG))
    try:
        sink.open()
        for message in messages:
            sink.write(message)
    except SinkError:
        sink.close()
        raise
    return sink


def epoch_messages(frames: int, with_sound: bool = False, **changes) -> list[EpochStart | Packet]:
    """An epoch as the outlet sends it: packets of picture and sound in order of time."""
    start, *packets = coded(frames, **changes)
    if with_sound:
        heard = list(sound("aac", 48000, frames / RATE))
        coder = AudioCoder(heard[0].format)
        packets += [packet for piece in heard for packet in coder.encode(piece)]
        packets.sort(key=lambda packet: packet.dts)
        start = replace(start, audio=coder.format)
    return [start, *packets]


class Feed:
    """Offers an epoch to a handle in real time or faster, and again from its start, until the block ends."""

    def __init__(self, handle: SinkHandle, messages: list[EpochStart | Packet], speed: float = 1) -> None:
        self.handle, self._messages, self._speed = handle, messages, speed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        began, turn = time.monotonic(), 0
        start, *packets = self._messages
        length = max(packet.dts + packet.duration for packet in packets)
        self.handle.offer(start)
        while not self._stop.is_set():
            for packet in packets:
                due = began + (turn * length + packet.dts) / 90000 / self._speed
                if self._stop.wait(max(0.0, due - time.monotonic())):
                    return
                moved = turn * length
                self.handle.offer(
                    replace(packet, pts=packet.pts + moved, dts=packet.dts + moved,
                            arrived_at_s=time.monotonic())
                )  # fmt: skip
            turn += 1

    def __enter__(self) -> Feed:
        self.handle.start()
        self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        self._stop.set()
        self._thread.join()
        self.handle.stop(30)

    def wait(self, condition: Callable[[dict], object]):
        """Wait until the condition holds for the handle's report."""

        def tick() -> None:
            self.handle.check()

        return wait_for(lambda: condition(self.handle.report()), tick=tick)
