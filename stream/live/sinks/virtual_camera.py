"""A sink that shows the picture as a virtual webcam, for programs that make calls or stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream.live.packets import Message, RawPicture
from stream.live.sinks import SinkSpec
from stream.live.sinks.sink import LiveSink, SinkError
from stream.live.status import ConnectionState

if TYPE_CHECKING:
    import pyvirtualcam

_INSTALL = "pip install 'gpen-stream[virtual-camera]'"
_DEVICES = "Linux needs v4l2loopback, Windows and macOS need OBS's virtual camera"


class VirtualCameraSink(LiveSink):
    """Opens the device with the first picture, and again where the size or the rate changes."""

    def __init__(self, spec: SinkSpec) -> None:
        self._device, self._shown = spec.target or None, spec.shown
        self._camera: pyvirtualcam.Camera | None = None
        self._format = 0, 0, 0.0
        """Width, height and frames a second of the device that is open."""

    def open(self) -> None:
        """Check that the library is installed. Raises SinkError."""
        try:
            import pyvirtualcam  # noqa: F401
        except ImportError as error:
            raise SinkError(f"{self._shown}: {_INSTALL} first", ConnectionState.REFUSED) from error

    def write(self, message: Message) -> None:
        """Show a picture."""
        if not isinstance(message, RawPicture):
            return
        format = message.width, message.height, float(message.rate)
        if self._camera is None or format != self._format:
            self._camera = self._reopened(format)
        self._camera.send(np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3))

    def close(self) -> None:
        """Release the device. Idempotent."""
        camera, self._camera = self._camera, None
        if camera is not None:
            camera.close()

    def _reopened(self, format: tuple[int, int, float]) -> pyvirtualcam.Camera:
        import pyvirtualcam

        self.close()
        width, height, rate = format
        try:
            camera = pyvirtualcam.Camera(width, height, rate or 25.0, device=self._device)
        except RuntimeError as error:  # its text lists the reasons of every backend, on several lines
            raise SinkError(
                f"{self._shown}: there is no such device; {_DEVICES}", ConnectionState.REFUSED
            ) from error
        self._format = format
        self.detail = camera.device
        return camera
