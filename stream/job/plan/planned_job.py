"""A plan with what it takes to restore its segments on this machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from stream.config import parse_config
from stream.errors import PlanError
from stream.faces.assembly import Setup
from stream.job.plan.plan import Plan, PlannedSegment, RecipeRecord
from stream.job.run import video_source
from stream.media.codecs import EncoderRecipe
from stream.media.decode import FileSource
from stream.media.probe import probe
from stream.media.segment_encoder import SegmentEncoding
from stream.picture.frame import StreamInfo


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """A job of which any segment can be restored, whichever process asks."""

    plan: Plan
    setup: Setup
    """With the plan's threads of the encoder, whatever this machine has."""
    info: StreamInfo
    """The input's video, as its frames come."""
    encoding: SegmentEncoding

    @classmethod
    def of(cls, plan: Plan, setup: Setup | None = None) -> PlannedJob:
        """Find input and model on this machine. Raises StreamError where they are not those of the plan."""
        setup = setup or Setup.of(parse_config(plan.settings), aligned=plan.aligned)
        if setup.model.sha256 != plan.facts["model.sha256"]:
            raise PlanError(
                f"{setup.model_path}: is not the model of the plan; put the same weights on every machine"
            )
        setup = replace(setup, threads=replace(setup.threads, encoder=plan.encoder_threads))
        info = video_source(setup, probe(Path(plan.source)), (None, None)).info
        upscale = setup.config.compose.upscale
        shown = info.enlarged(upscale) if upscale > 1 else info
        encoding = SegmentEncoding(
            info=info,
            shown=shown,
            destination=Path(plan.destination),
            recipe=recipe_of(plan.recipe),
            threads=setup.threads.encoder,
            copy_parameters=plan.copy_parameters,
        )
        return cls(plan, setup, info, encoding)

    def open_source(self, segment: PlannedSegment) -> FileSource:
        """The frames of a segment, with those of its warm-up and its tail. Raises SourceError."""
        return video_source(self.setup, self.info, (segment.warm_up_pts, segment.tail_pts))


def record_of(recipe: EncoderRecipe) -> RecipeRecord:
    """The recipe as a plan stores it."""
    return RecipeRecord(
        encoder=recipe.encoder,
        codec=recipe.codec,
        pix_fmt=recipe.pix_fmt,
        options=recipe.options,
        quality=recipe.quality,
        bit_rate=recipe.bit_rate,
        is_hardware=recipe.is_hardware,
        notes=recipe.notes,
    )


def recipe_of(record: RecipeRecord) -> EncoderRecipe:
    """The recipe that a plan stores; it is settled."""
    return EncoderRecipe(
        encoder=record.encoder,
        codec=record.codec,
        pix_fmt=record.pix_fmt,
        options=record.options,
        quality=record.quality,
        bit_rate=record.bit_rate,
        is_hardware=record.is_hardware,
        notes=record.notes,
    )
