"""Messages between the coordinator and the nodes of a fleet, and the times that both keep to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from stream.server.camera_config import CameraSettings
from stream.server.camera_lease import FINISH_S
from stream.server.supervisor.camera_status import CameraStatus, RestorerStatus

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """How long leases hold. Every time is measured by one machine's own monotonic clock, never by two.

    A node counts from the moment at which it sent a renewal, the coordinator from the moment at which it
    received one, which is later. So a node has ended a camera before the coordinator gives it to another,
    as long as no clock runs faster than another by half.
    """

    renew_s: float = 1.0
    """Pause between two renewals."""
    retry_s: float = 0.25
    """Pause after a renewal that failed: a coordinator that starts again takes two of the four seconds."""
    valid_s: float = 4.0
    """A node may run its cameras for so long after it sent the last renewal that was answered. One second
    before, it tells them to finish; at the end the kernel kills them."""
    expire_s: float = 6.0
    """The coordinator gives a node's cameras to others after so much silence."""

    def __post_init__(self) -> None:
        if not 0 < self.renew_s < self.valid_s - FINISH_S < self.valid_s < self.expire_s:
            raise ValueError(f"expected renew_s < valid_s - {FINISH_S:g} < valid_s < expire_s, got {self}")


@dataclass(frozen=True, slots=True)
class CameraCost:
    """What a camera takes of its node, measured over the last seconds."""

    cores: float
    """CPU time of its processes and its share of the restorer's, in cores."""
    degraded: bool
    """Whether its restoration is reduced, so that it would take more if there were more."""


@dataclass(frozen=True, slots=True)
class NodeReport:
    """A node's renewal of its leases."""

    run: str
    """Identity of the node's process: another process on the same machine has another one."""
    node: str
    """Identity of the machine in the cluster."""
    name: str
    """The machine's name for people; unique in the cluster."""
    cores: float
    """Cores that the machine has for cameras."""
    number: int
    """1 for the first report of this run; it rises by one. The next is sent after the answer to this one
    has come, or has been given up and will be ignored."""
    holds: Mapping[int, int] = field(default_factory=dict)
    """By lease number, those whose cameras run or may still run: the stamp of the settings they run with."""
    costs: Mapping[str, CameraCost] = field(default_factory=dict)
    """By camera."""
    problem: str = ""
    """Why this node cannot run cameras, in one line; empty if it can."""
    leaves: bool = False
    """Whether this is its last report: all its cameras have ended."""


@dataclass(frozen=True, slots=True)
class LeaseOrder:
    """One camera that a node has to run."""

    number: int
    """The lease's number, which no other lease has or had: the fencing token in the names of recordings."""
    camera: str
    stamp: int
    """It rises with every change of the camera's settings."""
    restart: int
    """It rises with every change that needs a new process."""
    settings: CameraSettings | None
    """None if the node has reported this stamp."""
    passing: bool = False
    """Whether frames go out unchanged."""

    @property
    def known_settings(self) -> CameraSettings:
        """The settings; ValueError if the node has to know them already."""
        if self.settings is None:
            raise ValueError(f"expected the settings of {self.camera} with lease {self.number}, got none")
        return self.settings


@dataclass(frozen=True, slots=True)
class RenewalAnswer:
    """The cameras that a node has to run from now on; it ends all others."""

    orders: tuple[LeaseOrder, ...]


@dataclass(frozen=True, slots=True)
class FleetEvent:
    """Something that happened in the fleet."""

    camera: str
    """Empty for the fleet."""
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Numbered(Generic[Item]):
    """The newest of a series of numbered items, and the number of the last."""

    last: int
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class CoordinatorFacts:
    """What a coordinator says of itself."""

    version: str
    """Version of the program."""
    state: str
    """Folder of its state."""
    data: str
    """Folder for recordings on all nodes."""
    failure: str
    """Why it cannot work, in one line; empty if it can."""


@dataclass(frozen=True, slots=True)
class CameraPlace:
    """A camera as the coordinator knows it."""

    settings: CameraSettings
    passing: bool
    node: str
    """Identity of the machine that holds its lease; empty if none does."""
    lease: int
    """Number of the lease; 0: none."""


@dataclass(frozen=True, slots=True)
class NodePlace:
    """A node as the coordinator knows it."""

    node: str
    """Identity of the machine in the cluster."""
    name: str
    cores: float
    used: float
    silence_s: float
    problem: str


@dataclass(frozen=True, slots=True)
class Overview:
    """All nodes and cameras of a fleet at one moment."""

    term: int
    """It rises when the coordinator is started again; numbers of events begin anew then."""
    version: int
    """It rises with every change of `cameras`."""
    nodes: tuple[NodePlace, ...]
    cameras: Mapping[str, CameraPlace] | None
    """None if they have not changed since the version that was asked for."""
    waits: Mapping[str, str]
    """By camera that has no node: why, for people."""
    events: Numbered[FleetEvent]


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """All cameras of one node at one moment."""

    run: str
    """Identity of the node's process; numbers of events begin anew with another one."""
    cameras: tuple[CameraStatus, ...]
    restorer: RestorerStatus | None
    events: Numbered[FleetEvent]
