"""What is published is read back by others: servers, players, a browser, a screen."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
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
from stream.sinks.base import SinkError
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
    recorded = tmp_path / "recorded.mkv"
    with rtsp_recorder(recorded, sound=True) as (url, _):
        with Feed(SinkHandle(parse_sink(url, CONFIG)), take(100, with_sound=True)) as feed:
            report = feed.wait(lambda report: report["delivered"] >= 110 and report)
        assert report["state"] == "live" and report["delay"]["median_ms"] > 0
        wait_for(lambda: recorded.stat().st_size > 30_000)
    result = read(recorded)
    assert len(result.times_s) > 50 and result.sizes[0] == (320, 180)
    assert len(result.beeps_s) >= 2 <= len(result.flashes_s)
    for flash in result.flashes_s[1:3]:
        assert min(abs(flash - beep) for beep in result.beeps_s) < 0.12


def test_an_rtsp_server_asks_for_a_password_and_it_is_in_no_message(tmp_path):
    with rtsp_recorder(tmp_path / "recorded.mkv", user="me:sesame1") as (url, _):
        right, wrong = url.replace("//", "//me:sesame1@"), url.replace("//", "//me:sesame2@")
        with pytest.raises(SinkError, match="user name or password") as error:
            opened(wrong, *take(1))
        assert error.value.state is State.UNAUTHORISED and "sesame" not in str(error.value)
        with Feed(SinkHandle(parse_sink(right, CONFIG)), take(50)) as feed:
            feed.wait(lambda report: report["delivered"] > 10)
            wait_for(lambda: (tmp_path / "recorded.mkv").stat().st_size > 5_000)
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
    serve = rtsp_recorder(tmp_path / "recorded.mkv") if kind == "rtsp" else rtmp_relay(tmp_path)
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
    serve = rtsp_recorder(tmp_path / "recorded.mkv") if scheme == "rtsp" else rtmp_relay(tmp_path)
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


class Playlist:
    """What a player sees of an HLS folder."""

    def __init__(self, folder: Path) -> None:
        self.text = (folder / PLAYLIST).read_text()
        lines = self.text.splitlines()
        self.files = [folder / line for line in lines if line and not line.startswith("#")]
        self.seconds = [float(line[8:].rstrip(",")) for line in lines if line.startswith("#EXTINF:")]


def test_hls_segments_last_a_second_and_old_ones_go(tmp_path):
    sink = opened(f"hls:{tmp_path}", *take(500, with_sound=True))
    playlist = Playlist(tmp_path)
    assert playlist.seconds == pytest.approx([1.0] * 6, abs=0.05)
    assert all(file.exists() for file in playlist.files)
    assert len(list(tmp_path.glob("*.ts"))) <= 14
    assert "ENDLIST" not in playlist.text
    sink.close()
    assert Playlist(tmp_path).text.endswith("#EXT-X-ENDLIST\n")
    result = read(tmp_path / PLAYLIST)
    assert len(result.times_s) == 150 and result.times_s == sorted(set(result.times_s))
    for flash in result.flashes_s[1:]:
        assert min(abs(flash - beep) for beep in result.beeps_s) < 0.08


def test_hls_goes_on_over_a_new_take_and_a_killed_process_without_a_number_twice(tmp_path):
    sink = opened(f"hls:{tmp_path}", *take(60))
    before = Playlist(tmp_path)
    for message in take(60, take=1, size=(160, 120), first_pts=2_000_000):
        sink.write(message)
    after = Playlist(tmp_path)
    assert "#EXT-X-DISCONTINUITY\n" in after.text
    assert after.files[: len(before.files)] == before.files
    # As if killed: the sink is not closed.
    again = opened(f"hls:{tmp_path}", *take(60, take=2, first_pts=4_000_000))
    again.close()
    last = Playlist(tmp_path)
    assert len(set(last.files)) == len(last.files)
    sizes = []
    for file in last.files:
        with av.open(str(file)) as segment:
            frames = list(segment.decode(video=0))
            assert frames[0].key_frame
            sizes.append(frames[0].width)
    assert [size for size, _ in itertools.groupby(sizes)] == [320, 160, 320]
    del sink  # it lived as long as the process that was killed


def test_an_old_playlist_is_not_gone_on_with(tmp_path):
    opened(f"hls:{tmp_path}", *take(60)).close()
    other = tmp_path / "mine.ts"
    other.write_bytes(b"kept")
    os.utime(tmp_path / PLAYLIST, (1, 1))
    sink = opened(f"hls:{tmp_path}")
    assert not (tmp_path / PLAYLIST).exists() and list(tmp_path.glob("*.ts")) == [other]
    sink.close()


def snap(number: int) -> Snapshot:
    image = cv2.imencode(".png", np.full((8, 8, 3), number % 255, np.uint8))[1].tobytes()
    return Snapshot(f"2026-11-24T19-31-44-{number:06d}Z-1", image, image, {"track": number, "score": 0.9})


def test_snapshots_are_pairs_with_a_line_each_and_their_number_is_bounded(tmp_path):
    first = opened(f"snapshots:{tmp_path}", *(snap(number) for number in range(MOST)))
    first.close()
    sink = opened(f"snapshots:{tmp_path}", *(snap(number) for number in range(MOST, MOST + 120)))
    sink.close()
    entries = [json.loads(line) for line in (tmp_path / INDEX).read_text().splitlines()]
    assert MOST <= len(entries) < MOST + 50 and entries[-1]["track"] == MOST + 119
    assert len(list(tmp_path.glob("*.png"))) == 2 * len(entries)
    for entry in entries[:2] + entries[-2:]:
        original = cv2.imread(str(tmp_path / entry["original"]))
        assert (original == entry["track"] % 255).all() and (tmp_path / entry["restored"]).exists()


def test_a_snapshot_cannot_leave_its_folder(tmp_path):
    sink = opened(f"snapshots:{tmp_path / 'in'}")
    with pytest.raises(SinkError, match="no name for a file"):
        sink.write(replace(snap(0), name="../out"))
    assert not list(tmp_path.glob("*.png"))


def raw(index: int, size: tuple[int, int] = (320, 180)) -> Raw:
    rgb = picture(index, size).to_ndarray(format="rgb24")
    rgb[:, : size[0] // 2, 2] = 0  # yellow at the left
    return Raw(rgb.tobytes(), *size, Fraction(25), time.monotonic())


def test_a_virtual_camera_shows_each_picture_and_follows_the_size(tmp_path):
    """This machine has no device: a backend of pyvirtualcam's own interface stands in for it."""
    import pyvirtualcam

    shown, opened_as = [], []

    class Backend:
        def __init__(self, *, width: int, height: int, fps: float, fourcc: int, device: str | None) -> None:
            opened_as.append((width, height, fps, device))
            self._device = device or "/dev/video9"

        def close(self) -> None:
            opened_as.append("closed")

        def send(self, frame: np.ndarray) -> None:
            shown.append(frame.copy())

        def device(self) -> str:
            return self._device

        def native_fourcc(self) -> None:
            return None

    others = dict(pyvirtualcam.camera.BACKENDS)
    pyvirtualcam.camera.BACKENDS.clear()
    pyvirtualcam.register_backend("test", Backend)
    try:
        sink = opened("virtual-camera:/dev/video9", raw(0), raw(30), raw(30, (160, 120)))
        assert sink.detail == "/dev/video9"
        sink.close()
    finally:
        pyvirtualcam.camera.BACKENDS.clear()
        pyvirtualcam.camera.BACKENDS.update(others)
    assert opened_as == [
        (320, 180, 25.0, "/dev/video9"), "closed", (160, 120, 25.0, "/dev/video9"), "closed",
    ]  # fmt: skip
    left, right = shown[1].reshape(180, 320, 3)[90, 80], shown[1].reshape(180, 320, 3)[90, 240]
    assert left[2] == 0 and left[0] > 20 and right[2] > 20


def test_a_virtual_camera_that_is_not_there_is_told_in_one_line():
    with pytest.raises(SinkError, match=r"^virtual-camera:/dev/video99: .*v4l2loopback") as error:
        opened("virtual-camera:/dev/video99", raw(0))
    assert error.value.state is State.REFUSED and "\n" not in str(error.value)


class Screen:
    """An X server with its picture in a file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.process = subprocess.Popen(
            ["Xvfb", "-displayfd", "1", "-screen", "0", "640x480x24", "-fbdir", str(folder)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.display = f":{int(self.process.stdout.readline())}"

    def picture(self) -> np.ndarray:
        """What is on it, BGR u8[h,w,3]: XWD as X servers write it."""
        data = (self._folder / "Xvfb_screen0").read_bytes()
        size, colours = int.from_bytes(data[:4], "big"), int.from_bytes(data[76:80], "big")
        pixels = np.frombuffer(data, np.uint8, 640 * 480 * 4, size + 12 * colours)
        return pixels.reshape(480, 640, 4)[..., :3]

    def press(self, key: str) -> None:
        """Press a key in every window, by a program of its own."""
        subprocess.run([sys.executable, "-c", _PRESS, self.display, key], check=True, timeout=60)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


_PRESS = """
import ctypes, sys
from ctypes import byref, c_int, c_uint, c_ulong
x = ctypes.CDLL("libX11.so.6")
x.XOpenDisplay.restype = ctypes.c_void_p
x.XDefaultRootWindow.restype = c_ulong
x.XStringToKeysym.restype = c_ulong
display = ctypes.c_void_p(x.XOpenDisplay(sys.argv[1].encode()))
class Key(ctypes.Structure):
    _fields_ = [("type", c_int), ("serial", c_ulong), ("send_event", c_int), ("display", ctypes.c_void_p),
                ("window", c_ulong), ("root", c_ulong), ("subwindow", c_ulong), ("time", c_ulong),
                ("x", c_int), ("y", c_int), ("x_root", c_int), ("y_root", c_int), ("state", c_uint),
                ("keycode", c_uint), ("same_screen", c_int), ("pad", c_ulong * 24)]
root = x.XDefaultRootWindow(display)
code = x.XKeysymToKeycode(display, c_ulong(x.XStringToKeysym(sys.argv[2].encode()))) & 0xFF
one, two, children, count = c_ulong(), c_ulong(), ctypes.POINTER(c_ulong)(), c_uint()
x.XQueryTree(display, c_ulong(root), byref(one), byref(two), byref(children), byref(count))
for index in range(count.value):
    for kind in (2, 3):
        window = children[index]
        event = Key(type=kind, display=display, window=window, root=root, keycode=code, same_screen=1)
        x.XSendEvent(display, c_ulong(window), 1, 0, byref(event))
x.XSync(display, 0)
"""


@pytest.fixture
def screen(tmp_path, monkeypatch) -> Iterator[Screen]:
    screen = Screen(tmp_path)
    monkeypatch.setenv("DISPLAY", screen.display)
    yield screen
    screen.close()


def test_a_window_without_a_screen_is_refused_in_one_line(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SinkError, match="there is no screen"):
        opened("window")


def test_a_window_shows_the_picture_and_q_ends_it(screen):
    handle = SinkHandle(parse_sink("window", CONFIG))
    handle.start()

    def show() -> None:
        handle.offer(raw(30))
        handle.check()

    def is_shown() -> bool:
        left, right = (screen.picture()[20:160, x : x + 80].mean(axis=(0, 1)) for x in (40, 200))  # BGR
        return left[0] < 5 < 15 < left[1] and abs(left[1] - left[2]) < 5 and np.ptp(right) < 5 < right[0]

    wait_for(is_shown, tick=show)
    wait_for(lambda: screen.press("q") or handle.report()["state"] == "stopped", tick=show)
    assert "closed" in handle.report()["words"]
    for _ in range(20):
        show()
    assert handle.report()["restarts"] == 0  # its user does not want it any more
    handle.stop(30)
