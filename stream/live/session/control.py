"""The settings and the state that the stages of a live session follow while they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from stream.config import Config
from stream.faces.detect.finder import choose
from stream.faces.restore.schedule import RestoreMode
from stream.live.session.degradation import LEVELS, DegradationLevel
from stream.picture.face import Face

_CHOSEN_FACTOR = 1.25
"""A face that is restored already counts as this much larger: two faces of like size must not alternate."""


@dataclass(slots=True)
class Control:
    """Settings and state that hold from the next frame on. The session's threads write, the stages' read."""

    settings: Config
    """Strengths, interval and regions that hold now."""
    passing: bool = False
    """Whether the user asked for frames to go out unrestored."""
    idle: bool = False
    """Whether the motion gate is closed."""
    level: DegradationLevel = LEVELS[0]
    """How much is given up under overload."""
    wanted: int = 0
    """Faces of the newest frame that would be restored without any degradation."""
    _chosen: set[int] = field(default_factory=set)
    """Tracks that were restored in the newest frame."""

    def change(self, settings: Config, passing: bool | None = None) -> None:
        """Let other settings hold; `passing` None leaves it as it is."""
        self.settings = settings
        if passing is not None:
            self.passing = passing

    def set_idle(self, idle: bool) -> None:
        """Note whether the motion gate is closed."""
        self.idle = idle

    def set_level(self, level: DegradationLevel) -> None:
        """Let another level of degradation hold."""
        self.level = level

    @property
    def bypasses(self) -> bool:
        """Whether frames go out unrestored."""
        return self.passing or self.idle or self.level.passing

    def restore_mode(self, detection_interval: int) -> RestoreMode:
        """How the restore stage works now; `detection_interval` is in frames."""
        keyframes_only, restore = self.level.keyframes_only, self.settings.restore
        interval = max(restore.interval, detection_interval) if keyframes_only else restore.interval
        return RestoreMode(restore.strength, interval, strict=keyframes_only)

    @property
    def stabilise_strength(self) -> float:
        """Strength of the stabiliser now; 0 with restoration on keyframes only, which hardly flickers."""
        return 0.0 if self.level.keyframes_only else self.settings.stabilise.strength

    def chosen(self, faces: Sequence[Face], size: tuple[float, float]) -> list[Face]:
        """The faces to restore, in their order; only the crop stage's thread may call it.

        `size` is the upright picture's width and height, px.
        """
        wanted, most = choose(faces, self.settings.select, size), self.level.max_faces
        self.wanted = len(wanted)
        if most is not None and len(wanted) > most:
            largest = sorted(wanted, key=self._weight, reverse=True)[:most]
            wanted = [face for face in wanted if any(face is other for other in largest)]
        self._chosen = {face.track_id for face in wanted}
        return wanted

    def _weight(self, face: Face) -> float:
        height = float(face.box_xyxy[3] - face.box_xyxy[1])
        return height * (_CHOSEN_FACTOR if face.track_id in self._chosen else 1.0)
