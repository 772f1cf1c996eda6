"""The plan of a job: written once before its work, read again by every run that continues it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, JsonValue, ValidationError

from stream.errors import PlanChangedError, PlanError

FORMAT = 1
"""Version of the plan's file format."""
Facts = Mapping[str, JsonValue]
"""Facts by dotted key, such as "settings.encode.crf"."""


class PlannedSegment(BaseModel, frozen=True):
    """A part of the video that is restored and encoded by itself. Times are pts of the input."""

    index: int
    start_pts: int | None
    """The first picture that is encoded; None: the video's first."""
    end_pts: int | None
    """The first picture of the next segment; None: to the video's end."""
    warm_up_pts: int | None
    """Start of decoding, so that tracks and averages are settled at `start_pts`; None: as `start_pts`."""
    tail_pts: int | None
    """End of decoding, so that the last pictures have their look-ahead; None: the video's end."""
    frames: int
    """Pictures to encode, by the container's packets."""
    extra_frames: int
    """Pictures that are restored and not encoded: those of the warm-up and of the tail."""
    begins_at_cut: bool
    """Whether no state of earlier frames is needed: a scene cut, or the video's beginning."""


class RecipeRecord(BaseModel, frozen=True):
    """An `EncoderRecipe` that is settled, as the plan stores it."""

    encoder: str
    codec: str
    pix_fmt: str
    options: dict[str, str]
    quality: float | None
    bit_rate: int
    is_hardware: bool
    notes: tuple[str, ...] = ()


class Plan(BaseModel, frozen=True):
    """The parts of a video to restore, their settings, and their segments."""

    format: int = FORMAT
    source: str
    """The input's absolute path."""
    destination: str
    """The output's absolute path."""
    facts: dict[str, JsonValue]
    """Facts that a run which continues must share: input, settings, model, versions."""
    machine: dict[str, JsonValue]
    """Engine, precision and instruction set. They determine the bits of the result."""
    settings: dict[str, JsonValue]
    """The settings, complete, as nested sections."""
    aligned: bool
    start_s: float | None
    """Start of the part that is restored, seconds; None: the video's beginning."""
    duration_s: float | None
    """Length of that part, seconds; None: up to the video's end."""
    allow_loss: bool
    """Whether streams that the output's container cannot hold are left out."""
    recipe: RecipeRecord
    copy_parameters: bool
    """Whether what the input's container says of its pictures holds for the output."""
    encoder_threads: int
    """Threads of the encoder, whatever the machine: its packets depend on them. Nothing else does."""
    shift_pts: int
    """The input's pts that is 0 on the output's clock."""
    end_pts: int
    """End of the input's video, on the output's clock; 0: its container does not say."""
    segments: tuple[PlannedSegment, ...]

    @property
    def frames(self) -> int:
        """Pictures of all segments."""
        return sum(segment.frames for segment in self.segments)


def read_plan(path: Path) -> Plan:
    """The plan in a file. Raises PlanError where it is missing, damaged or of another version."""
    try:
        return Plan.model_validate_json(path.read_bytes())
    except OSError as error:
        raise PlanError(f"{path}: cannot be read ({error.strerror}); add --restart to begin again") from None
    except ValidationError:
        raise PlanChangedError(
            f"{path}: is damaged or of another version; add --restart to begin again",
            "its plan is damaged or of another version",
        ) from None


def first_difference(now: Facts, then: Facts) -> str | None:
    """The first fact that differs, in words: `settings.encode.crf is 18, was 17`; None: all agree."""
    for key in sorted({*now, *then}):
        if now.get(key) != then.get(key):
            return f"{key} is {_shown(now.get(key))}, was {_shown(then.get(key))}"
    return None


def _shown(value: JsonValue) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
