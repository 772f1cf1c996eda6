"""What an operator is told of a source, a sink and a camera: words and numbers, no secrets."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, TypedDict

import numpy as np


class ConnectionState(Enum):
    """Where a connection stands, in the words that are shown."""

    CONNECTING = "connecting"
    LIVE = "live"
    STALLED = "stalled"
    """Connected, but no frame has come for a while."""
    RETRYING = "retrying"
    """Waiting before the next attempt."""
    REFUSED = "refused"
    """The address is wrong or nobody listens there; retried slowly."""
    UNAUTHORISED = "unauthorised"
    """The other side wants other credentials; retried slowly."""
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """Of one source or sink. `detail` never holds a credential."""

    state: ConnectionState
    detail: str = ""
    retry_at_s: float | None = None
    """`time.monotonic()` of the next attempt."""

    def words(self) -> str:
        """Such as "live", "retrying in 4 s (connection refused)"."""
        text = self.state.value
        if self.retry_at_s is not None:
            text += f" in {max(0.0, self.retry_at_s - time.monotonic()):.0f} s"
            if self.state is not ConnectionState.RETRYING:
                text = text.replace(" in ", ", retrying in ")
        return f"{text} ({self.detail})" if self.detail else text


class DelaySummary(TypedDict):
    """The delays of the last frames; None where nothing was delivered yet."""

    median_ms: float | None
    p95_ms: float | None


class Delays:
    """Delays of the last frames, ms; for one writer and any reader."""

    def __init__(self, kept: int = 1500) -> None:
        self._values: deque[float] = deque(maxlen=kept)

    def add(self, delay_ms: float) -> None:
        """One more."""
        self._values.append(delay_ms)

    def summary(self) -> DelaySummary:
        """The median and the 95th percentile, rounded to 0.1 ms."""
        values = list(self._values)
        if not values:
            return {"median_ms": None, "p95_ms": None}
        median, p95 = np.percentile(values, [50, 95])
        return {"median_ms": round(float(median), 1), "p95_ms": round(float(p95), 1)}


DropCause = Literal["overrun", "late", "paced", "idle", "no_keyframe", "corrupt", "failed"]
"""`overrun` (a fresher one came), `late` (over the budget), `paced` (over max_fps, or a flood), `idle`
(without motion), `no_keyframe`, `corrupt`, `failed` (lost with a stage)."""


@dataclass(slots=True)
class Drops:
    """Frames that were not delivered, by cause; every one is counted."""

    by_cause: Counter[DropCause] = field(default_factory=Counter)

    def add(self, cause: DropCause, count: int = 1) -> None:
        """Count."""
        self.by_cause[cause] += count
