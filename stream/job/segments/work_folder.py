"""The hidden folder of an unfinished job, beside its output: plan, finished segments, receipts."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ValidationError

from stream.errors import EncodeError
from stream.job.counts import RunCounts
from stream.job.plan.plan import Plan, PlannedSegment, read_plan
from stream.media.segment_file import PacketIndex, is_intact
from stream.media.synced_file import write_synced

_PARTIAL = "partial.json"


class Receipt(BaseModel, frozen=True):
    """The record of a finished segment, which is written beside its file."""

    index: int
    counts: RunCounts
    packets: PacketIndex
    worker: str
    """Host and process."""
    seconds: float
    """Wall time of the segment, s."""
    truncated: bool = False
    """Whether the input ended early in this segment."""
    notes: tuple[str, ...] = ()


class WorkFolder:
    """The folder `.NAME.EXT.gpen` beside the output NAME.EXT."""

    def __init__(self, destination: Path) -> None:
        self.destination = destination
        self.path = destination.with_name(f".{destination.name}.gpen")

    @property
    def plan_path(self) -> Path:
        """The plan's file, which is written last when a job begins."""
        return self.path / "plan.json"

    def has_plan(self) -> bool:
        """Whether an earlier run left its plan."""
        return self.plan_path.is_file() and not self.path.is_symlink()

    def read_plan(self) -> Plan:
        """The plan of the earlier run. Raises PlanError."""
        return read_plan(self.plan_path)

    def begin(self, plan: Plan) -> None:
        """Make the folder anew and store the plan. Raises EncodeError."""
        self.remove()
        try:
            self.path.mkdir()
            write_synced(self.plan_path, plan.model_dump_json(indent=1))
        except OSError as error:
            raise EncodeError(f"{self.path}: cannot be written ({error.strerror}); check the disk") from None

    def segment_path(self, index: int) -> Path:
        """The file of a finished segment."""
        return self.path / f"{index:05}.video"

    def new_part(self, index: int) -> Path:
        """A new name for a segment that is being restored. No two attempts share one."""
        return self.path / f"{index:05}.{secrets.token_hex(4)}.part"

    def new_lease(self, index: int) -> Path:
        """A new name for the file by which a worker shows that it restores a segment."""
        return self.path / f"{index:05}.{secrets.token_hex(4)}.lease"

    def store(self, part: Path, receipt: Receipt) -> None:
        """Give a part that is on disk its name, and write its receipt. Raises OSError."""
        os.replace(part, self.segment_path(receipt.index))
        write_synced(self._receipt_path(receipt.index), receipt.model_dump_json())

    def receipt(self, segment: PlannedSegment) -> Receipt | None:
        """The receipt of a finished segment; None where it or the segment's file is missing or damaged."""
        try:
            receipt = Receipt.model_validate_json(self._receipt_path(segment.index).read_bytes())
        except (OSError, ValidationError):
            return None
        if receipt.index != segment.index or not is_intact(self.segment_path(segment.index), receipt.packets):
            return None
        return receipt

    def discard(self, segment: PlannedSegment) -> None:
        """Delete a finished segment and its receipt."""
        self._receipt_path(segment.index).unlink(missing_ok=True)
        self.segment_path(segment.index).unlink(missing_ok=True)

    def finished(self, plan: Plan) -> dict[int, Receipt]:
        """The receipts of all finished segments whose files are intact, by index."""
        found = {segment.index: self.receipt(segment) for segment in plan.segments}
        return {index: receipt for index, receipt in found.items() if receipt is not None}

    def note_partial(self, path: Path) -> None:
        """Remember that this job wrote a file with the first part of the video."""
        with suppress(OSError):  # then it stays beside the whole video
            write_synced(self.path / _PARTIAL, json.dumps([path.name, *_identity(path)]))

    def remove_partial(self) -> None:
        """Delete the file with the first part, if it still is the one that this job wrote."""
        with suppress(OSError, ValueError):
            name, *identity = json.loads((self.path / _PARTIAL).read_text(encoding="utf-8"))
            path = self.destination.with_name(Path(name).name)
            if identity == _identity(path):
                path.unlink()

    def drop_parts(self) -> None:
        """Delete what runs left of segments they did not finish."""
        for path in (*self.path.glob("*.part"), *self.path.glob("*.lease")):
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the folder with all that is in it; a symbolic link itself, never its target."""
        if self.path.is_symlink():
            self.path.unlink()
        elif self.path.exists():
            shutil.rmtree(self.path, ignore_errors=True)

    def _receipt_path(self, index: int) -> Path:
        return self.path / f"{index:05}.json"


def _identity(path: Path) -> list[int]:
    """Which file lies at a path."""
    facts = path.stat()
    return [facts.st_ino, facts.st_size, facts.st_mtime_ns]
