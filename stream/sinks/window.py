"""A window on this machine's screen.

PyAV must not be loaded in its process: wheels of PyAV and OpenCV each bring a libxcb of their own, and
OpenCV's window hangs where PyAV's was there first (measured: av 18.1, opencv-python 4.14).
"""

from __future__ import annotations

import os
import sys

import cv2
import numpy as np

from stream.packets import Message, Raw
from stream.sinks import SinkSpec
from stream.sinks.base import SinkDone, SinkError
from stream.status import State

_TITLE = "gpen-stream"
_QUIT = (ord("q"), ord("Q"), 27)


class WindowSink:
    """`q`, Esc or the window's own button ends it; the other sinks go on."""

    wanted = True

    def __init__(self, spec: SinkSpec) -> None:
        self.detail = "press q to close"
        self._size: tuple[int, int] | None = None

    def open(self) -> None:
        """See that there is a screen: without one the window's library ends the whole process."""
        here = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        if not here:
            raise SinkError(
                "window: there is no screen; choose another sink, such as mjpeg:8090", State.REFUSED
            )

    def write(self, message: Message) -> None:
        """Show a picture."""
        if not isinstance(message, Raw):
            return
        size = message.width, message.height
        if self._size is None:
            cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        if size != self._size:
            cv2.resizeWindow(_TITLE, *size)
            self._size = size
        rgb = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
        cv2.imshow(_TITLE, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        self._look_at_keys()

    def idle(self) -> None:
        """Keep the window answering."""
        if self._size is not None:
            self._look_at_keys()

    def close(self) -> None:
        """Take the window away. Idempotent."""
        if self._size is not None:
            self._size = None
            cv2.destroyAllWindows()

    def _look_at_keys(self) -> None:
        pressed = cv2.waitKey(1) & 0xFF
        if pressed in _QUIT or cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1:
            raise SinkDone("its window was closed")
