"""A window and a virtual camera: what they show is looked at."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from feeds import CONFIG, opened
from flashes import picture, wait_for
from waiting import LIMIT_S

from stream.live.packets import RawPicture
from stream.live.sinks import parse_sink
from stream.live.sinks.handle import SinkHandle
from stream.live.sinks.sink import SinkError
from stream.live.status import ConnectionState


def raw(index: int, size: tuple[int, int] = (320, 180)) -> RawPicture:
    rgb = picture(index, size).to_ndarray(format="rgb24")
    rgb[:, : size[0] // 2, 2] = 0  # yellow at the left
    return RawPicture(rgb.tobytes(), *size, Fraction(25), time.monotonic())


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
    assert error.value.state is ConnectionState.REFUSED and "\n" not in str(error.value)


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
        """The content of the screen, BGR u8[h,w,3], read from XWD as X servers write it."""
        data = (self._folder / "Xvfb_screen0").read_bytes()
        size, colours = int.from_bytes(data[:4], "big"), int.from_bytes(data[76:80], "big")
        pixels = np.frombuffer(data, np.uint8, 640 * 480 * 4, size + 12 * colours)
        return pixels.reshape(480, 640, 4)[..., :3]

    def lit(self) -> np.ndarray:
        """The part of it that is not black."""
        picture = self.picture()
        rows, columns = (np.flatnonzero(picture.max(axis=(axis, 2)) > 5) for axis in (1, 0))
        if not rows.size:
            return picture[:0]
        return picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]

    def press(self, key: str) -> None:
        """Press a key in every window, by a program of its own: it dies where a window goes meanwhile."""
        subprocess.run(
            [sys.executable, "-c", _PRESS, self.display, key], stderr=subprocess.DEVNULL, timeout=LIMIT_S
        )

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


@pytest.mark.parametrize("display", [None, ":77"])
def test_a_window_without_a_screen_is_refused_in_one_line(monkeypatch, display):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    if display:
        monkeypatch.setenv("DISPLAY", display)
    with pytest.raises(SinkError, match=r"^window: there is no screen.*; .*mjpeg"):
        opened("window")


@pytest.mark.parametrize(
    "size, shown", [((320, 180), (320, 180)), ((1280, 720), (576, 324)), ((240, 960), (108, 432))]
)
def test_a_window_shows_the_whole_picture_and_q_ends_it(screen, size, shown):
    """The picture is in the middle, at its own size or reduced to a smaller screen."""
    handle = SinkHandle(parse_sink("window", CONFIG))
    handle.start()

    def show() -> None:
        handle.offer(raw(30, size))
        handle.check()

    def is_shown() -> bool:
        lit = screen.lit()
        if lit.shape[1::-1] != shown:
            return False
        part = shown[0] // 8
        blue_green_red = (lit[20:-20, x - part : x + part].mean(axis=(0, 1)) for x in (2 * part, 6 * part))
        left, right = blue_green_red
        return left[0] < 5 < 15 < left[1] and abs(left[1] - left[2]) < 5 and np.ptp(right) < 5 < right[0]

    try:
        wait_for(is_shown, tick=show)
        wait_for(lambda: screen.press("q") or handle.report()["state"] == "stopped", tick=show)
        assert "closed" in handle.report()["words"]
        for _ in range(20):
            show()
        assert handle.report()["restarts"] == 0  # its user does not want it any more
    finally:
        handle.stop(30)


@pytest.mark.filterwarnings("ignore:Please use Window:DeprecationWarning")
def test_a_window_follows_the_size_of_the_picture_and_its_user_s(screen):
    import pygame

    sink = opened("window", raw(0), raw(30))

    def shows(size: tuple[int, int]) -> None:
        wait_for(lambda: screen.lit().shape[1::-1] == size, tick=sink.idle)

    try:
        shows((320, 180))
        sink.write(raw(30, (200, 300)))
        shows((200, 300))
        pygame.Window.from_display_module().size = (300, 310)
        shows((207, 310))
        sink.write(raw(30, (200, 300)))
        shows((207, 310))
    finally:
        sink.close()  # SDL ends the process where the screen goes first
    wait_for(lambda: screen.lit().shape[0] < 100)  # nothing is left but the pointer
