"""Messages between cameras and the shared restorer, and the restorer's report to the server.

Each message to or from a camera is one JSON object in a line. A camera sends Hello. It gets Welcome or
Refused as soon as the network is loaded. Then it sends CropCount for each call, and gets CropCount when the
crops are restored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import Field

from stream.config_live import Section
from stream.live.status import DelaySummary


class EngineSettings(Section):
    """Parameters of `stream.models.engines.create_engine`, which describes them."""

    kind: str
    device: str
    batch_size: int = Field(ge=1)
    precision: str
    fidelity: float


class Hello(Section):
    """A camera's first message. The file descriptor of its shared memory is sent with it."""

    camera: str
    priority: float = Field(gt=0, allow_inf_nan=False)
    path: str
    """The network's file."""
    count: int = Field(ge=1)
    """Crops for which the memory has room."""
    settings: EngineSettings


class CropCount(Section):
    """A number of crops. To the restorer: those that lie in the memory. From it: those it has restored."""

    crops: int = Field(ge=0)


class Welcome(Section):
    """The network is loaded."""

    name: str
    """Name of the engine that runs it."""
    description: str
    """Description of that engine."""


class Refused(Section):
    """The network cannot be loaded."""

    error: str


FromClient = Hello | CropCount
FromRestorer = Welcome | Refused | CropCount


@dataclass(frozen=True, slots=True)
class RestorerReport:
    """The report of the restorer's process to the server, once a second. Counts are since its start."""

    cameras: int
    """Cameras that are connected now."""
    calls: int
    """Calls of networks."""
    crops: Mapping[str, int]
    """Crops restored, by camera."""
    load: float
    """Share of the time for which a network computes, 0 to 1."""
    models: tuple[str, ...]
    """Names of the loaded networks."""
    engine: str
    """Name of the engine; empty until a network is loaded."""
    delay: DelaySummary
    """Times from a camera's request to the answer."""
