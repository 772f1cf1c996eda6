"""States, delays and lost frames of sources and sinks, as operators see them; no credentials."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, TypedDict

import numpy as np


class ConnectionState(Enum):
    """State of a connection; the values are the words that are shown."""

    CONNECTING = "connecting"
    LIVE = "live"
    STALLED = "stalled"
    """Connected, but no frames come."""
    RETRYING = "retrying"
    """Waiting before the next attempt."""
    REFUSED = "refused"
    """The address is wrong or nobody listens there. The next attempt comes after a long pause."""
    UNAUTHORISED = "unauthorised"
    """The other side rejects the credentials. The next attempt comes after a long pause."""
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """State of the connection to a source or a sink."""

    state: ConnectionState
    detail: str = ""
    """The reason, without credentials; may be empty."""
    retry_at_s: float | None = None
    """`time.monotonic()` of the next attempt; None where none is planned."""

    def words(self) -> str:
        """The status as text, such as "live" or "retrying in 4 s (connection refused)"."""
        text = self.state.value
        if self.retry_at_s is not None:
            text += f" in {max(0.0, self.retry_at_s - time.monotonic()):.0f} s"
            if self.state is not ConnectionState.RETRYING:
                text = text.replace(" in ", ", retrying in ")
        return f"{text} ({self.detail})" if self.detail else text


class DelaySummary(TypedDict):
    """Delays of the last frames; None before the first delivery."""

    median_ms: float | None
    p95_ms: float | None


class Delays:
    """Delays of the last frames in ms. One thread adds; any thread may read."""

    def __init__(self, count: int = 1500) -> None:
        self._values: deque[float] = deque(maxlen=count)

    def add(self, delay_ms: float) -> None:
        """Add the delay of a frame."""
        self._values.append(delay_ms)

    def summary(self) -> DelaySummary:
        """The median and the 95th percentile, rounded to 0.1 ms."""
        values = list(self._values)
        if not values:
            return {"median_ms": None, "p95_ms": None}
        median, p95 = np.percentile(values, [50, 95])
        return {"median_ms": round(float(median), 1), "p95_ms": round(float(p95), 1)}


DropCause = Literal["overrun", "late", "paced", "idle", "no_keyframe", "corrupt", "failed"]
"""Why a frame was not delivered.

`overrun`: a newer frame came; `late`: older than the delay budget; `paced`: beyond max_fps or beyond the
announced rate; `idle`: no motion; `no_keyframe`: before the first keyframe; `corrupt`: damaged;
`failed`: lost with a stage that failed.
"""


@dataclass(slots=True)
class Drops:
    """Counts of all frames that were not delivered, by cause."""

    by_cause: Counter[DropCause] = field(default_factory=Counter)

    def add(self, cause: DropCause, count: int = 1) -> None:
        """Count dropped frames."""
        self.by_cause[cause] += count
