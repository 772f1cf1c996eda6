"""What is published is read back by others: servers, players, a browser, a screen."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from flashes import RATE, coded, picture, read, sound, wait_for
from receivers import free_port, rtmp_relay, rtsp_recorder

from stream.config import parse_config
from stream.packets import Message, Packet, Raw, Snapshot, Start
from stream.sinks import create, parse_sink
from stream.sinks.audio import AudioCoder
from stream.sinks.base import SinkDone, SinkError
from stream.sinks.handle import SinkHandle
from stream.sinks.hls import PLAYLIST
from stream.sinks.snapshots import INDEX, MOST
from stream.status import State

CONFIG = parse_config({"record": {"free_gb": 0.0}})


def opened(text: str, *messages: Message):
    """A sink in this process, for what the process adds nothing to."""
    sink = create(parse_sink(text, CONFIG))
    sink.open()
    for message in messages:
        sink.write(message)
    return sink


def take(frames: int, with_sound: bool = False, **changes) -> list[Start | Packet]:
    """A take as the outlet sends it: packets of picture and sound in order of time."""
    start, *packets = coded(frames, **changes)
    if with_sound:
        heard = list(sound("aac", 48000, frames / RATE))
        coder = AudioCoder(heard[0].format)
        packets += [packet for piece in heard for packet in coder.encode(piece)]
        packets.sort(key=lambda packet: packet.dts)
        start = replace(start, audio=coder.format)
    return [start, *packets]


def whole_packets(path: Path) -> None:
    """Cut off what a recorder had not finished: a picture that MPEG-TS does not end before its next one."""
    data = path.read_bytes()
    starts = [at for at in range(0, len(data) - 188, 188) if data[at + 1] & 0x40 and data[at : at + 1] == b"G"]
    path.write_bytes(data[: starts[-1]])


class Feed:
    """Offers a take to a handle in real time or faster, and again from its start, until the block ends."""

    def __init__(self, handle: SinkHandle, messages: list[Start | Packet], speed: float = 1) -> None:
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
        """Until it is true of the handle's report."""

        def tick() -> None:
            self.handle.check()

        return wait_for(lambda: condition(self.handle.report()), 100, tick)


def test_an_rtsp_server_records_picture_and_sound_in_step(tmp_path):
    recorded = tmp_path / "recorded.ts"
    with rtsp_recorder(recorded, sound=True) as (url, _):
        with Feed(SinkHandle(parse_sink(url, CONFIG)), take(100, with_sound=True)) as feed:
            report = feed.wait(lambda report: report["delivered"] >= 110 and report)
        assert report["state"] == "live" and report["delay"]["median_ms"] > 0
        wait_for(lambda: recorded.stat().st_size > 30_000)
    result = read(recorded)
    assert len(result.times_s) > 50 and result.sizes[0] == (320, 180)
    assert len(result.beeps_s) >= 3
    for flash in result.flashes_s[1:3]:
        assert min(abs(flash - beep) for beep in result.beeps_s) < 0.12


def test_an_rtsp_server_asks_for_a_password_and_it_is_in_no_message(tmp_path):
    with rtsp_recorder(tmp_path / "recorded.ts", user="me:sesame1") as (url, _):
        right, wrong = url.replace("//", "//me:sesame1@"), url.replace("//", "//me:sesame2@")
        with pytest.raises(SinkError, match="user name or password") as error:
            opened(wrong, *take(1))
        assert error.value.state is State.UNAUTHORISED and "sesame" not in str(error.value)
        with Feed(SinkHandle(parse_sink(right, CONFIG)), take(50)) as feed:
            feed.wait(lambda report: report["delivered"] > 10)
            wait_for(lambda: (tmp_path / "recorded.ts").stat().st_size > 5_000)
            assert "sesame" not in str(feed.handle.report()) + repr(feed.handle.spec)


def test_an_rtmp_server_relays_the_picture_to_players(tmp_path):
    with rtmp_relay(tmp_path) as (url, _):
        told = []
        handle = SinkHandle(parse_sink(f"{url}/cam", CONFIG), on_event=lambda *event: told.append(event))
        with Feed(handle, take(50, with_sound=True)) as feed:
            feed.wait(lambda report: report["delivered"] > 10)
            with av.open(f"{url}/cam", timeout=60) as player:
                kinds = {stream.type: stream.codec_context.name for stream in player.streams}
                levels, pts = [], []
                for frame in player.decode(video=0):
                    levels.append(frame.to_ndarray(format="gray").mean())
                    pts.append(frame.pts)
                    if len(levels) == 60:
                        break
        assert kinds == {"video": "h264", "audio": "aac"} and pts == sorted(set(pts))
        assert min(levels) < 60 and max(levels) > 200  # dark and flashing: not grey
        assert told == []


def test_a_server_that_was_killed_gets_the_picture_again_when_it_is_back(tmp_path):
    port, told = free_port(), []
    handle = SinkHandle(
        parse_sink(f"rtmp://127.0.0.1:{port}/live/cam", CONFIG), on_event=lambda *event: told.append(event)
    )
    with rtmp_relay(tmp_path, port=port) as (_, process), Feed(handle, take(50)) as feed:
        feed.wait(lambda report: report["delivered"] > 10)
        process.kill()
        process.wait()
        feed.wait(lambda report: report["state"] == "refused")
        assert told[0][0] == "sink_failed" and f"127.0.0.1:{port}/live/cam" in told[0][1]
        with rtmp_relay(tmp_path, port=port):
            before = handle.report()["delivered"]
            feed.wait(lambda report: report["state"] == "live" and report["delivered"] > before + 20)
            with av.open(f"rtmp://127.0.0.1:{port}/live/cam", timeout=60) as player:
                assert next(player.decode(video=0)).width == 320
    assert handle.report()["dropped"] > 0


@pytest.mark.parametrize("kind", ["rtsp", "rtmp"])
def test_a_server_that_stalls_is_left_and_holds_nobody_up(tmp_path, kind):
    serve = rtsp_recorder(tmp_path / "recorded.ts") if kind == "rtsp" else rtmp_relay(tmp_path)
    with serve as (url, process):
        address = url if kind == "rtsp" else f"{url}/cam"
        handle = SinkHandle(parse_sink(address, CONFIG), patience_s=6.0)
        large = take(25, size=(1280, 720))
        with Feed(handle, large, speed=8) as feed:  # fills the sockets' buffers soon
            feed.wait(lambda report: report["delivered"] > 10)
            os.kill(process.pid, signal.SIGSTOP)
            try:
                words = feed.wait(
                    lambda report: report["state"] in ("retrying", "refused") and report["words"]
                )
                offered = time.monotonic()
                handle.offer(large[1])
                assert time.monotonic() - offered < 1
            finally:
                os.kill(process.pid, signal.SIGCONT)
            assert words
            before = handle.report()["delivered"]
            feed.wait(lambda report: report["state"] == "live" and report["delivered"] > before + 10)


@pytest.mark.parametrize("scheme", ["rtsp", "rtmp"])
def test_nobody_there_a_wrong_path_and_silence_are_told_in_one_line(scheme, tmp_path):
    with pytest.raises(SinkError, match="nobody listens there") as error:
        opened(f"{scheme}://me:sesame@127.0.0.1:{free_port()}/live/cam")
    assert error.value.state is State.REFUSED and "sesame" not in str(error.value)
    serve = rtsp_recorder(tmp_path / "recorded.ts") if scheme == "rtsp" else rtmp_relay(tmp_path)
    wrong = {"rtsp": "no such path", "rtmp": "check the application"}[scheme]
    with serve as (url, _), pytest.raises(SinkError, match=wrong):
        opened(url.replace("/live", "/nowhere/cam"), *take(1))


def test_a_name_that_another_publishes_under_is_told(tmp_path):
    with rtmp_relay(tmp_path) as (url, _):
        first = opened(f"{url}/cam", *take(10))
        with pytest.raises(SinkError, match="is it taken"):
            opened(f"{url}/cam", *take(1))
        first.close()


def test_an_rtsp_server_that_accepts_and_stays_silent_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(SinkError, match=rf"^rtsp://127\.0\.0\.1:{port}/live: "):
            opened(f"rtsp://127.0.0.1:{port}/live", *take(1))


def test_a_publisher_connects_again_where_the_size_changes(tmp_path):
    with rtmp_relay(tmp_path) as (url, _):
        sink = opened(f"{url}/cam", *take(30))
        small = take(400, take=1, size=(160, 120), first_pts=300_000)
        sink.write(small[0])
        again = threading.Event()

        def publish() -> None:
            for message in small[1:]:
                sink.write(message)
                if again.wait(0.04):
                    break

        thread = threading.Thread(target=publish)
        thread.start()
        with av.open(f"{url}/cam", timeout=60) as player:
            assert next(player.decode(video=0)).width == 160
        again.set()
        thread.join()
        sink.close()
