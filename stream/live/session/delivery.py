"""The last stage of a live session."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from stream.live.session.inlet import Inlet
from stream.live.session.outlet import Outlet
from stream.live.status import Delays
from stream.picture.face import FrameWork
from stream.pipeline.stage import Stage


class DeliveryStage(Stage[FrameWork, None]):
    """Stage: hands each frame to the outlet, and counts what was delivered over all pipelines of the session.

    Each of `observers` is called with the frame after it has gone to the sinks, so that it delays no frame.
    """

    def __init__(
        self,
        outlet: Outlet,
        inlet: Inlet,
        budget_s: float,
        observers: Sequence[Callable[[FrameWork], None]] = (),
    ) -> None:
        self.delivered = 0
        """Number of frames delivered."""
        self.late = 0
        """Frames that were older than the delay budget."""
        self.ages = Delays(count=500)
        """Times from a frame's arrival to its delivery here."""
        self.epoch = self.faces = 0
        """Epoch of the newest frame, and the number of its faces."""
        self.size: tuple[int, int] | None = None
        """Width and height of the newest stored picture, px."""
        self._outlet, self._inlet, self._budget_s = outlet, inlet, budget_s
        self._observers = tuple(observers)

    def process(self, work: FrameWork) -> Iterable[None]:
        """Deliver one frame."""
        frame = work.frame
        self._outlet.send(frame)
        self._inlet.done()
        age_s = time.monotonic() - frame.arrived_at_s
        self.delivered += 1
        self.late += age_s > self._budget_s
        self.ages.add(1e3 * age_s)
        self.epoch, self.faces = frame.epoch, len(work.faces)
        self.size = frame.view.width, frame.view.height
        for observe in self._observers:
            observe(work)
        return ()
