"""Measures whether the stages keep up with the source, and gives up work while they do not."""

from __future__ import annotations

from collections.abc import Callable

from stream.live.session.control import Control
from stream.live.session.degradation import Degradation, PaceSample
from stream.live.session.delivery import DeliveryStage
from stream.live.status import Drops


class PaceControl:
    """Samples what was delivered and dropped, and sets the level of degradation in the control.

    `on_event(kind, text)` is called at each change of level.
    """

    def __init__(
        self,
        degradation: Degradation,
        control: Control,
        delivery: DeliveryStage,
        drops: Drops,
        on_event: Callable[[str, str], None],
    ) -> None:
        self.degradation = degradation
        self._control, self._delivery, self._drops = control, delivery, drops
        self._on_event = on_event
        self._counted = 0, 0, 0
        """Frames delivered, late and dropped up to the last sample."""

    def update(self, now_s: float, restores: bool) -> bool:
        """Take a sample and judge it; to be called every `degradation.PERIOD_S`.

        `restores` says whether faces are restored at all: if not, the level stays. Returns whether the level
        has changed.
        """
        sample = self._sample()
        if not (restores and self.degradation.judge(now_s, sample)):
            return False
        level = self.degradation.level
        self._control.set_level(level)
        self._on_event("level_changed", f"level {self.degradation.number}: {level.words}")
        return True

    def _sample(self) -> PaceSample:
        drops = self._drops.by_cause
        counted = self._delivery.delivered, self._delivery.late, drops["overrun"] + drops["late"]
        delivered, late, dropped = (new - old for new, old in zip(counted, self._counted, strict=True))
        self._counted = counted
        return PaceSample(delivered, late, dropped, self._control.wanted)
