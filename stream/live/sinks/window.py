"""A sink that shows the picture in a window on this machine's screen, by SDL.

OpenCV's own window is not used. On a busy machine its Qt loses the event that says that the window is on
the screen, and the picture then stays black (measured with opencv-python 4.14 on X11 beside four busy
processes: one start in four to eight; none of sixty with SDL).
"""

from __future__ import annotations

import os
import sys

os.environ["PYGAME_HIDE_SUPPORT_PROMPT"] = "1"
if sys.platform == "linux":
    os.environ.setdefault("SDL_VIDEODRIVER", "x11,wayland")  # not the console, which SDL would cover

import pygame

from stream.live.packets import Message, RawPicture
from stream.live.sinks import SinkSpec
from stream.live.sinks.sink import LiveSink, SinkDone, SinkError
from stream.live.status import ConnectionState

_TITLE = "gpen-stream"
_QUIT = (pygame.K_q, pygame.K_ESCAPE)
_CHANGED = (pygame.WINDOWEXPOSED, pygame.WINDOWSIZECHANGED)
_MAX_SCREEN_PART = 0.9
"""Largest part of the screen that a new window covers; the user may make it larger."""


class WindowSink(LiveSink):
    """A window that the user closes by `q`, Esc or its own button; the other sinks go on."""

    def __init__(self, spec: SinkSpec) -> None:
        self.detail = "press q to close"
        self._shown = spec.shown
        self._picture: pygame.Surface | None = None

    def open(self) -> None:
        """Check that there is a screen. Raises SinkError."""
        has_screen = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        try:
            if not has_screen:
                raise pygame.error
            pygame.display.init()
        except pygame.error as error:
            reason = f" ({error})" if error.args else ""
            message = f"{self._shown}: there is no screen{reason}; choose another sink, such as mjpeg:8090"
            raise SinkError(message, ConnectionState.REFUSED) from error
        pygame.display.set_allow_screensaver(True)

    def write(self, message: Message) -> None:
        """Show a picture. The window takes the size of the first one, and of each that has another size."""
        if not isinstance(message, RawPicture):
            return
        size = message.width, message.height
        if self._picture is None or self._picture.get_size() != size:
            pygame.display.set_caption(_TITLE)
            width, height = pygame.display.get_desktop_sizes()[0]
            room = _MAX_SCREEN_PART * width, _MAX_SCREEN_PART * height
            pygame.display.set_mode(_fitted(size, room, most=1.0), pygame.RESIZABLE)
        self._picture = pygame.image.frombuffer(message.data, size, "RGB")
        _draw(self._picture)
        _handle_events(self._picture)

    def idle(self) -> None:
        """Handle the window's events."""
        if self._picture is not None:
            _handle_events(self._picture)

    def close(self) -> None:
        """Close the window. Idempotent."""
        self._picture = None
        pygame.display.quit()


def _draw(picture: pygame.Surface) -> None:
    """Draw the picture in the middle of the window, as large as the window allows."""
    window = pygame.display.get_surface()
    assert window is not None, "the window is made before the first picture is drawn"
    room, size = window.get_size(), picture.get_size()
    part = _fitted(size, room)
    scaled = picture if part == size else pygame.transform.smoothscale(picture, part)
    if part != room:
        window.fill("black")
    window.blit(scaled, ((room[0] - part[0]) // 2, (room[1] - part[1]) // 2))
    pygame.display.flip()


def _handle_events(picture: pygame.Surface) -> None:
    """Redraw the picture if the window has changed. Raises SinkDone if the user closed the window."""
    for event in pygame.event.get():
        if event.type == pygame.QUIT or (event.type == pygame.KEYDOWN and event.key in _QUIT):
            raise SinkDone("its window was closed")
        if event.type in _CHANGED:
            _draw(picture)


def _fitted(size: tuple[int, int], room: tuple[float, float], most: float = float("inf")) -> tuple[int, int]:
    """The largest size of the same aspect that fits into `room`, at most `most` times as large."""
    scale = min(room[0] / size[0], room[1] / size[1], most)
    return max(1, round(scale * size[0])), max(1, round(scale * size[1]))
