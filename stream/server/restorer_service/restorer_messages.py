"""What cameras and the shared restorer say to each other over its socket, and what the restorer reports.

Each message is one JSON object in a line. A camera says Hello, and hears Welcome or Refused once the
network is loaded; then it says Crops for each call, and hears Crops when they are restored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import Field

from stream.config_live import Section
from stream.live.status import DelaySummary


class EngineSettings(Section):
    """How a network is to run; see `stream.models.engines.create_engine`."""

    kind: str
    device: str
    batch_size: int = Field(ge=1)
    precision: str
    fidelity: float


class Hello(Section):
    """A camera's first message. Its shared memory comes with it."""

    camera: str
    priority: float = Field(gt=0, allow_inf_nan=False)
    path: str
    """The network's file."""
    count: int = Field(ge=1)
    """Crops that the memory holds."""
    settings: EngineSettings


class Crops(Section):
    """To the restorer: so many crops lie in the memory. From it: so many have been restored."""

    crops: int = Field(ge=0)


class Welcome(Section):
    """The network is loaded."""

    name: str
    description: str
    """Of the engine."""


class Refused(Section):
    """The network cannot be loaded."""

    error: str


FromClient = Hello | Crops
FromRestorer = Welcome | Refused | Crops


@dataclass(frozen=True, slots=True)
class RestorerReport:
    """What the restorer's process tells the server once a second."""

    cameras: int
    """Connected now."""
    calls: int
    """Of networks, so far."""
    crops: Mapping[str, int]
    """Restored so far, by camera."""
    load: float
    """Part of the time for which a network computes, 0 to 1."""
    models: tuple[str, ...]
    engine: str
    delay: DelaySummary
    """From a camera's question to the answer."""
