"""Reads the source of a live session in a thread."""

from __future__ import annotations

import threading

from stream.config import Config
from stream.live.session.control import Control
from stream.live.session.inlet import Inlet
from stream.live.session.motion_gate import MotionGate
from stream.live.source.capture import Capture
from stream.picture.frame import Frame
from stream.pipeline.processes import start_thread


class Intake:
    """Passes frames from the capture through the motion gate to the inlet, until the source ends."""

    def __init__(self, name: str, capture: Capture, config: Config, control: Control) -> None:
        self.capture = capture
        self.inlet = Inlet(config.latency.in_flight, config.latency.budget_ms / 1e3, capture.drops)
        self.error: Exception | None = None
        """Why the source has ended; None after an ordinary end."""
        self._name, self._control = name, control
        self._gate = MotionGate(config.motion)
        self._newest: Frame | None = None
        self._has_frame = threading.Event()
        """Set with the first frame, and at the end."""
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = start_thread(f"capture {self._name}", self._read)

    def await_frame(self) -> Frame | None:
        """The newest frame; waits for the first one. None where the source ended without any."""
        self._has_frame.wait()
        return self._newest

    def stop(self) -> None:
        """End the capture and close the inlet; returns at once. `join` waits for the thread."""
        self.capture.stop()
        self.inlet.close()

    def join(self) -> None:
        """Wait for the thread."""
        if self._thread is not None:
            self._thread.join()

    def _read(self) -> None:
        try:
            for frame in self.capture.frames():
                admitted = self._gate.admit(frame)
                self._control.set_idle(self._gate.closed)
                self._newest = frame
                self._has_frame.set()
                if admitted:
                    self.inlet.put(frame)
                else:
                    self.capture.drops.add("idle")
        except Exception as error:
            self.error = error
        finally:
            self.inlet.close()
            self._has_frame.set()
